"""Likelihood ratios of known densities, and the calibration error."""

from __future__ import annotations

import numpy as np
import pytest
from calibration_error import expected_calibration_error
from scipy.stats import norm

from gmia_monai.attacks.likelihood import LikelihoodRatio
from gmia_monai.errors import UsageError
from gmia_monai.metrics.verification import roc_auc


def _scores(n: int = 6000, mean: float = 1.0):
    rng = np.random.default_rng(0)
    same = rng.random(n) < 0.3
    return np.where(same, mean, 0.0) + rng.standard_normal(n), same


def test_ratio_of_two_normal_densities():
    scores, same = _scores()
    at = np.linspace(-1, 2, 20)
    expected = norm.logpdf(at, 1) - norm.logpdf(at, 0)
    assert LikelihoodRatio(scores, same)(at) == pytest.approx(expected, abs=0.25)


def test_a_kind_with_one_score_is_found():
    rng = np.random.default_rng(2)
    scores, same = rng.normal(0, 0.15, 5000), np.arange(5000) < 200
    scores[same] = 1.0 + 1e-7 * rng.standard_normal(200)  # the very image: a cosine of 1 but for rounding
    ratio = LikelihoodRatio(scores, same)
    assert ratio.probability(scores[same]).min() > 0.99
    assert expected_calibration_error(ratio.probability(scores), same) < 0.01


def test_kernels_are_as_wide_as_patients_ask_for():
    """Scores of twenty patients, ten times each, that know nothing: ten times as many pairs tell no more."""
    rng = np.random.default_rng(3)
    same = np.repeat(np.arange(40) < 20, 10)
    aucs = {"pairs": [], "patients": []}
    for _ in range(20):
        scores = np.repeat(rng.standard_normal(40), 10) + 0.05 * rng.standard_normal(400)
        for name, n in (("pairs", None), ("patients", 20)):
            aucs[name].append(roc_auc(LikelihoodRatio(scores, same, n_patients=n)(scores), same))
    assert 0.5 < np.mean(aucs["patients"]) < np.mean(aucs["pairs"]) - 0.02
    assert np.array_equal(
        LikelihoodRatio(scores, same, n_patients=10**6)(scores), LikelihoodRatio(scores, same)(scores)
    )


def test_both_tails_betray():
    rng = np.random.default_rng(1)
    same = rng.random(4000) < 0.5
    scores = np.where(same, 3 * rng.choice([-1, 1], 4000), 0) + rng.standard_normal(4000)
    assert roc_auc(scores, same) == pytest.approx(0.5, abs=0.05)
    assert roc_auc(LikelihoodRatio(scores, same)(scores), same) > 0.93


def test_probability_is_calibrated_and_a_wrong_one_is_not():
    scores, same = _scores()
    new, new_same = scores[::2], same[::2]
    ratio = LikelihoodRatio(scores[1::2], same[1::2])
    assert expected_calibration_error(ratio.probability(new), new_same) < 0.04
    assert expected_calibration_error(np.full(len(new), 0.99), new_same) == pytest.approx(0.49, abs=1e-6)


def test_beyond_what_was_seen_the_nearest_counts():
    ratio = LikelihoodRatio(*_scores())
    assert np.isfinite(ratio(np.array([-1e6, 1e6]))).all()


def test_one_kind_alone_is_refused():
    with pytest.raises(UsageError, match="GM-U315"):
        LikelihoodRatio(np.arange(5.0), np.ones(5, dtype=bool))
    weights = np.array([1.0, 1.0, 0.0, 1.0, 1.0])
    with pytest.raises(UsageError, match="GM-U315.*1 positive"):
        LikelihoodRatio(np.arange(5.0), np.array([True, False, True, False, False]), weights)
