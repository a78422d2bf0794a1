"""Figures from places among the positives are those of the plain curve over all pairs, whatever the weights."""

from __future__ import annotations

import numpy as np
import pytest
from calibration_error import expected_calibration_error

from gmia_monai.metrics.pair_figures import CalibrationBins, PairSplit, PlacedPairs
from gmia_monai.metrics.verification import SortedScores

RATES = (0.3, 0.1, 0.01)


def _naive(scores, same, weights) -> list[float]:
    curve = SortedScores(scores, same).curve(weights)
    return [curve.auc(), curve.eer(), *(curve.tar_at_far(rate).value for rate in RATES)]


def _fast(placed, draw) -> list[float]:
    curve = placed.curve(draw)
    return [curve.auc(), curve.eer(), *(curve.tar_at_far(rate) for rate in RATES)]


@pytest.mark.parametrize("decimals", [0, 1, 12])
@pytest.mark.parametrize("shift", [-2.0, 0.0, 1.0, 9.0])
def test_every_figure_is_that_of_the_plain_curve(decimals, shift):
    """Rounded scores tie; a shift of nine parts the kinds; a third of the weights is nought, as in a resample."""
    rng = np.random.default_rng(decimals)
    for _ in range(20):
        n_positive, n_negative = rng.integers(1, 12), rng.integers(1, 60)
        same = rng.permutation(np.arange(n_positive + n_negative) < n_positive)
        scores = np.round(rng.normal(size=len(same)) + shift * same, decimals)
        split = PairSplit(same)
        placed = PlacedPairs(scores, split)
        for _ in range(8):
            weights = rng.integers(0, 4, len(same)) * np.where(same, 0.3, 0.7)
            if not (weights[same].any() and weights[~same].any()):
                continue
            assert _fast(placed, split(weights)) == pytest.approx(_naive(scores, same, weights), abs=1e-12)


def test_an_empty_class_has_no_figure():
    same = np.array([True, True, False, False])
    split = PairSplit(same)
    placed, bins = PlacedPairs(np.array([0.1, 0.4, 0.2, 0.3]), split), CalibrationBins(np.full(4, 0.5), split)
    for weights in (np.array([0.0, 0.0, 1.0, 1.0]), np.array([1.0, 1.0, 0.0, 0.0])):
        naive = _naive(np.array([0.1, 0.4, 0.2, 0.3]), same, weights)
        assert _fast(placed, split(weights)) == pytest.approx(naive, nan_ok=True)
        assert np.isnan(bins.error(split(weights))) and np.isnan(naive[0])


def test_calibration_is_that_of_all_pairs():
    rng = np.random.default_rng(3)
    same = rng.random(300) < 0.1
    probability = np.append(rng.random(298), [0.0, 1.0])
    split = PairSplit(same)
    bins = CalibrationBins(probability, split)
    for _ in range(10):
        weights = rng.integers(0, 3, 300) * rng.random(300)
        expected = expected_calibration_error(probability, same, weights)
        assert bins.error(split(weights)) == pytest.approx(expected, abs=1e-13) and expected > 0.01


def test_weights_are_split_once_for_all_who_ask(monkeypatch):
    asked = []
    plain = np.flatnonzero
    monkeypatch.setattr(np, "flatnonzero", lambda a: asked.append(len(a)) or plain(a))
    split = PairSplit(np.array([True, False, False]))
    one, other = np.array([1.0, 0.0, 2.0]), np.array([1.0, 3.0, 0.0])
    asked.clear()
    draws = [split(weights) for weights in (one, one, other, one.copy())]
    assert len(asked) == 3, "the same array is split once, a copy of it is not known"
    assert [d.index.tolist() for d in draws] == [[1], [1], [0], [1]] and draws[2].negative.tolist() == [3.0]
