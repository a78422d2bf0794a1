"""Patient-cluster bootstrap: patients, not images or pairs, are drawn with replacement.

Images of one patient are alike, so intervals over images are too narrow. A resample is expressed as weights: an image
counts as often as its patient was drawn; a negative pair as often as the product of its two patients' counts; a
positive pair as often as its patient's count, since a patient drawn twice is never its own positive. Weights that
balance pairs on all data are kept: in a resample they balance a little less, which makes intervals a little wider.

Limits are made in :mod:`gmia_monai.metrics.limits`.

How often the intervals hold the truth is measured by ``scripts/check_intervals.py``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from gmia_monai.errors import UsageError
from gmia_monai.metrics.limits import (
    Bounds,
    Interval,
    SeedError,
    bounded_interval,
    percentile_interval,
)
from gmia_monai.metrics.verification import SortedScores

__all__ = [
    "intervals_over_seeds",
    "pair_bootstrap",
    "pair_bootstrap_auc",
    "pair_bootstrap_figures",
    "pair_bootstrap_found",
    "pair_bootstrap_over_seeds",
    "patient_bootstrap",
    "patient_bootstrap_figures",
    "patient_counts",
    "seed_error",
]


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
    bounds: Bounds | None = None,
) -> Interval:
    """Interval of a statistic of images, by drawing patients with replacement.

    Args:
        statistic: takes one non-negative weight an image and gives the weighted statistic; may give ``nan``.
        patients: patient of each image, shape ``n``.
        n_boot: number of resamples.
        seed: seed of the resamples.
        level: coverage, 0.95 for the usual interval.
        bounds: smallest and largest value of the statistic, e.g. 0 and 1, for :func:`bounded_interval`; None:
            percentiles.
    """
    names, member = np.unique(np.asarray(patients), return_inverse=True)
    value = float(statistic(np.ones(len(member))))
    replicates = np.array([statistic(counts[member]) for counts in _draws(len(names), n_boot, seed)])
    if bounds is None:
        return percentile_interval(value, replicates, level)
    return bounded_interval(value, replicates, len(names), level, bounds)


def pair_bootstrap(
    statistic: Callable[[Float[np.ndarray, "n"]], float],
    same: Bool[np.ndarray, "n"],
    patient_first: Shaped[np.ndarray, "n"],
    patient_second: Shaped[np.ndarray, "n"],
    weights: Float[np.ndarray, "n"] | None = None,
    n_boot: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    bounds: Bounds | None = (0.0, 1.0),
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
        bounds: smallest and largest value of the statistic, for :func:`bounded_interval` with the patients who have a
            positive pair that weighs something; None: percentiles.

    Raises:
        UsageError: GM-U213 where a positive pair joins two patients or a negative pair one.
    """
    base = np.ones(len(same)) if weights is None else np.asarray(weights, dtype=np.float64)
    drawn = _pair_weights(base, same, patient_first, patient_second, n_boot, seed)
    replicates, value = np.array([statistic(w) for w in drawn]), float(statistic(base))
    if bounds is None:
        return percentile_interval(value, replicates, level)
    return bounded_interval(value, replicates, _n_positive_patients(base, same, patient_first), level, bounds)


def _n_positive_patients(
    base: Float[np.ndarray, "n"], same: Bool[np.ndarray, "n"], patient_first: Shaped[np.ndarray, "n"]
) -> int:
    """Patients with a positive pair that counts: one without weight decides nothing."""
    return len(np.unique(np.asarray(patient_first)[np.asarray(same, dtype=bool) & (base > 0)]))


def _pair_weights(
    base: Float[np.ndarray, "n"],
    same: Bool[np.ndarray, "n"],
    patient_first: Shaped[np.ndarray, "n"],
    patient_second: Shaped[np.ndarray, "n"],
    n_boot: int,
    seed: int,
    n_cohort: int | None = None,
) -> Iterator[Float[np.ndarray, "n"]]:
    """The weight of each pair, resample by resample; ``n_cohort`` as :func:`pair_bootstrap_found` takes it."""
    same = np.asarray(same, dtype=bool)
    first, second = np.asarray(patient_first), np.asarray(patient_second)
    if not np.array_equal(first == second, same):
        raise UsageError("GM-U213", "pair labels contradict the patients", expected="positive pairs within one patient")
    member = np.concatenate([first, second])
    if n_cohort is None:
        names, member = np.unique(member, return_inverse=True)
        n_cohort = len(names)
    elif len(member) and not 0 <= member.min() <= member.max() < n_cohort:
        raise UsageError(
            "GM-U215", "a pair names a patient beyond its cohort", got=int(member.max()), expected=n_cohort
        )
    one = member[: len(first)]
    # the second patient of a positive is the first once more, whose count is taken once: here it is always 1
    two = np.where(same, n_cohort, member[len(first) :])
    for counts in _draws(n_cohort, n_boot, seed):
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
    bounds: Bounds | Sequence[Bounds] = (0.0, 1.0),
) -> list[Interval]:
    """Intervals of means of statistics over attackers of several seeds, by drawing patients.

    Attackers of other seeds would have found other values: see :func:`intervals_over_seeds`.

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
        bounds: smallest and largest value of the statistics, or of each; limits stay within. Infinite ones where
            there is none.

    Returns:
        one interval a statistic.

    Raises:
        UsageError: GM-U213 as :func:`pair_bootstrap`, GM-U214 without an attacker.
    """
    found = pair_bootstrap_found(statistics, same, patient_first, patient_second, weights, n_boot, seed)
    base = np.ones(len(same)) if weights is None else np.asarray(weights, dtype=np.float64)
    return intervals_over_seeds(found, _n_positive_patients(base, same, patient_first), level, bounds)


def pair_bootstrap_found(
    statistics: Sequence[Callable[[Float[np.ndarray, "n"]], Sequence[float]]],
    same: Bool[np.ndarray, "n"],
    patient_first: Shaped[np.ndarray, "n"],
    patient_second: Shaped[np.ndarray, "n"],
    weights: Float[np.ndarray, "n"] | None = None,
    n_boot: int = 1000,
    seed: int = 0,
    n_cohort: int | None = None,
) -> Float[np.ndarray, "rows seeds k"]:
    """What :func:`pair_bootstrap_figures` makes its intervals of; arguments as there.

    Args:
        n_cohort: patients that are drawn from, ``patient_first`` and ``patient_second`` being positions among them:
            pairs of several releases of one cohort then share their draws, whichever patients each release leaves
            out. None: the patients that occur in the pairs.

    Returns:
        each statistic of each seed: the first row on all data, the others on resamples.

    Raises:
        UsageError: GM-U213 as :func:`pair_bootstrap`, GM-U214 without an attacker, GM-U215 for a patient beyond
            ``n_cohort``.
    """
    base = np.ones(len(same)) if weights is None else np.asarray(weights, dtype=np.float64)
    drawn = _pair_weights(base, same, patient_first, patient_second, n_boot, seed, n_cohort)
    return _found(statistics, base, drawn)


def patient_bootstrap_figures(
    statistics: Sequence[Callable[[Float[np.ndarray, "n"]], Sequence[float]]],
    patients: Shaped[np.ndarray, "n"],
    n_boot: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    bounds: Bounds | Sequence[Bounds] = (0.0, 1.0),
    n_patients: Sequence[int] | None = None,
) -> list[Interval]:
    """As :func:`pair_bootstrap_figures`, for statistics of images.

    Args:
        statistics: for each seed, a function from weights to its statistics, the same ones for all.
        patients: patient of each image, shape ``n``.
        n_boot: number of resamples.
        seed: seed of the resamples.
        level: coverage.
        bounds: smallest and largest value of the statistics, or of each; limits stay within. Infinite ones where
            there is none.
        n_patients: patients that each statistic rests on: those of one class for a rate of that class, those of the
            smaller one for an AUC. None: all.

    Returns:
        one interval a statistic.

    Raises:
        UsageError: GM-U214 without an attacker.
    """
    names, member = np.unique(np.asarray(patients), return_inverse=True)
    drawn = (counts[member] for counts in _draws(len(names), n_boot, seed))
    resting_on = len(names) if n_patients is None else n_patients
    return intervals_over_seeds(_found(statistics, np.ones(len(member)), drawn), resting_on, level, bounds)


def _found(
    statistics: Sequence[Callable[[Float[np.ndarray, "n"]], Sequence[float]]],
    base: Float[np.ndarray, "n"],
    drawn: Iterator[Float[np.ndarray, "n"]],
) -> Float[np.ndarray, "rows seeds k"]:
    """Statistics of each seed, from the weights of all data and of each resample."""
    if len(statistics) == 0:
        raise UsageError("GM-U214", "no attacker to average over")
    # an attacker without chance is the same one with every seed
    distinct = list(dict.fromkeys(statistics))
    place = [distinct.index(statistic) for statistic in statistics]
    weights = itertools.chain((base,), drawn)  # one at a time: together, hundreds of megabytes
    return np.array([[statistic(w) for statistic in distinct] for w in weights], dtype=np.float64)[:, place]


def intervals_over_seeds(
    found: Float[np.ndarray, "rows seeds k"],
    n_patients: int | Sequence[int],
    level: float = 0.95,
    bounds: Bounds | Sequence[Bounds] = (0.0, 1.0),
) -> list[Interval]:
    """Intervals of means of statistics over networks of several seeds, whose resamples share their draws of patients.

    Networks of other seeds would have found other values. Drawing the few seeds with replacement, as is done with
    patients, would give ``(n - 1) / n`` of their variance, and limits that never leave the smallest and the largest.
    So the variance between seeds is estimated, less what the resamples vary by from seed to seed, which the bootstrap
    of the mean has already; the margin is Student's t of the different seeds, see :func:`bounded_interval`.

    Args:
        found: each statistic of each seed, the first row on all data, the others on resamples. Seeds with the same
            values throughout are one network: more seeds than weights files repeat some.
        n_patients: patients that the statistics rest on, or each does.
        level: coverage.
        bounds: smallest and largest value of the statistics, or of each; infinite ones where there is none, for
            percentiles of the resamples with the margin of seeds in quadrature.

    Returns:
        one interval a statistic.
    """
    first, share = _networks(found)
    single = not isinstance(bounds[0], tuple)
    of_each = [bounds] * found.shape[2] if single else bounds
    resting_on = [n_patients] * found.shape[2] if isinstance(n_patients, int) else n_patients
    intervals = []
    for each, n, (least, largest) in zip(np.moveaxis(found[:, first], -1, 0), resting_on, of_each, strict=True):
        means, seeds = each @ share, _seed_error(each, share, n)
        if np.isfinite([least, largest]).all():
            intervals.append(bounded_interval(float(means[0]), means[1:], n, level, (least, largest), seeds))
            continue
        value, low, high = percentile_interval(float(means[0]), means[1:], level)
        below, above = (math.hypot(max(part, 0.0), seeds.margin(level)) for part in (value - low, high - value))
        intervals.append(Interval(value, max(value - below, least), min(value + above, largest)))
    return intervals


def _networks(
    found: Float[np.ndarray, "rows seeds k"],
) -> tuple[Int[np.ndarray, "networks"], Float[np.ndarray, "networks"]]:
    """A column of each different network, and the share of the seeds that it has."""
    flat = np.nan_to_num(np.swapaxes(found, 0, 1).reshape(found.shape[1], -1), nan=np.inf)
    _, first, times = np.unique(flat, axis=0, return_index=True, return_counts=True)
    return first, times / times.sum()


def seed_error(found: Float[np.ndarray, "rows seeds"], n_patients: int) -> SeedError:
    """What the mean over seeds is off by, since other seeds would have found other values.

    Args:
        found: a statistic, as :func:`intervals_over_seeds` takes it.
        n_patients: patients that it rests on.
    """
    first, share = _networks(found[..., None])
    return _seed_error(found[:, first], share, n_patients)


def _seed_error(
    found: Float[np.ndarray, "rows networks"], share: Float[np.ndarray, "networks"], n_patients: int
) -> SeedError:
    """Standard error of the mean, weighted by how often a network comes, that is due to the choice of networks."""
    n = len(share)
    known = found[np.isfinite(found).all(axis=1)]
    if n < 2 or len(known) < 3 or not np.isfinite(found[0]).all():
        return SeedError(0.0, n)
    drawn = known[1:] - known[1:].mean(axis=1, keepdims=True)
    of_patients = drawn.var(axis=0).sum() / (n - 1) * n_patients / max(n_patients - 1, 1)
    variance = max(float(found[0].var(ddof=1) - of_patients), 0.0)
    return SeedError(math.sqrt(variance * float(np.square(share).sum())), n)


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
