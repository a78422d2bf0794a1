"""Verification scores against double loops and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from gmia_monai.errors import UsageError
from gmia_monai.metrics.verification import (
    SortedScores,
    best_threshold_f1,
    equal_error_rate,
    roc_auc,
    tar_at_far,
)


def _pairs(seed: int, n: int = 300, ties: bool = True):
    rng = np.random.default_rng(seed)
    same = rng.random(n) < 0.3
    scores = rng.normal(size=n) + 1.2 * same
    return (np.round(scores, 1) if ties else scores), same, rng.integers(0, 4, n).astype(float)


def _naive_auc(scores, same, weights):
    total = won = 0.0
    for score, weight in zip(scores[same], weights[same], strict=True):
        for other, other_weight in zip(scores[~same], weights[~same], strict=True):
            total += weight * other_weight
            won += weight * other_weight * (1.0 if score > other else 0.5 if score == other else 0.0)
    return won / total


@pytest.mark.parametrize("seed", range(3))
def test_auc_is_the_double_loop_and_sklearn(seed):
    scores, same, weights = _pairs(seed)
    assert roc_auc(scores, same, weights) == pytest.approx(_naive_auc(scores, same, weights), abs=1e-12)
    assert roc_auc(scores, same, weights) == pytest.approx(roc_auc_score(same, scores, sample_weight=weights))
    assert roc_auc(scores, same) == pytest.approx(roc_auc_score(same, scores))


def test_auc_extremes():
    same = np.array([True, False])
    assert roc_auc(np.array([1.0, 0.0]), same) == 1.0
    assert roc_auc(np.array([0.0, 1.0]), same) == 0.0
    assert roc_auc(np.array([0.0, 0.0]), same) == 0.5
    assert np.isnan(roc_auc(np.array([0.0, 1.0]), np.array([True, True])))
    assert np.isnan(roc_auc(np.array([0.0, 1.0]), same, np.array([1.0, 0.0])))


def test_integer_weights_are_repetitions():
    scores, same, weights = _pairs(5)
    times = weights.astype(int)
    more, more_same = np.repeat(scores, times), np.repeat(same, times)
    assert equal_error_rate(scores, same, weights) == pytest.approx(equal_error_rate(more, more_same))
    assert best_threshold_f1(scores, same, weights) == pytest.approx(best_threshold_f1(more, more_same))
    assert SortedScores(scores, same).average_precision(weights) == pytest.approx(
        SortedScores(more, more_same).average_precision()
    )


def test_average_precision_is_sklearns():
    scores, same, weights = _pairs(6)
    ours = SortedScores(scores, same).average_precision(weights)
    assert ours == pytest.approx(average_precision_score(same, scores, sample_weight=weights))


@pytest.mark.parametrize("seed", range(4))
def test_equal_error_rate_is_where_the_two_rates_cross(seed):
    scores, same, _ = _pairs(seed, 4000, ties=False)
    closest = min(
        (abs((scores[~same] >= t).mean() - (scores[same] < t).mean()), (scores[~same] >= t).mean()) for t in scores
    )
    assert equal_error_rate(scores, same) == pytest.approx(closest[1], abs=closest[0] + 1e-9)


def test_equal_error_rate_extremes():
    same = np.array([True, True, False, False])
    assert equal_error_rate(np.array([3.0, 4.0, 1.0, 2.0]), same) == 0.0
    assert equal_error_rate(np.array([1.0, 2.0, 3.0, 4.0]), same) == 1.0
    assert equal_error_rate(np.zeros(4), same) == pytest.approx(0.5)
    assert np.isnan(equal_error_rate(np.zeros(2), np.array([True, True])))


def test_tar_at_far_against_a_scan_of_all_thresholds():
    scores, same, _ = _pairs(8, 5000)
    allowed = [t for t in np.unique(scores) if (scores[~same] >= t).mean() <= 0.05]
    result = tar_at_far(scores, same, 0.05)
    assert result.threshold == min(allowed)
    assert result.value == pytest.approx((scores[same] >= min(allowed)).mean())
    assert result.reason is None


def test_tar_at_far_refuses_too_few_negatives():
    rng = np.random.default_rng(0)
    same = np.arange(1100) < 101
    few = tar_at_far(rng.normal(size=1100), same, 0.01)  # 999 negatives
    assert np.isnan(few.value) and "1000 needed" in few.reason
    same = np.arange(1100) < 100
    assert not np.isnan(tar_at_far(rng.normal(size=1100), same, 0.01).value)
    # a thousand negatives of which a handful carries the weight are not a thousand
    weights = np.where(np.arange(1100) < 110, 1.0, 1e-6)
    assert np.isnan(tar_at_far(rng.normal(size=1100), same, 0.01, weights).value)


def test_tar_is_zero_where_the_top_score_is_shared():
    same = np.arange(2000) < 100
    result = tar_at_far(np.ones(2000), same, 0.01)
    assert result.value == 0.0 and result.threshold == np.inf


def test_best_threshold_against_a_scan_with_sklearn():
    scores, same, _ = _pairs(9)
    best = best_threshold_f1(scores, same)
    naive = max(f1_score(same, scores >= t) for t in np.unique(scores))
    assert best.f1 == pytest.approx(naive)
    assert f1_score(same, scores >= best.threshold) == pytest.approx(best.f1)
    assert best.f1 == pytest.approx(2 * best.precision * best.recall / (best.precision + best.recall))


def test_the_best_threshold_stands_in_the_middle_of_the_gap():
    scores, same = np.array([0.1, 0.2, 0.6, 0.9]), np.array([False, False, True, True])
    assert best_threshold_f1(scores, same).threshold == pytest.approx(0.4)
    weights = np.array([1.0, 0.0, 1.0, 1.0])
    assert best_threshold_f1(scores, same, weights).threshold == pytest.approx(0.35), "what weighs nothing is not there"
    assert best_threshold_f1(scores, np.ones(4, dtype=bool)).threshold == pytest.approx(0.1)


def test_unusable_scores_are_refused():
    with pytest.raises(UsageError, match="GM-U201"):
        roc_auc(np.array([0.0, np.nan]), np.array([True, False]))
    with pytest.raises(UsageError, match="GM-U202"):
        tar_at_far(np.zeros(2), np.array([True, False]), 1.5)
