"""Verification scores of image pairs: do two images show the same person? Weighted, ties counted as one half.

Higher scores mean "same person". Weights carry both the equal weight of each patient and, in the bootstrap, the
multiplicity of a pair; `SortedScores` sorts once, so that a thousand re-weighted statistics stay cheap.
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from gmia_monai.errors import UsageError

__all__ = [
    "BestThreshold",
    "RocCurve",
    "SortedScores",
    "TarAtFar",
    "best_threshold_f1",
    "equal_error_rate",
    "roc_auc",
    "tar_at_far",
]

MIN_FALSE_ACCEPTS = 10.0


class TarAtFar(NamedTuple):
    """True-accept rate in [0, 1] at a false-accept rate; ``nan`` with the reason where it cannot be measured."""

    value: float
    threshold: float
    reason: str | None


class BestThreshold(NamedTuple):
    """The threshold (``score >= threshold`` means same) of the highest F1, with what it gives."""

    threshold: float
    f1: float
    precision: float
    recall: float


class RocCurve:
    """Weighted rates at each distinct score, ascending: all figures of one curve from one pass over the pairs.

    Args:
        thresholds: distinct scores, ascending.
        positive: weight of the positives at each.
        negative: weight of the negatives at each.
    """

    def __init__(
        self,
        thresholds: Float[np.ndarray, "groups"],
        positive: Float[np.ndarray, "groups"],
        negative: Float[np.ndarray, "groups"],
    ) -> None:
        self.thresholds, self.positive, self.negative = thresholds, positive, negative

    @cached_property
    def accept_rates(self) -> tuple[Float[np.ndarray, "groups"], Float[np.ndarray, "groups"]]:
        """True- and false-accept rate of ``score >= threshold``; ``nan`` for an empty class."""
        with np.errstate(invalid="ignore", divide="ignore"):
            tar = np.cumsum(self.positive[::-1])[::-1] / self.positive.sum()
            far = np.cumsum(self.negative[::-1])[::-1] / self.negative.sum()
        return tar, far

    def auc(self) -> float:
        """As :meth:`SortedScores.auc`."""
        total = self.positive.sum() * self.negative.sum()
        if total <= 0:
            return float("nan")
        return float(self.positive @ (np.cumsum(self.negative) - 0.5 * self.negative) / total)

    def eer(self) -> float:
        """As :meth:`SortedScores.eer`."""
        tar, far = self.accept_rates
        if np.isnan(tar[0]) or np.isnan(far[0]):
            return float("nan")
        # one more point beyond the largest score: everything is rejected
        accept_false, reject_true = np.append(far, 0.0), 1.0 - np.append(tar, 0.0)
        gap = accept_false - reject_true
        after = int(np.argmax(gap <= 0))
        before = max(after - 1, 0)
        step = gap[before] - gap[after]
        share = gap[before] / step if step > 0 else 0.0
        return float(accept_false[before] + share * (accept_false[after] - accept_false[before]))

    def tar_at_far(self, far: float) -> TarAtFar:
        """As :meth:`SortedScores.tar_at_far`, whatever the number of negatives."""
        tar, measured = self.accept_rates
        if np.isnan(tar[0]):
            return TarAtFar(float("nan"), float("nan"), "no positive pairs")
        allowed = np.flatnonzero(measured <= far * (1 + 1e-12))
        if len(allowed) == 0:  # the highest score itself is shared by too many negatives
            return TarAtFar(0.0, float("inf"), None)
        return TarAtFar(float(tar[allowed[0]]), float(self.thresholds[allowed[0]]), None)


class SortedScores:
    """Scores in ascending groups of ties, ready for weighted ROC statistics.

    Args:
        scores: similarity of each pair, finite, higher is more alike, shape ``n``.
        same: whether the pair is positive, shape ``n``.

    Raises:
        UsageError: GM-U201 where lengths differ or a score is not finite.
    """

    def __init__(self, scores: Float[np.ndarray, "n"], same: Bool[np.ndarray, "n"]) -> None:
        scores = np.asarray(scores, dtype=np.float64)
        same = np.asarray(same, dtype=bool)
        if scores.ndim != 1 or scores.shape != same.shape:
            raise UsageError(
                "GM-U201", "scores and labels do not fit", got=f"{scores.shape} and {same.shape}", expected="(n,), (n,)"
            )
        if not np.isfinite(scores).all():
            raise UsageError("GM-U201", "a score is not finite", expected="finite scores")
        self.same = same
        self.thresholds, group = np.unique(scores, return_inverse=True)
        self._groups = len(self.thresholds)
        self._positive, self._negative = np.flatnonzero(same), np.flatnonzero(~same)
        self._positive_group = group[self._positive]
        self._negative_group = group[self._negative]

    def histograms(
        self, weights: Float[np.ndarray, "n"] | None = None
    ) -> tuple[Float[np.ndarray, "groups"], Float[np.ndarray, "groups"]]:
        """Weight of positives and of negatives at each distinct score, ascending."""
        weights = np.ones(len(self.same)) if weights is None else np.asarray(weights, dtype=np.float64)
        positive = np.bincount(self._positive_group, weights[self._positive], self._groups)
        negative = np.bincount(self._negative_group, weights[self._negative], self._groups)
        return positive.astype(np.float64), negative.astype(np.float64)  # bincount of nothing counts in integers

    def curve(self, weights: Float[np.ndarray, "n"] | None = None) -> RocCurve:
        """The ROC curve under these weights, for several figures of it."""
        return RocCurve(self.thresholds, *self.histograms(weights))

    def accept_rates(
        self, weights: Float[np.ndarray, "n"] | None = None
    ) -> tuple[Float[np.ndarray, "groups"], Float[np.ndarray, "groups"]]:
        """True- and false-accept rate of ``score >= threshold``, ascending thresholds; ``nan`` for an empty class."""
        return self.curve(weights).accept_rates

    def auc(self, weights: Float[np.ndarray, "n"] | None = None) -> float:
        """Weighted probability that a positive scores above a negative, ties one half; ``nan`` for an empty class."""
        return self.curve(weights).auc()

    def eer(self, weights: Float[np.ndarray, "n"] | None = None) -> float:
        """Rate where false accepts equal false rejects, linear between neighbouring thresholds, in [0, 1]."""
        return self.curve(weights).eer()

    def average_precision(self, weights: Float[np.ndarray, "n"] | None = None) -> float:
        """Weighted average precision: sum over thresholds of the recall gained times the precision there."""
        positive, negative = (histogram[::-1] for histogram in self.histograms(weights))
        hits, accepted = np.cumsum(positive), np.cumsum(positive + negative)
        if hits[-1] <= 0:
            return float("nan")
        precision = np.divide(hits, accepted, out=np.zeros_like(hits), where=accepted > 0)
        return float(positive @ precision / hits[-1])

    def tar_at_far(
        self, far: float, weights: Float[np.ndarray, "n"] | None = None, min_false_accepts: float = MIN_FALSE_ACCEPTS
    ) -> TarAtFar:
        """True-accept rate at the lowest threshold whose false-accept rate is at most ``far``.

        The number of negatives is Kish's effective number, which is the plain number for equal weights: below
        ``min_false_accepts / far`` of them, the rate would rest on fewer than ten false accepts and ``nan`` is given
        instead. A resample of a figure that passed is not asked again (0).
        """
        if not 0.0 < far < 1.0:
            raise UsageError("GM-U202", "false-accept rate out of range", got=far, expected="0 < far < 1")
        kept = np.ones(int((~self.same).sum())) if weights is None else np.asarray(weights, np.float64)[~self.same]
        effective = float(kept.sum() ** 2 / np.square(kept).sum()) if kept.any() else 0.0
        if effective * far < min_false_accepts - 1e-6:
            reason = f"{effective:.0f} effective negatives, {min_false_accepts / far:.0f} needed"
            return TarAtFar(float("nan"), float("nan"), reason)
        return self.curve(weights).tar_at_far(far)

    def best_f1(self, weights: Float[np.ndarray, "n"] | None = None) -> BestThreshold:
        """Threshold of the highest weighted F1; the highest such one where several tie.

        It lies in the middle between the lowest score that is accepted and the highest that is not: on the score itself
        the next positive, a little lower, would be rejected.
        """
        positive, negative = self.histograms(weights)
        total = positive.sum()
        if total <= 0:
            return BestThreshold(*(float("nan"),) * 4)
        hits = np.cumsum(positive[::-1])[::-1]
        accepted = np.cumsum((positive + negative)[::-1])[::-1]
        f1 = 2.0 * hits / (accepted + total)
        best = len(f1) - 1 - int(np.argmax(f1[::-1]))
        precision = hits[best] / accepted[best] if accepted[best] > 0 else 0.0
        below = np.flatnonzero((positive + negative)[:best] > 0)
        lowest = self.thresholds[below[-1]] if len(below) else self.thresholds[best]
        threshold = lowest + (self.thresholds[best] - lowest) / 2
        return BestThreshold(*map(float, (threshold, f1[best], precision, hits[best] / total)))


def roc_auc(
    scores: Float[np.ndarray, "n"], same: Bool[np.ndarray, "n"], weights: Float[np.ndarray, "n"] | None = None
) -> float:
    """Weighted area under the ROC curve in [0, 1]; 0.5 is chance, ``nan`` where a class is empty."""
    return SortedScores(scores, same).auc(weights)


def equal_error_rate(
    scores: Float[np.ndarray, "n"], same: Bool[np.ndarray, "n"], weights: Float[np.ndarray, "n"] | None = None
) -> float:
    """Weighted equal error rate in [0, 1]; ``nan`` where a class is empty."""
    return SortedScores(scores, same).eer(weights)


def tar_at_far(
    scores: Float[np.ndarray, "n"],
    same: Bool[np.ndarray, "n"],
    far: float,
    weights: Float[np.ndarray, "n"] | None = None,
) -> TarAtFar:
    """True-accept rate at a false-accept rate; see `SortedScores.tar_at_far`."""
    return SortedScores(scores, same).tar_at_far(far, weights)


def best_threshold_f1(
    scores: Float[np.ndarray, "n"], same: Bool[np.ndarray, "n"], weights: Float[np.ndarray, "n"] | None = None
) -> BestThreshold:
    """Threshold of the highest F1, to be chosen on V2 and never on T."""
    return SortedScores(scores, same).best_f1(weights)
