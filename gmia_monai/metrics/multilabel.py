"""Figures of a multi-label classifier for many weightings of the images at once: a resample costs no sort of its own.

AUROC, average precision, accuracy and F1 at a threshold, and two figures of calibration: the Brier score, and the
expected calibration error (Guo et al., ICML 2017, eq. 3) of the probability that a finding is there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Float

from gmia_monai.errors import UsageError

__all__ = ["FIGURES", "resampled_figures"]

_BINS = 15
_Images = Float[np.ndarray, "n"]
_Present = Bool[np.ndarray, "n"]
_Weights = Float[np.ndarray, "rows n"]
_Rows = Float[np.ndarray, "rows"]


def _rates(
    probability: _Images, present: _Present, weights: _Weights
) -> tuple[Float[np.ndarray, "rows groups"], Float[np.ndarray, "rows groups"]]:
    """Weight of positives and of negatives at each distinct probability, ascending."""
    order = np.argsort(probability)
    starts = np.flatnonzero(np.diff(probability[order], prepend=-np.inf) > 0)
    sorted_weights = weights[:, order]
    positive = np.add.reduceat(sorted_weights * present[order], starts, axis=1)
    return positive, np.add.reduceat(sorted_weights, starts, axis=1) - positive


def _auroc(probability: _Images, present: _Present, threshold: float, weights: _Weights) -> _Rows:
    positive, negative = _rates(probability, present, weights)
    below = np.cumsum(negative, axis=1) - 0.5 * negative
    return (positive * below).sum(axis=1) / (positive.sum(axis=1) * negative.sum(axis=1))


def _average_precision(probability: _Images, present: _Present, threshold: float, weights: _Weights) -> _Rows:
    positive, negative = (part[:, ::-1] for part in _rates(probability, present, weights))
    hits, accepted = np.cumsum(positive, axis=1), np.cumsum(positive + negative, axis=1)
    precision = np.divide(hits, accepted, out=np.zeros_like(hits), where=accepted > 0)
    return (positive * precision).sum(axis=1) / hits[:, -1]


def _accuracy(probability: _Images, present: _Present, threshold: float, weights: _Weights) -> _Rows:
    return weights @ ((probability >= threshold) == present) / weights.sum(axis=1)


def _f1(probability: _Images, present: _Present, threshold: float, weights: _Weights) -> _Rows:
    called = probability >= threshold
    return 2.0 * (weights @ (called & present)) / (weights @ called + weights @ present)


def _brier(probability: _Images, present: _Present, threshold: float, weights: _Weights) -> _Rows:
    return weights @ np.square(probability - present) / weights.sum(axis=1)


def _ece(probability: _Images, present: _Present, threshold: float, weights: _Weights) -> _Rows:
    bins = np.minimum((probability * _BINS).astype(int), _BINS - 1)
    gap = np.eye(_BINS)[bins] * (probability - present)[:, None]
    return np.abs(weights @ gap).sum(axis=1) / weights.sum(axis=1)


_FUNCTIONS: dict[str, Callable[[_Images, _Present, float, _Weights], _Rows]] = {
    "auroc": _auroc,
    "ap": _average_precision,
    "accuracy": _accuracy,
    "f1": _f1,
    "brier": _brier,
    "ece": _ece,
}
FIGURES = tuple(_FUNCTIONS)


def resampled_figures(
    probabilities: Float[np.ndarray, "n k"],
    labels: Float[np.ndarray, "n k"],
    thresholds: Float[np.ndarray, "k"],
    weights: Float[np.ndarray, "rows n"],
    figures: Sequence[str] = FIGURES,
) -> dict[str, Float[np.ndarray, "rows k"]]:
    """Figures of each finding under each weighting of the images.

    Args:
        probabilities: outputs in [0, 1].
        labels: 0, 1 or ``nan`` for unknown, which is left out for its finding.
        thresholds: a finding is called present from here on; for accuracy and F1.
        weights: non-negative, one row a weighting.
        figures: some of :data:`FIGURES`.

    Returns:
        Each figure by name; ``nan`` where a weighting leaves a class without an image.

    Raises:
        UsageError: ``GM-U352`` for probabilities out of [0, 1].
    """
    if len(probabilities) and not (
        np.isfinite(probabilities).all() and 0 <= probabilities.min() <= probabilities.max() <= 1
    ):
        raise UsageError("GM-U352", "probabilities out of range", expected="finite, 0 to 1")
    found = {name: np.full((len(weights), labels.shape[1]), np.nan) for name in figures}
    for k in range(labels.shape[1]):
        known = ~np.isnan(labels[:, k])
        if not known.any():
            continue
        present, part = labels[known, k] > 0.5, weights[:, known]
        probability = probabilities[known, k].astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            for name in figures:
                found[name][:, k] = _FUNCTIONS[name](probability, present, float(thresholds[k]), part)
    return found
