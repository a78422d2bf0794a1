"""Patient-cluster bootstrap: patients, not images or pairs, are drawn with replacement.

Images of one patient are alike, so intervals over images are too narrow. A resample is expressed as weights: an image
counts as often as its patient was drawn; a negative pair as often as the product of its two patients' counts; a
positive pair as often as its patient's count, since a patient drawn twice is never its own positive. Weights that
balance pairs on all data are kept: in a resample they balance a little less, which makes intervals a little wider.

Where each patient gives one outcome, yes or no, the interval is Wilson's (Journal of the American Statistical
Association 22:209, 1927): it has a width where every outcome is the same, which the bootstrap's has not.

How often the intervals hold the truth is measured by ``scripts/check_intervals.py``. An AUC near 1, or of some twenty
patients, hangs on few of them, and those who are hard to find may be missing: its lower limit is then too high (up to
14 in 100 truths lie below, not 2.5). The upper limit, with which claims of privacy are made, holds.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Shaped
from scipy.stats import binomtest

from gmia_monai.errors import UsageError
from gmia_monai.metrics.verification import SortedScores

__all__ = [
    "Interval",
    "pair_bootstrap",
    "pair_bootstrap_auc",
    "pair_bootstrap_figures",
    "pair_bootstrap_over_seeds",
    "patient_bootstrap",
    "patient_bootstrap_figures",
    "patient_counts",
    "percentile_interval",
    "rate_interval",
    "wilson_interval",
]

logger = logging.getLogger(__name__)


class Interval(NamedTuple):
    """A statistic on all data and its percentile interval; ``nan`` limits where no replicate could be computed."""

    value: float
    low: float
    high: float


def percentile_interval(value: float, replicates: Float[np.ndarray, "n_boot"], level: float = 0.95) -> Interval:
    """Percentile interval of the finite replicates around the statistic on all data."""
    if not 0.0 < level < 1.0:
        raise UsageError("GM-U211", "interval level out of range", got=level, expected="0 < level < 1")
    finite = replicates[np.isfinite(replicates)]
    if len(finite) == 0:
        return Interval(value, float("nan"), float("nan"))
    if len(finite) < 0.95 * len(replicates):
        _say_once(len(replicates) - len(finite), len(replicates))
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(finite, [tail, 1.0 - tail])
    return Interval(value, float(low), float(high))


def wilson_interval(successes: int, trials: int, level: float = 0.95) -> Interval:
    """Share of successes among independent trials, one a patient, with Wilson's interval; ``nan`` without a trial."""
    if trials == 0:
        return Interval(*(float("nan"),) * 3)
    limits = binomtest(successes, trials).proportion_ci(level, method="wilson")
    return Interval(successes / trials, float(limits.low), float(limits.high))


def rate_interval(found: Interval, n_patients: int, level: float = 0.95) -> Interval:
    """The interval of a rate; Wilson's for one outcome a patient where nobody or everybody was hit.

    There every resample is the same, and the bootstrap's interval has no width.
    """
    if found.low == found.high and found.value in (0.0, 1.0):
        return wilson_interval(round(found.value * n_patients), n_patients, level)
    return found


def _draws(n_patients: int, n_boot: int, seed: int) -> Iterator[Float[np.ndarray, "patients"]]:
    """How often each patient is drawn, replicate by replicate."""
    if n_patients == 0:
        raise UsageError("GM-U212", "no patients to draw from", got=0, expected="at least one patient")
    rng = np.random.default_rng(seed)
    for _ in range(n_boot):
        yield np.bincount(rng.integers(0, n_patients, n_patients), minlength=n_patients).astype(np.float64)


def patient_counts(n_patients: int, n_boot: int, seed: int = 0) -> Float[np.ndarray, "rows patients"]:
    """How often each patient counts: once in the first row, then as :func:`patient_bootstrap` draws them.

    For statistics that are computed for all resamples at once: the first row gives the value, the others its interval.
    """
    return np.stack([np.ones(n_patients), *_draws(n_patients, n_boot, seed)])


def patient_bootstrap(
    statistic: Callable[[Float[np.ndarray, "n"]], float],
    patients: Shaped[np.ndarray, "n"],
    n_boot: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Interval of a statistic of images, by drawing patients with replacement.

    Args:
        statistic: takes one non-negative weight an image and gives the weighted statistic; may give ``nan``.
        patients: patient of each image, shape ``n``.
        n_boot: number of resamples.
        seed: seed of the resamples.
        level: coverage, 0.95 for the usual interval.
    """
    names, member = np.unique(np.asarray(patients), return_inverse=True)
    value = float(statistic(np.ones(len(member))))
    replicates = np.array([statistic(counts[member]) for counts in _draws(len(names), n_boot, seed)])
    return percentile_interval(value, replicates, level)


def pair_bootstrap(
    statistic: Callable[[Float[np.ndarray, "n"]], float],
    same: Bool[np.ndarray, "n"],
    patient_first: Shaped[np.ndarray, "n"],
    patient_second: Shaped[np.ndarray, "n"],
    weights: Float[np.ndarray, "n"] | None = None,
    n_boot: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Interval of a statistic of pairs, by drawing patients with replacement.

    Args:
        statistic: takes one non-negative weight a pair and gives the weighted statistic; may give ``nan``.
        same: whether a pair is positive, shape ``n``.
        patient_first: patient of the first image of each pair.
        patient_second: patient of the second image; the same as the first exactly where ``same``.
        weights: weight of each pair before resampling; ones where absent.
        n_boot: number of resamples.
        seed: seed of the resamples.
        level: coverage, 0.95 for the usual interval.

    Raises:
        UsageError: GM-U213 where a positive pair joins two patients or a negative pair one.
    """
    base = np.ones(len(same)) if weights is None else np.asarray(weights, dtype=np.float64)
    drawn = _pair_weights(base, same, patient_first, patient_second, n_boot, seed)
    replicates = np.array([statistic(w) for w in drawn])
    return percentile_interval(float(statistic(base)), replicates, level)


def _pair_weights(
    base: Float[np.ndarray, "n"],
    same: Bool[np.ndarray, "n"],
    patient_first: Shaped[np.ndarray, "n"],
    patient_second: Shaped[np.ndarray, "n"],
    n_boot: int,
    seed: int,
) -> Iterator[Float[np.ndarray, "n"]]:
    """The weight of each pair, resample by resample."""
    same = np.asarray(same, dtype=bool)
    first, second = np.asarray(patient_first), np.asarray(patient_second)
    if not np.array_equal(first == second, same):
        raise UsageError("GM-U213", "pair labels contradict the patients", expected="positive pairs within one patient")
    names, member = np.unique(np.concatenate([first, second]), return_inverse=True)
    one = member[: len(first)]
    # the second patient of a positive is the first once more, whose count is taken once: here it is always 1
    two = np.where(same, len(names), member[len(first) :])
    for counts in _draws(len(names), n_boot, seed):
        yield base * counts[one] * np.append(counts, 1.0)[two]


def pair_bootstrap_over_seeds(
    statistics: Sequence[Callable[[Float[np.ndarray, "n"]], float]], *at: Any, **how: Any
) -> Interval:
    """One statistic of :func:`pair_bootstrap_figures`, whose further arguments these are; ``statistics`` give a number
    each."""
    return pair_bootstrap_figures([lambda w, s=statistic: (s(w),) for statistic in statistics], *at, **how)[0]


def pair_bootstrap_figures(
    statistics: Sequence[Callable[[Float[np.ndarray, "n"]], Sequence[float]]],
    same: Bool[np.ndarray, "n"],
    patient_first: Shaped[np.ndarray, "n"],
    patient_second: Shaped[np.ndarray, "n"],
    weights: Float[np.ndarray, "n"] | None = None,
    n_boot: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> list[Interval]:
    """Intervals of means of statistics over attackers of several seeds, by drawing patients.

    Attackers of other seeds would have found other values. To each resample is added what the mean over so few seeds is
    off by: their standard error times a draw from Student's t. Drawing three seeds with replacement, as is done with
    patients, would give two thirds of their variance, and limits that never leave the smallest and the largest of them.

    Args:
        statistics: for each seed's attacker, a function from weights to its statistics, the same ones for all. One
            that comes several times is computed once.
        same: whether a pair is positive, shape ``n``.
        patient_first: patient of the first image of each pair.
        patient_second: patient of the second image.
        weights: weight of each pair before resampling; ones where absent.
        n_boot: number of resamples.
        seed: seed of the resamples.
        level: coverage.
        bounds: least and largest value that the statistics can take; limits stay within.

    Returns:
        one interval a statistic.

    Raises:
        UsageError: GM-U213 as :func:`pair_bootstrap`, GM-U214 without an attacker.
    """
    base = np.ones(len(same)) if weights is None else np.asarray(weights, dtype=np.float64)
    drawn = _pair_weights(base, same, patient_first, patient_second, n_boot, seed)
    return _over_seeds(statistics, base, drawn, n_boot, seed, level, bounds)


def patient_bootstrap_figures(
    statistics: Sequence[Callable[[Float[np.ndarray, "n"]], Sequence[float]]],
    patients: Shaped[np.ndarray, "n"],
    n_boot: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> list[Interval]:
    """As :func:`pair_bootstrap_figures`, for statistics of images.

    Args:
        statistics: for each seed, a function from weights to its statistics, the same ones for all.
        patients: patient of each image, shape ``n``.
        n_boot: number of resamples.
        seed: seed of the resamples.
        level: coverage.
        bounds: least and largest value that the statistics can take; limits stay within.

    Returns:
        one interval a statistic.

    Raises:
        UsageError: GM-U214 without an attacker.
    """
    names, member = np.unique(np.asarray(patients), return_inverse=True)
    drawn = (counts[member] for counts in _draws(len(names), n_boot, seed))
    return _over_seeds(statistics, np.ones(len(member)), drawn, n_boot, seed, level, bounds)


def _over_seeds(
    statistics: Sequence[Callable[[Float[np.ndarray, "n"]], Sequence[float]]],
    base: Float[np.ndarray, "n"],
    drawn: Iterator[Float[np.ndarray, "n"]],
    n_boot: int,
    seed: int,
    level: float,
    bounds: tuple[float, float],
) -> list[Interval]:
    """Intervals of means over seeds, from the weights of all data and of each resample."""
    n_seeds = len(statistics)
    if n_seeds == 0:
        raise UsageError("GM-U214", "no attacker to average over")
    # an attacker without chance is the same one with every seed
    distinct = list(dict.fromkeys(statistics))
    times = [statistics.count(statistic) for statistic in distinct]

    def all_seeds(w: np.ndarray) -> np.ndarray:
        return np.repeat([statistic(w) for statistic in distinct], times, axis=0)

    found = all_seeds(base)
    means = np.stack([all_seeds(w).mean(axis=0) for w in drawn])
    error = found.std(axis=0, ddof=1) / math.sqrt(n_seeds) if n_seeds > 1 else np.zeros(found.shape[1])
    off = np.random.default_rng([seed, n_seeds]).standard_t(max(n_seeds - 1, 1), n_boot)[:, None] * error
    return [
        percentile_interval(float(value), replicates, level)
        for value, replicates in zip(found.mean(axis=0), np.clip(means + off, *bounds).T, strict=True)
    ]


def pair_bootstrap_auc(
    scores: Float[np.ndarray, "n"],
    same: Bool[np.ndarray, "n"],
    patient_first: Shaped[np.ndarray, "n"],
    patient_second: Shaped[np.ndarray, "n"],
    weights: Float[np.ndarray, "n"] | None = None,
    n_boot: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Weighted verification AUC with its patient-cluster interval; see `pair_bootstrap`."""
    statistic = SortedScores(scores, same).auc
    return pair_bootstrap(statistic, same, patient_first, patient_second, weights, n_boot, seed, level)


@cache
def _say_once(without: int, n: int) -> None:
    """Many figures of one release have the same resamples; one line says it for all."""
    logger.warning("%d of %d bootstrap replicates had no value", without, n)
