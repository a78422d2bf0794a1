"""Weights under which an image is as frequent among negative pairs as among positive ones, on each side, and so is a
kind of pair, where kinds are given.

Patients who come back differ from those who come once, and some images match many others: with negatives of equal
weight, a score of the real image alone already tells positives from negatives, whatever was released. Raking (iterative
proportional fitting: Deming & Stephan, Ann. Math. Stat. 1940) takes that away: with equal shares in either place, any
score of one image alone has AUC 0.5 (where places do not differ, any sum of the same score of both).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

__all__ = ["balanced_weights"]

_ROUNDS, _TOLERANCE = 5000, 1e-6
# Where so many rounds bring the shares hardly nearer, no more will.
_PATIENCE, _NEARER = 200, 0.8
# Negatives alone move in the first rounds; then positives without negatives to match give way, slowly.
_NEGATIVES_ALONE, _YIELD = 50, 0.05


def balanced_weights(
    positives: tuple[Int[np.ndarray, "p"], Int[np.ndarray, "p"]],
    weight: Float[np.ndarray, "p"],
    negatives: tuple[Int[np.ndarray, "q"], Int[np.ndarray, "q"]],
    start: Float[np.ndarray, "q"],
    n_images: int,
    ordered: bool,
    kinds: tuple[Int[np.ndarray, "p"], Int[np.ndarray, "q"]] | None = None,
) -> tuple[Float[np.ndarray, "p"], Float[np.ndarray, "q"], float]:
    """Weights of positive and of negative pairs, each summing to 1, with equal shares of every image and kind.

    Positives keep their weight where that is possible. An image that no negative can stand for (nobody else matches it,
    or only people without a positive) loses its positives; :attr:`Pairs.weight_moved` says how much that is.

    Args:
        positives: both images of each positive pair.
        weight: of the positives, summing to 1.
        negatives: both images of each negative pair.
        start: their weights to begin with; what is found is near these.
        n_images: images there are, at least as many as kinds.
        ordered: whether the two places differ (a released and a real image); otherwise an image's share is that in
            both places together.
        kinds: a number from 0 of each positive and each negative pair, whose shares are to be equal, too.

    Returns:
        weights of positives and negatives, and what is left of the difference between the shares: 0 where all is
        balanced, at most 1. Where no negative can be balanced at all, both as given.
    """
    if len(weight) == 0 or len(start) == 0:
        return weight, start, 0.0
    start = start / start.sum()
    margins = [(positives[:1], negatives[:1]), (positives[1:], negatives[1:])] if ordered else [(positives, negatives)]
    if kinds is not None:
        margins.append(((kinds[0],), (kinds[1],)))
    positive, negative = weight, start
    before = 1.0
    for step in range(_ROUNDS):
        apart = 0.0
        for of_positive, of_negative in margins:
            wanted, given = _shares(positive, of_positive, n_images), _shares(negative, of_negative, n_images)
            apart = max(apart, 0.5 * float(np.abs(wanted - given).sum()))
            if step >= _NEGATIVES_ALONE:
                reached = np.minimum(_ratio(given, wanted), 1.0) ** _YIELD
                positive = _scaled(positive, reached, of_positive)
                wanted = _shares(positive, of_positive, n_images)
            negative = _scaled(negative, _ratio(wanted, given), of_negative)
        if apart < _TOLERANCE:
            break
        if step % _PATIENCE == _PATIENCE - 1:
            if apart > _NEARER * before:
                break
            before = apart
    if not (positive.any() and negative.any()):
        positive, negative = weight, start
    left = [
        float(np.abs(_shares(positive, one, n_images) - _shares(negative, other, n_images)).sum())
        for one, other in margins
    ]
    return positive, negative, 0.5 * max(left)


def _shares(
    weight: Float[np.ndarray, "n"], places: Sequence[Int[np.ndarray, "n"]], n_images: int
) -> Float[np.ndarray, "values"]:
    """Weight of each value in these places."""
    return np.mean([np.bincount(values, weight, n_images) for values in places], axis=0)


def _scaled(
    weight: Float[np.ndarray, "n"], factor: Float[np.ndarray, "values"], places: Sequence[Int[np.ndarray, "n"]]
) -> Float[np.ndarray, "n"]:
    """Weights times the (geometric mean of the) factors of their values, summing to 1 again."""
    scaled = weight * np.prod([factor[values] for values in places], axis=0) ** (1.0 / len(places))
    return scaled / max(float(scaled.sum()), np.finfo(float).tiny)


def _ratio(
    numerator: Float[np.ndarray, "values"], denominator: Float[np.ndarray, "values"]
) -> Float[np.ndarray, "values"]:
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)
