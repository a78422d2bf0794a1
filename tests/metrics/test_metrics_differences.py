"""The difference of two systems on shared resamples: re-stated, at known answers, and how often it holds the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from gmia_monai.errors import UsageError
from gmia_monai.metrics.differences import (
    Replicates,
    draws_of,
    paired_difference,
    share_draws,
    unpaired_difference,
)
from gmia_monai.metrics.intervals import intervals_over_seeds, pair_bootstrap_found, patient_counts, seed_error
from gmia_monai.metrics.limits import Interval, SeedError, bounded_interval, independent_errors
from gmia_monai.metrics.verification import SortedScores, roc_auc


class _Cohort:
    """Pairs of patients who share how easily they are found, and what an attacker says of them."""

    def __init__(self, n: int, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        positive, first = np.repeat(np.arange(n), 2), np.repeat(np.arange(n), 12)
        second = (first + self.rng.integers(1, n, len(first))) % n
        self.n, self.same = n, np.arange(len(positive) + len(first)) < len(positive)
        self.first, self.second = np.append(positive, first), np.append(positive, second)
        self.easy = self.rng.normal(size=n)

    def scores(self, gap: float, of_seed: float = 0.0) -> np.ndarray:
        noise = self.rng.normal(size=len(self.same))
        return noise + self.same * (gap + of_seed * self.rng.normal() + self.easy[self.first])

    def replicates(self, all_scores: list[np.ndarray], n_boot: int = 120) -> Replicates:
        tables = [SortedScores(scores, self.same) for scores in all_scores]
        statistics = [lambda w, t=t: (t.auc(w),) for t in tables]
        at = (self.same, self.first, self.second, None, n_boot, 0)
        found = pair_bootstrap_found(statistics, *at, n_cohort=self.n)[..., 0]
        draws = draws_of([str(i) for i in range(self.n)], 0)
        return Replicates(found, self.n, draws, tuple(range(len(tables))))


def _reference(found: np.ndarray, **other) -> Replicates:
    return Replicates(found, 50, "a", tuple(range(found.shape[1])), **other)


def test_two_copies_of_a_system_differ_by_nothing():
    cohort = _Cohort(40, 0)
    one = cohort.replicates([cohort.scores(1.0, 0.3) for _ in range(3)])
    copy = Replicates(one.found.astype(np.float32).copy(), one.n_patients, one.draws, one.seeds)
    kept = Replicates(one.found.astype(np.float32), one.n_patients, one.draws, one.seeds)
    assert paired_difference(kept, copy) == (0.0, 0.0, 0.0) and 0.5 < one.value < 0.95
    loss = _reference(np.random.default_rng(1).normal(size=(9, 5)), bounds=(-1.0, 1.0), by_seed=True)
    assert paired_difference(loss, loss) == (0.0, 0.0, 0.0)


def test_one_network_a_side_is_the_interval_of_rebuilt_resamples():
    """Without seeds of chance: each resample is rebuilt for both systems, and the differences make the limits."""
    cohort = _Cohort(30, 2)
    ours, theirs = cohort.scores(1.5), cohort.scores(0.5)
    rng, naive = np.random.default_rng(0), []
    for _ in range(60):
        counts = np.bincount(rng.integers(0, 30, 30), minlength=30)
        of_second = np.where(cohort.same, 1, counts[cohort.second])
        weight = (counts[cohort.first] * of_second).astype(float)
        naive.append(roc_auc(ours, cohort.same, weight) - roc_auc(theirs, cohort.same, weight))
    found = [cohort.replicates([scores], 60) for scores in (ours, theirs)]
    value = roc_auc(ours, cohort.same) - roc_auc(theirs, cohort.same)
    expected = bounded_interval(value, np.array(naive), 30, bounds=(-1.0, 1.0))
    assert paired_difference(*found) == pytest.approx(expected, abs=1e-12)
    assert expected.low > 0, "such a gap is found"


def test_fewer_resamples_are_the_first_of_more():
    cohort = _Cohort(30, 3)
    a, b = cohort.scores(1.0), cohort.scores(0.7)
    more, fewer = cohort.replicates([a], 80), cohort.replicates([b], 40)
    assert share_draws(more, fewer)
    assert paired_difference(more, fewer) == paired_difference(cohort.replicates([a], 40), fewer)
    np.testing.assert_array_equal(patient_counts(9, 5, seed=4), patient_counts(9, 12, seed=4)[:6])


def test_draws_are_named_by_patients_their_order_and_the_seed():
    names = ["a", "b", "c"]
    assert draws_of(names, 0) == draws_of(tuple(names), 0)
    assert (
        len({draws_of(*at) for at in ((names, 0), (names, 1), (names[::-1], 0), (names[:2], 0), (["ab", "c"], 0))}) == 5
    )
    one = _reference(np.zeros((9, 1)))
    assert share_draws(one, _reference(np.ones((4, 2))))
    assert not share_draws(one, Replicates(one.found, 50, "b", (0,)))
    assert not share_draws(one, _reference(np.ones((2, 1)))), "one resample has no spread"


def test_draws_of_a_cohort_do_not_hang_on_who_has_pairs():
    """A release that leaves patients out counts the others as every release does; without a cohort it does not."""
    cohort = _Cohort(25, 5)
    kept = (cohort.first < 20) & (cohort.second < 20)
    seen = {}
    for name, part, n in (("all", slice(None), 25), ("some", kept, 25), ("alone", kept, None)):
        first, weights = cohort.first[part], []
        count = [lambda w, weights=weights: weights.append(w) or (0.0,)]
        pair_bootstrap_found(count, cohort.same[part], first, cohort.second[part], None, 15, 0, n)
        positive = cohort.same[part] & (first < 20)
        seen[name] = np.stack(weights)[:, positive]
    np.testing.assert_array_equal(seen["all"], seen["some"])
    assert (seen["alone"] != seen["some"]).any() and (seen["some"][0] == 1).all()
    everybody = cohort.replicates([cohort.scores(1.0)], 15)
    whole = np.unique([cohort.first, cohort.second])
    assert len(whole) == 25 and everybody.found.shape == (16, 1)
    with pytest.raises(UsageError, match="GM-U215"):
        pair_bootstrap_found([lambda w: (0.0,)], cohort.same, cohort.first, cohort.second, None, 2, 0, 24)


def test_the_whole_cohort_in_pairs_gives_the_figures_of_before():
    cohort = _Cohort(25, 6)
    table = SortedScores(cohort.scores(1.0), cohort.same)
    at = ([lambda w: (table.auc(w),)], cohort.same, cohort.first, cohort.second, None, 20, 0)
    np.testing.assert_array_equal(pair_bootstrap_found(*at), pair_bootstrap_found(*at, n_cohort=25))


# -- seeds ------------------------------------------------------------------------------------------------------------
def test_errors_of_independent_seeds_add_in_quadrature():
    one, other = SeedError(0.03, 3), SeedError(0.04, 5)
    both = independent_errors(one, other)
    freedom = 0.05**4 / (0.03**4 / 2 + 0.04**4 / 4)
    assert both.error == pytest.approx(0.05) and both.n == int(freedom) + 1
    assert independent_errors(one, SeedError(0.0, 1)) == one
    assert independent_errors(SeedError(0.0, 1), SeedError(0.0, 1)).margin(0.95) == 0.0
    assert independent_errors(one, one).n == 5, "as many degrees of freedom as both have"


def test_seeds_of_both_sides_widen_the_difference():
    rng = np.random.default_rng(0)
    base = 0.7 + 0.001 * rng.normal(size=(200, 1))
    ours, theirs = base + [0.0, 0.02, 0.04], base - 0.1 + [0.03, 0.0, 0.01]
    found = paired_difference(_reference(ours), _reference(theirs))
    errors = [seed_error(part, 50) for part in (ours, theirs)]
    assert [e.error for e in errors] == pytest.approx(
        [np.std(part[0], ddof=1) / math.sqrt(3) for part in (ours, theirs)], rel=0.01
    )
    margin = independent_errors(*errors).margin(0.95)
    assert found.high - found.value == pytest.approx(margin, rel=0.05) and found.value == pytest.approx(
        0.1067, abs=1e-3
    )
    alone = paired_difference(_reference(ours[:, :1]), _reference(theirs[:, :1]))
    assert alone.high - alone.low < 0.1 * (found.high - found.low), "patients cancel, seeds do not"


def test_what_seeds_share_is_lost_where_they_are_taken_one_by_one():
    """A loss has the classifier of real images in it, which both systems' losses share."""
    rng = np.random.default_rng(1)
    real = 0.7 + 0.01 * rng.normal(size=(1, 5)) + 0.005 * rng.normal(size=(300, 1))
    losses = [real - (0.68 - drop + 0.001 * rng.normal(size=(1, 5))) for drop in (0.0, 0.03)]
    kept = [_reference(loss, bounds=(-1.0, 1.0), by_seed=True) for loss in losses]
    [expected] = intervals_over_seeds((losses[1] - losses[0])[..., None], 50, bounds=(-2.0, 2.0))
    found = paired_difference(kept[1], kept[0])
    assert found == pytest.approx(expected, abs=1e-12) and found.value == pytest.approx(0.03, abs=2e-3)
    other = Replicates(kept[0].found, 50, "a", (5, 6, 7, 8, 9), (-1.0, 1.0), True)
    wide = paired_difference(kept[1], other)
    assert wide.high - wide.low > 3 * (found.high - found.low), "other seeds share nothing"


def test_the_interval_of_a_known_gap_covers_it():
    """Attackers of three seeds each on patients that both share; the truth is that of many patients and seeds."""
    gaps, of_seed, trials = (1.2, 0.7), 0.15, 25
    spread = math.sqrt(3.0 + of_seed**2)  # of a positive's score less a negative's
    truth = float(np.diff(stats.norm.cdf(np.array(gaps[::-1]) / spread))[0])
    covered = narrower = 0
    for trial in range(trials):
        cohort = _Cohort(60, 100 + trial)
        one, other = (cohort.replicates([cohort.scores(g, of_seed) for _ in range(3)], 40) for g in gaps)
        paired = paired_difference(one, other)
        alone = [intervals_over_seeds(each.found[..., None], 60)[0] for each in (one, other)]
        unpaired = unpaired_difference(*alone)
        assert unpaired.value == pytest.approx(paired.value)
        covered += paired.low <= truth <= paired.high
        narrower += paired.high - paired.low < unpaired.high - unpaired.low
    assert covered >= 0.88 * trials
    assert narrower > 0.9 * trials, "what patients share is lost"


def test_without_replicates_it_is_made_of_two_intervals():
    one, other = Interval(0.9, 0.87, 0.92), Interval(0.6, 0.56, 0.65)
    found = unpaired_difference(one, other)
    assert found == pytest.approx((0.3, 0.3 - math.hypot(0.03, 0.05), 0.3 + math.hypot(0.02, 0.04)))
    back = unpaired_difference(other, one)
    assert (back.value, back.low, back.high) == pytest.approx((-found.value, -found.high, -found.low))
    assert math.isnan(unpaired_difference(one, Interval(0.6, math.nan, math.nan)).low)
