"""Weighted figures of pairs under many weightings, from where each negative lies among the positives.

There are fifty negatives to a positive. What a ROC curve says at the positives depends on a negative only by which
positives it lies between: those places are looked up once, and a resample adds up its negatives by place, without those
that it leaves out. Figures are those of :class:`gmia_monai.metrics.verification.RocCurve`, up to rounding.
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

__all__ = ["CalibrationBins", "PairDraw", "PairSplit", "PlacedCurve", "PlacedPairs"]


class PairDraw(NamedTuple):
    """Weights of one resample.

    Attributes:
        positive: of every positive.
        index: which of the negatives weigh anything.
        negative: weights of these.
    """

    positive: Float[np.ndarray, "p"]
    index: Int[np.ndarray, "m"]
    negative: Float[np.ndarray, "m"]


class PairSplit:
    """From the weights of all pairs to those of positives and negatives; once for all who ask of the same weights.

    Args:
        same: whether a pair is positive.
    """

    def __init__(self, same: Bool[np.ndarray, "n"]) -> None:
        self.positive, self.negative = np.flatnonzero(same), np.flatnonzero(~same)
        self._last: tuple[np.ndarray, PairDraw] | None = None

    def __call__(self, weights: Float[np.ndarray, "n"]) -> PairDraw:
        if self._last is None or self._last[0] is not weights:
            negative = weights[self.negative]
            index = np.flatnonzero(negative)
            self._last = weights, PairDraw(weights[self.positive], index, negative[index])
        return self._last[1]


class PlacedPairs:
    """Scores of pairs, the negatives by their place among the positives.

    Args:
        scores: similarity of each pair, finite.
        split: which pairs are positive.
    """

    def __init__(self, scores: Float[np.ndarray, "n"], split: PairSplit) -> None:
        scores = np.asarray(scores, dtype=np.float64)
        levels, self._level = np.unique(scores[split.positive], return_inverse=True)
        self.n_levels = len(levels)
        order = np.argsort(negatives := scores[split.negative])
        ranked, place = negatives[order], np.empty(len(negatives), dtype=np.int32)
        # even: between two levels; odd: at one
        place[order] = np.searchsorted(levels, ranked, "left") + np.searchsorted(levels, ranked, "right")
        self._place = place

    def curve(self, draw: PairDraw) -> PlacedCurve:
        """The ROC curve of a resample."""
        return PlacedCurve(
            np.bincount(self._level, draw.positive, self.n_levels).astype(np.float64),
            np.bincount(self._place[draw.index], draw.negative, 2 * self.n_levels + 1).astype(np.float64),
        )


class PlacedCurve:
    """Figures of one curve; names and definitions as in :class:`gmia_monai.metrics.verification.RocCurve`.

    Args:
        positive: weight of the positives at each level, ascending.
        negative: weight of the negatives at each place: below the first level, at it, above it, …
    """

    def __init__(self, positive: Float[np.ndarray, "levels"], negative: Float[np.ndarray, "places"]) -> None:
        self.positive, self.negative = positive, negative
        self.sums = float(positive.sum()), float(negative.sum())

    @cached_property
    def _rates(self) -> tuple[Float[np.ndarray, "places_1"], Float[np.ndarray, "places_1"]]:
        """True- and false-accept rate from each place on; the last one accepts nothing."""
        at = np.zeros(len(self.negative))
        at[1::2] = self.positive
        above = [np.append(np.cumsum(part[::-1])[::-1], 0.0) for part in (at, self.negative)]
        return above[0] / self.sums[0], above[1] / self.sums[1]

    def auc(self) -> float:
        """Probability that a positive scores above a negative, ties one half; ``nan`` for an empty class."""
        if min(self.sums) <= 0:
            return float("nan")
        below = np.cumsum(self.negative)
        wins = self.positive @ (below[0:-1:2] + 0.5 * self.negative[1::2])
        return float(wins / (self.sums[0] * self.sums[1]))

    def eer(self) -> float:
        """Rate where false accepts equal false rejects: between two levels false rejects do not change, so that it is
        theirs; at a level it is linear. ``nan`` for an empty class."""
        if min(self.sums) <= 0:
            return float("nan")
        tar, far = self._rates
        gap = far - (1.0 - tar)
        after = int(np.argmax(gap <= 0))
        if after % 2:  # the place before is one between levels
            return float(1.0 - tar[after])
        before = after - 1
        share = gap[before] / (gap[before] - gap[after])
        return float(far[before] + share * (far[after] - far[before]))

    def tar_at_far(self, far: float) -> float:
        """True-accept rate at the lowest threshold whose false-accept rate is at most ``far``; ``nan`` without
        positives, 0 where no threshold is."""
        if self.sums[0] <= 0:
            return float("nan")
        if self.sums[1] <= 0:
            return 0.0
        tar, measured = self._rates
        return float(tar[np.argmax(measured <= far * (1 + 1e-12))])


class CalibrationBins:
    """Mean gap between what is predicted and what is true, over bins of the prediction (Guo et al., ICML 2017, eq. 5).

    Both kinds of pairs are brought to equal weight.

    Args:
        probability: P(same person) of each pair at even odds.
        split: which pairs are positive.
        bins: of equal width.
    """

    def __init__(self, probability: Float[np.ndarray, "n"], split: PairSplit, bins: int = 10) -> None:
        place = np.clip((probability * bins).astype(np.int8), 0, bins - 1)
        self._parts = [(place[index], probability[index]) for index in (split.positive, split.negative)]
        self._bins = bins

    def error(self, draw: PairDraw) -> float:
        """Of a resample; ``nan`` for an empty class."""
        (level, likely), (place, probability) = self._parts
        sums = draw.positive.sum(), draw.negative.sum()
        if min(sums) <= 0:
            return float("nan")
        predicted = np.bincount(level, draw.positive * (likely - 1.0), self._bins) / sums[0]
        index = draw.index
        predicted += np.bincount(place[index], draw.negative * probability[index], self._bins) / sums[1]
        return float(np.abs(predicted).sum() / 2)
