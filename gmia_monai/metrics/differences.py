"""The difference of one figure between two systems that are judged on the same patients.

What chance does to patients it does to both systems alike: a patient who is easily found is so in most releases. So the
difference is taken resample by resample, where both have been drawn from the same list with the same seed, and what
they share is lost. The intervals of the two, held beside each other, cannot tell as much.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from gmia_monai.metrics.intervals import intervals_over_seeds, seed_error
from gmia_monai.metrics.limits import Bounds, Interval, bounded_interval, independent_errors

__all__ = ["Replicates", "draws_of", "paired_difference", "share_draws", "unpaired_difference"]


def draws_of(patients: Sequence[str], seed: int) -> str:
    """What names the draws of :func:`gmia_monai.metrics.intervals.patient_counts`: a hash of the patients, in their
    order, and of the seed. Fewer draws are the first of more, so that their number is none of it."""
    return hashlib.sha256(json.dumps([list(patients), seed]).encode()).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Replicates:
    """A figure of one system, on all data and on resamples of patients.

    Attributes:
        found: the figure of each seed; the first row on all data, the others on resamples.
        n_patients: patients that it rests on.
        draws: names the resamples, see :func:`draws_of`.
        seeds: of the networks of each column.
        bounds: smallest and largest value of the figure.
        by_seed: whether networks of one seed have a part that systems share, as a loss has with the classifier of real
            images: differences are then taken seed by seed.
    """

    found: Float[np.ndarray, "rows seeds"]
    n_patients: int
    draws: str
    seeds: tuple[int, ...]
    bounds: Bounds = (0.0, 1.0)
    by_seed: bool = False

    @property
    def value(self) -> float:
        """Mean over seeds, on all data."""
        return float(self.found[0].mean())


def share_draws(one: Replicates, other: Replicates) -> bool:
    """Whether a row of one is, where both have it, on the patients of that row of the other."""
    return one.draws == other.draws and min(len(one.found), len(other.found)) > 2


def paired_difference(one: Replicates, other: Replicates, level: float = 0.95) -> Interval:
    """``one`` less ``other``, means over seeds, with an interval from resamples that both share.

    Networks of other seeds would have found other values: where seeds share nothing, the errors of both sides are
    added as independent ones, see :func:`gmia_monai.metrics.limits.independent_errors`. Where seeds share a part
    (``by_seed``, the same seeds), and where both are the same throughout, it is the error of the differences.

    Args:
        one: a figure of a system.
        other: the same figure of another one; :func:`share_draws` must hold. Rows beyond the shorter are left out.
        level: coverage.

    Returns:
        the difference, and limits within what the bounds of both allow.
    """
    rows = min(len(one.found), len(other.found))
    ours, theirs = (each.found[:rows].astype(np.float64) for each in (one, other))
    n = min(one.n_patients, other.n_patients)
    bounds = one.bounds[0] - other.bounds[1], one.bounds[1] - other.bounds[0]
    alike = ours.shape == theirs.shape and np.array_equal(ours, theirs, equal_nan=True)
    if alike or (one.by_seed and other.by_seed and one.seeds == other.seeds):
        return intervals_over_seeds((ours - theirs)[..., None], n, level, bounds)[0]
    errors = (seed_error(ours, one.n_patients), seed_error(theirs, other.n_patients))
    means = ours.mean(axis=1) - theirs.mean(axis=1)
    return bounded_interval(float(means[0]), means[1:], n, level, bounds, independent_errors(*errors))


def unpaired_difference(one: Interval, other: Interval) -> Interval:
    """``one`` less ``other`` from their intervals, as if they were of other patients (Zou and Donner, Statistics in
    Medicine 27:1693, 2008, eq. 4). Wider than :func:`paired_difference` where both systems have the same patients.

    ``nan`` limits where one of the two has none.
    """
    value = one.value - other.value
    below = math.hypot(one.value - one.low, other.high - other.value)
    above = math.hypot(one.high - one.value, other.value - other.low)
    return Interval(value, value - below, value + above)
