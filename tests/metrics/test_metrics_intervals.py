"""The patient bootstrap against resamples that are literally rebuilt, and its coverage."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
from scipy import stats

from gmia_monai.errors import UsageError
from gmia_monai.metrics.intervals import (
    intervals_over_seeds,
    pair_bootstrap,
    pair_bootstrap_auc,
    pair_bootstrap_figures,
    pair_bootstrap_over_seeds,
    patient_bootstrap,
    patient_bootstrap_figures,
    patient_counts,
)
from gmia_monai.metrics.limits import bounded_interval, percentile_interval, wilson_interval
from gmia_monai.metrics.verification import SortedScores, roc_auc


def _all_pairs(patients):
    first, second = map(np.array, zip(*itertools.combinations(range(len(patients)), 2), strict=True))
    return first, second, patients[first] == patients[second]


def _draw(rng, n):
    """The draw that the module makes, repeated here so that the replicates can be compared one by one."""
    return rng.integers(0, n, n)


def test_pairs_of_a_resample_are_those_of_a_rebuilt_cohort():
    rng = np.random.default_rng(1)
    patients = np.array([10, 10, 10, 11, 11, 12, 13, 13, 14, 15, 15])
    first, second, same = _all_pairs(patients)
    scores = np.round(rng.normal(size=len(same)) + same, 1)
    weight = np.where(same, 0.5, 2.0)
    lookup = {(a, b): index for index, (a, b) in enumerate(zip(first, second, strict=True))}
    names = np.unique(patients)

    naive = []
    draws = np.random.default_rng(7)
    for _ in range(40):
        copies = [(place, names[index]) for place, index in enumerate(_draw(draws, len(names)))]
        images = [(place, patient, image) for place, patient in copies for image in np.flatnonzero(patients == patient)]
        drawn = []
        for (place_a, patient_a, image_a), (place_b, patient_b, image_b) in itertools.combinations(images, 2):
            if place_a == place_b:  # one copy of a patient: its positives
                drawn.append(lookup[image_a, image_b])
            elif patient_a != patient_b:  # two patients; two copies of one patient are left out
                drawn.append(lookup[min(image_a, image_b), max(image_a, image_b)])
        drawn = np.array(drawn)
        naive.append(roc_auc(scores[drawn], same[drawn], weight[drawn]))

    fast: list[float] = []

    def record(weights):
        fast.append(roc_auc(scores, same, weights))
        return fast[-1]

    pair_bootstrap(record, same, patients[first], patients[second], weight, n_boot=40, seed=7)
    assert len(fast) == 41  # forty replicates, then the statistic on all data
    assert np.allclose(fast[:40], naive, atol=1e-12, equal_nan=True)
    table = SortedScores(scores, same)
    interval = pair_bootstrap(table.auc, same, patients[first], patients[second], weight, 40, seed=7, bounds=None)
    assert interval[1:] == pytest.approx(tuple(np.nanquantile(naive, [0.025, 0.975])))
    assert interval.value == pytest.approx(roc_auc(scores, same, weight))


def test_images_of_a_resample_are_those_of_drawn_patients():
    rng = np.random.default_rng(2)
    patients = np.repeat(np.arange(8), rng.integers(1, 5, 8))
    values = rng.normal(size=len(patients))
    draws = np.random.default_rng(3)
    naive = []
    for _ in range(200):
        rows = np.concatenate([np.flatnonzero(patients == p) for p in _draw(draws, 8)])
        naive.append(values[rows].mean())
    interval = patient_bootstrap(lambda w: float(np.average(values, weights=w)), patients, n_boot=200, seed=3)
    assert interval == pytest.approx((values.mean(), *np.quantile(naive, [0.025, 0.975])))


def test_coverage_of_clustered_images():
    """Images of a patient share a value; an interval over patients covers, one over images does not."""
    rng = np.random.default_rng(4)
    covered = covered_by_images = 0
    trials = 150
    for trial in range(trials):
        patients = np.repeat(np.arange(40), 6)
        values = rng.normal(size=40)[patients] + 0.1 * rng.normal(size=len(patients))

        def mean(w, values=values):
            return float(np.average(values, weights=w))

        cluster = patient_bootstrap(mean, patients, n_boot=200, seed=trial)
        single = patient_bootstrap(mean, np.arange(len(patients)), n_boot=200, seed=trial)
        covered += cluster.low <= 0 <= cluster.high
        covered_by_images += single.low <= 0 <= single.high
    assert 0.88 <= covered / trials <= 1.0
    assert covered_by_images / trials < 0.75


def test_same_seed_same_interval_and_level_widens():
    values = np.random.default_rng(0).normal(size=60)

    def mean(weights):
        return float(np.average(values, weights=weights))

    patients = np.arange(60) // 2
    one, two = (patient_bootstrap(mean, patients, 300, seed=5) for _ in range(2))
    wide = patient_bootstrap(mean, patients, 300, seed=5, level=0.999)
    assert one == two
    assert wide.low < one.low < one.value < one.high < wide.high
    assert patient_bootstrap(mean, patients, 300, seed=6) != one


def test_contradicting_pairs_and_empty_cohorts_are_refused():
    with pytest.raises(UsageError, match="GM-U213"):
        pair_bootstrap_auc(np.zeros(2), np.array([True, False]), np.array([1, 1]), np.array([2, 2]))
    with pytest.raises(UsageError, match="GM-U212"):
        patient_bootstrap(lambda w: 0.0, np.zeros(0, dtype=int))


def test_five_hundred_resamples_of_a_full_test_role_are_quick():
    rng = np.random.default_rng(0)
    n_positive, n_negative = 2_000, 100_000
    positive = rng.integers(0, 300, n_positive)
    one = rng.integers(0, 300, n_negative)
    two = (one + rng.integers(1, 300, n_negative)) % 300
    same = np.arange(n_positive + n_negative) < n_positive
    scores = rng.normal(size=len(same)) + 2 * same
    start = time.process_time()
    interval = pair_bootstrap_auc(
        scores, same, np.concatenate([positive, one]), np.concatenate([positive, two]), n_boot=500
    )
    assert time.process_time() - start < 20
    assert interval.low < interval.value < interval.high


# -- attackers of several seeds ----------------------------------------------------------------------------------------
def test_equal_attackers_give_the_interval_of_one():
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(30), 3)
    first, second, same = _all_pairs(patients)
    scores = rng.normal(size=len(same)) + same

    def auc(weights):
        return roc_auc(scores, same, weights)

    one = pair_bootstrap(auc, same, patients[first], patients[second], n_boot=50, seed=3)
    three = pair_bootstrap_over_seeds([auc] * 3, same, patients[first], patients[second], n_boot=50, seed=3)
    assert three == pytest.approx(one)


def test_attackers_that_differ_widen_the_interval_by_their_own_spread():
    first, second, same = _all_pairs(np.repeat(np.arange(8), 2))
    values = np.array([0.48, 0.5, 0.52])
    constants = [lambda w, v=v: v for v in values]
    interval = pair_bootstrap_over_seeds(constants, same, first // 2, second // 2, n_boot=4000)
    expected = stats.t.interval(0.95, 2, loc=values.mean(), scale=stats.sem(values))
    assert interval == pytest.approx((0.5, *expected), abs=0.01)
    wild = pair_bootstrap_over_seeds([lambda w: 0.01, lambda w: 0.99], same, first // 2, second // 2, n_boot=200)
    assert (wild.low, wild.high) == pytest.approx((0.0, 1.0), abs=1e-6)
    assert 0.0 <= wild.low < wild.high <= 1.0, "limits stay where the statistic can be"


def test_rows_of_counts_are_the_draws_of_the_patient_bootstrap():
    rng = np.random.default_rng(3)
    patients, values = np.repeat(np.arange(9), 2), rng.normal(size=18)
    rows = patient_counts(9, 60, seed=5)[:, patients]
    means = (rows * values).sum(axis=1) / rows.sum(axis=1)
    expected = patient_bootstrap(lambda w: float(np.average(values, weights=w)), patients, 60, seed=5)
    assert percentile_interval(means[0], means[1:]) == pytest.approx(expected)


def test_figures_of_one_pass_are_those_of_single_passes():
    rng = np.random.default_rng(8)
    first, second = rng.integers(0, 40, 600), rng.integers(0, 40, 600)
    second[:200] = first[:200]
    same = first == second
    tables = [SortedScores(rng.normal(size=600) + same, same) for _ in range(3)]
    tables.append(tables[0])  # an attacker without chance comes back with another seed
    at = (same, first, second, rng.random(600), 40, 5)
    asked = []
    figures = [lambda w, c=t: asked.append(c) or (c.auc(w), c.eer(w)) for t in tables[:3]]
    both = pair_bootstrap_figures([*figures, figures[0]], *at)
    for found, statistic in zip(both, ("auc", "eer"), strict=True):
        single = pair_bootstrap_over_seeds([getattr(t, statistic) for t in tables], *at)
        np.testing.assert_allclose(found, single, rtol=1e-12)
    assert len(asked) == 3 * 41, "who comes twice is asked once"


def test_patient_bootstrap_over_seeds_is_the_mean_of_the_seeds_with_a_students_t_beside() -> None:
    rng = np.random.default_rng(3)
    patients, values = np.repeat(np.arange(40), 3), rng.random((3, 120))

    def of(v: np.ndarray) -> object:
        return lambda w: (float(np.average(v, weights=w)),)

    alike = patient_bootstrap_figures([of(values[0])] * 3, patients, n_boot=400)[0]
    once = patient_bootstrap(lambda w: float(np.average(values[0], weights=w)), patients, n_boot=400, bounds=(0.0, 1.0))
    assert alike.value == pytest.approx(once.value)
    assert alike[1:] == pytest.approx(once[1:])
    apart = patient_bootstrap_figures([of(v + 0.2 * s) for s, v in enumerate(values * 0.1)], patients, n_boot=400)[0]
    assert apart.value == pytest.approx(np.mean([(values * 0.1)[s].mean() + 0.2 * s for s in range(3)]))
    # three seeds 0.2 apart: 4.3 standard errors of 0.115 either side of 0.25, below it on the logit scale
    slope = 1 / (apart.value * (1 - apart.value))
    margin = stats.t.ppf(0.975, 2) * 0.2 / np.sqrt(3)
    logit = np.log(apart.value / (1 - apart.value)) - margin * slope
    assert apart[1:] == pytest.approx((1 / (1 + np.exp(-logit)), apart.value + margin), rel=0.05)


def _seeds(spread, own, n_seeds=3, n_boot=400):
    """Resamples that the seeds share, what each varies by on its own, and what seeds differ by."""
    rng = np.random.default_rng(5)
    shared = 0.02 * rng.normal(size=(n_boot, 1)) + own * rng.normal(size=(n_boot, n_seeds))
    return np.concatenate([np.zeros((1, n_seeds)), shared])[..., None] + 0.5 + spread * np.arange(n_seeds)[:, None]


def test_what_resamples_vary_by_from_seed_to_seed_is_counted_once():
    (noisy,) = intervals_over_seeds(_seeds(0.015, 0.02), 100)
    rows = _seeds(0.015, 0.02)[..., 0].mean(axis=1)
    assert noisy == pytest.approx(bounded_interval(rows[0], rows[1:], 100)), "seeds no further apart than resamples"
    (steady,) = intervals_over_seeds(_seeds(0.015, 0.001), 100)
    assert steady.high - steady.low > 1.1 * (noisy.high - noisy.low)


def test_seeds_that_repeat_a_network_are_that_network():
    rows = _seeds(0.05, 0.001)
    (once,) = intervals_over_seeds(rows, 100)
    (twice,) = intervals_over_seeds(rows[:, [0, 1, 2, 0, 1, 2]], 100)
    assert twice == pytest.approx(once)
    (one,) = intervals_over_seeds(rows[:, [0, 0, 0]], 100)
    assert one == pytest.approx(bounded_interval(rows[0, 0, 0], rows[1:, 0, 0], 100))
    # networks of unequal share: the error of their weighted mean
    (unequal,) = intervals_over_seeds(rows[:, [0, 1, 2, 0]], 100)
    assert unequal.value == pytest.approx(rows[0, [0, 1, 2, 0], 0].mean())
    assert unequal.high - unequal.low > once.high - once.low
    # what differs in one statistic alone is another network
    more = np.concatenate([rows[:, [0, 0, 1]], np.arange(3.0)[:, None] / 10 + 0 * rows], axis=2)
    (apart, _), (alike,) = intervals_over_seeds(more, 100), intervals_over_seeds(more[..., :1], 100)
    assert apart.high - apart.low < alike.high - alike.low


def test_limits_at_a_bound_rest_on_the_patients_whose_pairs_weigh_something() -> None:
    """Of forty patients with a positive pair five count; the figure is 1 in every resample."""
    first = np.concatenate([np.arange(40), np.arange(40)])
    second = np.concatenate([np.arange(40), np.roll(np.arange(40), 1)])
    same, weights = first == second, np.ones(80)
    weights[5:40] = 0.0
    accepts = lambda w: float(w[same].sum() / w[same].sum())  # noqa: E731
    at = (same, first, second, weights, 20)
    for found in (pair_bootstrap(accepts, *at), pair_bootstrap_over_seeds([accepts], *at)):
        assert found == pytest.approx(wilson_interval(5, 5))


def test_statistics_without_bounds_keep_their_percentiles():
    rows = 30 + 10 * _seeds(0.5, 0.001)
    (wide,) = intervals_over_seeds(rows, 100, bounds=(-np.inf, np.inf))
    assert wide.value == pytest.approx(40.0) and wide.high - wide.low > 2 * stats.t.ppf(0.975, 2) * 5 / np.sqrt(3) - 0.1
    (one,) = intervals_over_seeds(rows[:, :1], 100, bounds=(0.0, np.inf))
    assert one == pytest.approx(percentile_interval(rows[0, 0, 0], rows[1:, 0, 0]))
    (endless,) = intervals_over_seeds(np.full((9, 2, 1), np.inf), 100, bounds=(0.0, np.inf))
    assert endless.value == np.inf and np.isnan(endless.low)


def test_each_statistic_may_have_bounds_of_its_own() -> None:
    rng = np.random.default_rng(4)
    patients, values = np.arange(60), rng.random(60)

    def of(w: np.ndarray) -> tuple[float, float]:
        mean = float(np.average(values, weights=w))
        return mean, mean - 0.5

    own = patient_bootstrap_figures([of], patients, n_boot=200, bounds=[(0.0, 1.0), (-1.0, 1.0)])
    for k, bounds in enumerate([(0.0, 1.0), (-1.0, 1.0)]):
        assert own[k] == patient_bootstrap_figures([of], patients, n_boot=200, bounds=bounds)[k]
    assert own[0] != patient_bootstrap_figures([of], patients, n_boot=200, bounds=(-1.0, 1.0))[0]


def test_each_statistic_may_rest_on_patients_of_its_own() -> None:
    """A rate of one class rests on the patients of that class, however many others there are."""
    rng = np.random.default_rng(6)
    patients, few, hits = np.arange(400), np.arange(400) < 30, rng.random(400) < 0.5

    def of(w: np.ndarray) -> tuple[float, float, float]:
        return 1.0, 0.0, float(np.average(hits[few], weights=w[few]))

    whole, none, half = patient_bootstrap_figures([of], patients, n_boot=200, n_patients=[30, 370, 30])
    assert whole == wilson_interval(30, 30) and none == wilson_interval(0, 370)
    (alone,) = patient_bootstrap_figures([lambda w: of(w)[2:]], patients, n_boot=200, n_patients=[30])
    assert half == alone
    more = patient_bootstrap_figures([of], patients, n_boot=200)
    assert more[0] == wilson_interval(400, 400) and more[2].high - more[2].low < half.high - half.low
    (mean, other) = intervals_over_seeds(np.ones((9, 2, 2)), [12, 40])
    assert mean == wilson_interval(12, 12) and other == wilson_interval(40, 40)
