"""Limits of one figure from its bootstrap replicates, from its patients, or from the outcome of each.

Figures with a smallest and a largest value (an AUC, a rate, the difference of two) get their limits on the logit scale:
:func:`bounded_interval`. Percentiles of the resamples are too narrow there: near 1 a figure hangs on few patients, who
are missing from the data whose figure is high and whose resamples are alike. Figures without bounds get percentiles.

Where each patient gives one outcome, yes or no, the interval is Wilson's (Journal of the American Statistical
Association 22:209, 1927): it has a width where every outcome is the same, which the bootstrap's has not.
"""

from __future__ import annotations

import logging
import math
from functools import cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import expit, logit
from scipy.stats import binomtest, t

from gmia_monai.errors import UsageError

__all__ = [
    "Bounds",
    "Interval",
    "SeedError",
    "bounded_interval",
    "independent_errors",
    "percentile_interval",
    "wilson_interval",
]

logger = logging.getLogger(__name__)
_ROUNDING = 1e-9

Bounds = tuple[float, float]


class SeedError(NamedTuple):
    """What a mean over attackers of several seeds is off by, since others would have found other values.

    Attributes:
        error: standard error of the mean, in the unit of the statistic.
        n: different seeds that it was estimated from.
    """

    error: float
    n: int

    def margin(self, level: float) -> float:
        """Standard error times Student's t."""
        return self.error * float(t.isf((1.0 - level) / 2.0, max(self.n - 1, 1)))


def independent_errors(one: SeedError, other: SeedError) -> SeedError:
    """The error of a difference of two means over seeds that share nothing: in quadrature, with Welch's degrees of
    freedom (Biometrika 34:28, 1947), rounded down."""
    error = math.hypot(one.error, other.error)
    if error == 0.0:
        return SeedError(0.0, max(one.n, other.n))
    parts = sum((each.error / error) ** 4 / max(each.n - 1, 1) for each in (one, other))
    return SeedError(error, int(1.0 / parts + _ROUNDING) + 1)


class Interval(NamedTuple):
    """A statistic on all data and its limits, ``nan`` where no replicate could be computed."""

    value: float
    low: float
    high: float


def percentile_interval(value: float, replicates: Float[np.ndarray, "n_boot"], level: float = 0.95) -> Interval:
    """Percentile interval of the finite replicates around the statistic on all data."""
    finite = _finite(replicates, level)
    if len(finite) == 0:
        return Interval(value, float("nan"), float("nan"))
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(finite, [tail, 1.0 - tail])
    return Interval(value, float(low), float(high))


def _finite(replicates: Float[np.ndarray, "n_boot"], level: float) -> Float[np.ndarray, "n_finite"]:
    if not 0.0 < level < 1.0:
        raise UsageError("GM-U211", "interval level out of range", got=level, expected="0 < level < 1")
    finite = replicates[np.isfinite(replicates)]
    if 0 < len(finite) < 0.95 * len(replicates):
        _say_once(len(replicates) - len(finite), len(replicates))
    return finite


def bounded_interval(
    value: float,
    replicates: Float[np.ndarray, "n_boot"],
    n_patients: int,
    level: float = 0.95,
    bounds: Bounds = (0.0, 1.0),
    seeds: SeedError | None = None,
) -> Interval:
    """Interval of a statistic with a smallest and a largest value, on the logit scale between the two.

    ``logit(value)`` less and plus a margin; that of patients is their bootstrap standard error times Student's t,
    widened by ``sqrt(n / (n - 1))``, since a resample varies less than a sample (Hesterberg, American Statistician
    69:371, 2015). The standard error is the larger of that of the replicates' logits and that of the replicates
    divided by the slope of the logit: the first sees the skewness, the second also the resamples that reach a bound.
    The margin of seeds, their standard error times Student's t, is added in quadrature (Zou and Donner, Statistics in
    Medicine 27:1693, 2008): towards the nearer bound times the slope of the logit, half a patient from it at most; away
    from it as far as the margin itself reaches, since the slope would make nearly anything of seeds that differ by a
    patient or two. At a bound, where no resample differs, the limits are Wilson's of so many patients; less than one
    and a half patients from it, the margin of patients is no wider than Wilson's of that many, or than what resamples
    reach.

    Args:
        value: on all data.
        replicates: of resamples; those that are not finite are left out.
        n_patients: patients that the statistic rests on.
        level: coverage.
        bounds: smallest and largest value.
        seeds: what the mean over seeds is off by; None: nothing.

    Raises:
        UsageError: GM-U211 for a level out of range.
    """
    start, width = bounds[0], bounds[1] - bounds[0]
    place, drawn = (value - start) / width, (_finite(replicates, level) - start) / width
    if not np.isfinite(place) or len(drawn) == 0:
        return Interval(value, float("nan"), float("nan"))
    tail, whole = (1.0 - level) / 2.0, round(place * n_patients)
    wilson = wilson_interval(whole, n_patients, level)
    widest = min(wilson.low, np.quantile(drawn, tail)), max(wilson.high, np.quantile(drawn, 1.0 - tail))
    if not _ROUNDING < place < 1.0 - _ROUNDING:
        low, high = widest
    else:
        slope, n = 1.0 / (place * (1.0 - place)), max(n_patients, 2)
        # A bound has no logit, and what is off it by rounding a meaningless one: the nearest other resample's is taken.
        inside = drawn[(drawn > _ROUNDING) & (drawn < 1.0 - _ROUNDING)]
        seen = logit(np.clip(drawn, inside.min(), inside.max())) if len(inside) else np.zeros(1)
        error = max(drawn.std() * slope, seen.std()) * math.sqrt(n / (n - 1))
        of_patients = error * t.isf(tail, n - 1)
        if min(whole, n_patients - whole) <= 1:  # the limit away from the bound is no farther than these
            of_patients = min(of_patients, abs(logit(widest[1 if place < 0.5 else 0]) - logit(place)))
        margin = 0.0 if seeds is None else seeds.margin(level) / width
        resolved = min(max(place, 0.5 / n), 1.0 - 0.5 / n)
        near = margin / (resolved * (1.0 - resolved))
        other = max(place - margin, _ROUNDING) if place >= 0.5 else min(place + margin, 1.0 - _ROUNDING)
        of_seeds = (abs(logit(place) - logit(other)), near)
        below, above = (math.hypot(of_patients, part) for part in (of_seeds if place >= 0.5 else of_seeds[::-1]))
        if max(below, above) < 1e-12:  # all alike, up to rounding
            return Interval(value, value, value)
        low, high = expit(logit(place) - below), expit(logit(place) + above)
    return Interval(value, float(start + width * low), float(start + width * high))


def wilson_interval(successes: int, trials: int, level: float = 0.95) -> Interval:
    """Share of successes among independent trials, one a patient, with Wilson's interval; ``nan`` without a trial."""
    if trials == 0:
        return Interval(*(float("nan"),) * 3)
    limits = binomtest(successes, trials).proportion_ci(level, method="wilson")
    return Interval(successes / trials, float(limits.low), float(limits.high))


@cache
def _say_once(without: int, n: int) -> None:
    """Many figures of one release have the same resamples; one line says it for all."""
    logger.warning("%d of %d bootstrap replicates had no value", without, n)
