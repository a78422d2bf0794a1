"""Calibration: limits that hold the share of strangers that they are for, of the networks that they are of."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gmia_monai.errors import IntegrityError, UsageError
from gmia_monai.release.calibration import calibrate, read_calibration, surroundings_of

RNG = np.random.default_rng(0)
STRANGERS, FIRST = RNG.normal(0.0, 0.1, 40_000), RNG.integers(0, 200, 40_000)
SAME = RNG.normal(0.6, 0.1, 3_000)
WEIGHTS = {"gate": "a" * 64, "utility": "b" * 64}


@pytest.fixture(scope="module")
def calibration():
    return calibrate(STRANGERS, FIRST, SAME, WEIGHTS, 64, n_boot=100)


@pytest.mark.parametrize("share", [0.001, 0.01, 0.03, 0.2])
def test_limits_cut_off_the_share_at_either_end(calibration, share):
    bounds = calibration.bounds(share)
    new = np.random.default_rng(1).normal(0.0, 0.1, 400_000)
    for beyond in ((new < bounds.low).mean(), (new > bounds.high).mean()):
        assert beyond == pytest.approx(share, rel=0.15)


def test_pairs_count_by_their_weights():
    """Half of the pairs weigh nothing: limits and rates are those of the other half."""
    twice = np.concatenate([STRANGERS, STRANGERS + 5.0]), np.concatenate([FIRST, FIRST])
    both = np.concatenate([SAME, SAME * 0.0])
    weigh = np.repeat([2.0, 0.0], len(STRANGERS)), np.repeat([1.0, 0.0], len(SAME))
    found = calibrate(*twice, both, WEIGHTS, 64, n_boot=100, weigh=weigh)
    alone = calibrate(STRANGERS, FIRST, SAME, WEIGHTS, 64, n_boot=100)
    assert found.limits == alone.limits and found.held_same == alone.held_same
    assert found.held_strangers == pytest.approx(alone.held_strangers, abs=1e-6)


def test_rates_are_those_of_patients_that_the_limits_are_not_of(calibration):
    value, low, high = calibration.held_strangers
    assert low < 0.02 < high and 0.015 < value < 0.025
    assert calibration.held_same > 0.99 and calibration.n_patients == 200 and calibration.n_strangers == 40_000


def test_it_is_written_and_read_for_its_own_networks(calibration, tmp_path):
    path = tmp_path / "gate.json"
    digest = calibration.write(path)
    assert read_calibration(path, WEIGHTS) == (calibration, digest)
    with pytest.raises(IntegrityError, match="of other networks"):
        read_calibration(path, WEIGHTS | {"gate": "c" * 64})


@pytest.mark.parametrize("change", ["missing", "text", "nan", "turned", "extra"])
def test_a_damaged_one_is_refused(calibration, tmp_path, change):
    path = tmp_path / "gate.json"
    calibration.write(path)
    found = json.loads(path.read_text())
    if change == "missing":
        path.unlink()
    elif change == "text":
        path.write_text("{")
    else:
        found["limits"]["0.01"] = {"nan": [float("nan"), 1.0], "turned": [0.3, -0.3]}.get(change, [0, 1])
        path.write_text(json.dumps(found | ({"more": 1} if change == "extra" else {})))
    with pytest.raises(IntegrityError, match="GM-W307"):
        read_calibration(path, WEIGHTS)


@pytest.mark.parametrize("share", [0.0, 0.0005, 0.3])
def test_shares_that_were_not_measured_are_refused(calibration, share):
    with pytest.raises(UsageError, match="GM-U422"):
        calibration.bounds(share)


def test_too_few_or_strange_scores_are_refused():
    for strangers, first in ((STRANGERS[:100], FIRST[:100]), (STRANGERS * np.nan, FIRST), (STRANGERS, FIRST % 3)):
        with pytest.raises(UsageError, match="GM-U421"):
            calibrate(strangers, first, SAME, WEIGHTS, 64)


def test_known_images_are_not_strange_and_others_are():
    mixing = RNG.normal(size=(8, 8))
    draw = lambda n, seed: np.random.default_rng(seed).normal(size=(n, 8)) @ mixing + 3.0  # noqa: E731
    around = surroundings_of(draw(4000, 1), draw(2000, 2))
    assert (around.strangeness(draw(4000, 3)) > 1).mean() == pytest.approx(0.01, abs=0.006)
    assert (around.strangeness(draw(100, 4) + 20.0) > 1).all()
    covariance = np.linalg.inv(mixing.T @ mixing)
    point = draw(5, 5)
    expected = np.sqrt(np.einsum("nd,de,ne->n", point - 3.0, covariance, point - 3.0)) / around.limit
    np.testing.assert_allclose(around.strangeness(point), expected, rtol=0.1)
    with pytest.raises(UsageError, match="GM-U421"):
        surroundings_of(draw(8, 1), draw(100, 2))
