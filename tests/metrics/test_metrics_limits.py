"""Limits from resamples against their formulas; how often they hold the truth: test_check_intervals.py."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from gmia_monai.errors import UsageError
from gmia_monai.metrics.limits import (
    SeedError,
    bounded_interval,
    percentile_interval,
    wilson_interval,
)


def test_replicates_without_a_value_are_left_out(caplog):
    interval = percentile_interval(0.5, np.array([np.nan, 0.4, 0.6]))
    assert 0.4 <= interval.low <= interval.high <= 0.6
    assert "1 of 3" in caplog.text
    assert np.isnan(percentile_interval(0.5, np.array([np.nan])).low)
    with pytest.raises(UsageError, match="GM-U211"):
        percentile_interval(0.5, np.array([0.1, 0.2]), level=1.0)


@pytest.mark.parametrize(("k", "n"), [(0, 40), (3, 155), (154, 309), (20, 20)])
def test_wilson_inverts_the_score_test(k, n):
    interval = wilson_interval(k, n)
    assert interval.value == k / n
    for limit in (interval.low, interval.high):
        if 0.0 < limit < 1.0:
            assert abs(k / n - limit) / np.sqrt(limit * (1 - limit) / n) == pytest.approx(stats.norm.ppf(0.975))
    assert interval.low < interval.high, "an interval has a width where all outcomes are the same"


def test_wilson_without_trials_has_no_value():
    assert np.isnan(wilson_interval(0, 0)).all()


def test_bounded_limits_are_students_t_on_the_logit_scale():
    logits = np.random.default_rng(0).normal(3.0, 0.2, 4000)
    values = 1 / (1 + np.exp(-logits))
    found = bounded_interval(1 / (1 + np.exp(-3.0)), values, 20)
    margin = stats.t.ppf(0.975, 19) * logits.std() * np.sqrt(20 / 19)
    assert found[1:] == pytest.approx(tuple(1 / (1 + np.exp(-3.0 + np.array([1, -1]) * margin))), rel=1e-3)
    assert found.value - found.low > found.high - found.value, "the longer side is the one away from the bound"
    mirrored = bounded_interval(1 - found.value, 1 - values, 20)
    assert mirrored[1:] == pytest.approx((1 - found.high, 1 - found.low))
    doubled = bounded_interval(2 * found.value - 1, 2 * values - 1, 20, bounds=(-1.0, 1.0))
    assert doubled[1:] == pytest.approx((2 * found.low - 1, 2 * found.high - 1))
    wider = bounded_interval(found.value, values, 20, level=0.999)
    assert 0 < wider.low < found.low and found.high < wider.high < 1
    with pytest.raises(UsageError, match="GM-U211"):
        bounded_interval(0.5, values, 20, level=0.0)


def test_at_a_bound_and_beside_it_an_interval_has_a_width():
    ones = np.ones(50)
    assert bounded_interval(1.0, ones, 40) == wilson_interval(40, 40)
    assert bounded_interval(1.0 - 1e-16, ones, 40)[1:] == wilson_interval(40, 40)[1:]
    assert bounded_interval(0.0, 0 * ones, 40) == wilson_interval(0, 40)
    # one patient of 100 is missed: resamples hold it never, once, twice; as for a count of one
    missed = np.random.default_rng(0).poisson(1.0, 2000) / 100
    found = bounded_interval(0.99, 1 - missed, 100)
    assert 0.92 < found.low < 0.95 and 0.998 < found.high < 1.0
    assert bounded_interval(0.3, np.full(50, 0.3), 40) == (0.3, 0.3, 0.3)
    assert np.isnan(bounded_interval(0.3, np.array([np.nan]), 40)[1:]).all()
    assert np.isnan(bounded_interval(float("nan"), ones, 40)[1:]).all()


def test_margins_of_patients_and_of_seeds_are_added_in_quadrature():
    draws = 0.5 + 0.01 * np.random.default_rng(0).normal(size=2000)
    patients, seeds, both = (
        bounded_interval(0.5, r, 60, seeds=e)
        for r, e in ((draws, None), (np.full(9, 0.5), SeedError(0.004, 3)), (draws, SeedError(0.004, 3)))
    )
    logits = [np.log(i.high / (1 - i.high)) for i in (patients, seeds, both)]
    assert logits[2] == pytest.approx(np.hypot(*logits[:2]))
    assert logits[1] == pytest.approx(4 * 0.004 * stats.t.ppf(0.975, 2))


def _seeds(values: list[float]) -> tuple[float, SeedError]:
    return float(np.mean(values)), SeedError(float(np.std(values, ddof=1)) / np.sqrt(len(values)), len(values))


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-1.0, 1.0)])
def test_seeds_that_differ_beside_a_bound_do_not_make_nearly_everything_possible(bounds: tuple[float, float]) -> None:
    value, seeds = _seeds([1.0, 1.0, 0.9978])
    alone = bounded_interval(value, np.full(50, value), 155, bounds=bounds, seeds=seeds)
    assert 0.98 < alone.low <= value - seeds.margin(0.95) + 1e-9 and value < alone.high <= 1.0
    low, high = bounds
    rate, of_rate = _seeds([0.0, 0.0, 0.0003])
    mirrored = bounded_interval(low + rate, np.full(50, low + rate), 155, bounds=bounds, seeds=of_rate)
    assert low <= mirrored.low < low + rate and low + rate + of_rate.margin(0.95) - 1e-9 <= mirrored.high < low + 0.002
    # two alike, one a patient off: no farther from the bound than Student's t of the three, and what patients add
    value, seeds = _seeds([0.0001, 0.0001, 0.0026])
    span = high - low
    alone = bounded_interval(low + span * value, np.full(50, low + span * value), 560, bounds=bounds, seeds=seeds)
    assert alone.high == pytest.approx(low + span * value + seeds.margin(0.95), rel=1e-6) and alone.low >= low
    value, seeds = _seeds([1.0, 1.0, 0.9978])
    # beside the margin of patients, which is no wider than Wilson's
    drawn = 1.0 - 1e-3 * np.random.default_rng(0).poisson(1.0, 300)
    both = bounded_interval(value, drawn, 155, seeds=seeds)
    assert wilson_interval(155, 155).low - 3 * seeds.margin(0.95) < both.low < value - seeds.margin(0.95)
    assert value < both.high <= 1.0


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_patient_from_a_bound_limits_are_no_wider_than_wilsons(mirrored: bool) -> None:
    """A figure that one patient carries: nothing jumps to nearly everything where the count is rounded to one."""
    far = []
    for place in (0.0049, 0.0051, 0.0149):
        drawn = place * np.random.default_rng(0).poisson(0.5, 2000) / 0.5
        found = bounded_interval(*((1.0 - place, 1.0 - drawn) if mirrored else (place, drawn)), 100)
        far.append(1.0 - found.low if mirrored else found.high)
        reached = max(wilson_interval(round(100 * place), 100).high, np.quantile(drawn, 0.975))
        assert far[-1] <= reached + 1e-9
    assert far[1] < 1.5 * far[0]


@pytest.mark.parametrize("mirrored", [False, True])
def test_less_than_half_a_patient_from_a_bound_limits_are_no_wider_than_at_it(mirrored: bool) -> None:
    """One patient in many resamples is missed: the slope of the logit would make of that nearly everything."""
    value, drawn = 0.999993, 1.0 - np.where(np.arange(300) % 10 == 0, 1e-4, 1e-9)
    found = bounded_interval(1.0 - value, 1.0 - drawn, 560) if mirrored else bounded_interval(value, drawn, 560)
    wilson = wilson_interval(0 if mirrored else 560, 560)
    far = 1.0 - found.high if mirrored else found.low
    assert far == pytest.approx(1.0 - wilson.high if mirrored else wilson.low, abs=1e-6)
    assert found.low <= found.value <= found.high


def test_resamples_that_are_a_bound_up_to_rounding_do_not_widen_the_limits() -> None:
    """One of 675 patients is missed: a third of the resamples have 1, some of them as 1 - 2e-16."""
    missed = np.random.default_rng(0).poisson(1.0, 300)
    exact = 1.0 - missed / 675
    rounded = np.where(np.arange(300) % 2 == 0, np.minimum(exact, np.nextafter(1.0, 0.0)), exact)
    assert bounded_interval(1 - 1 / 675, rounded, 675) == pytest.approx(bounded_interval(1 - 1 / 675, exact, 675))
    assert bounded_interval(1 - 1 / 675, rounded, 675).low > 0.98
