"""Signals of membership against loops: features of a pair, difficulty, nearest released image."""

from __future__ import annotations

import numpy as np
import pytest
from attack_cohorts import IMAGES_EACH, real_images, released
from scipy import stats
from skimage.metrics import mean_squared_error

from gmia_monai.attacks.base import Judged
from gmia_monai.attacks.membership_signals import PAIR_FEATURES, Pool, difficulty, nearest_released, pair_features
from gmia_monai.data.release import Release


def _unit(rng: np.random.Generator, n: int) -> np.ndarray:
    x = rng.standard_normal((n, 5))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_features_of_a_pair():
    real = real_images("t").pixels[:3]
    output = np.clip(0.7 * real + np.random.default_rng(0).normal(0, 0.1, real.shape), 0, 1).astype(np.float32)
    found = pair_features(real, output)
    for i in range(3):
        x, y = real[i, 0].astype(np.float64), output[i, 0].astype(np.float64)
        e = y - x
        coarse = [e[r : r + 4, c : c + 4].mean() for r in range(0, 32, 4) for c in range(0, 32, 4)]
        edges = np.mean((e[1:] - e[:-1]) ** 2) + np.mean((e[:, 1:] - e[:, :-1]) ** 2)
        expected = {
            "log_mse": np.log(mean_squared_error(x, y)),
            "log_mae": np.log(np.abs(e).mean()),
            "log_largest": np.log(np.quantile(np.abs(e), 0.99)),
            "log_edges": np.log(edges),
            "log_coarse": np.log(np.mean(np.square(coarse))),
            "correlation": stats.pearsonr(x.ravel(), y.ravel()).statistic,
            "log_contrast": np.log(y.std() / x.std()),
        }
        assert dict(zip(PAIR_FEATURES, found[i].tolist(), strict=True)) == pytest.approx(expected, abs=1e-3)


def test_features_are_finite_for_copies_and_flat_images():
    real = real_images("t").pixels[:2]
    assert np.isfinite(pair_features(real, real)).all()
    assert np.isfinite(pair_features(np.zeros_like(real), real)).all()
    assert pair_features(real[:0], real[:0]).shape == (0, len(PAIR_FEATURES))


def test_difficulty_is_that_of_models_which_do_not_know_the_image():
    errors = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    learned = np.array([[True, False], [False, False], [False, True]])
    assert difficulty(errors, learned).tolist() == [4.0, 3.0]


def test_the_nearest_released_image_is_that_of_a_loop():
    rng = np.random.default_rng(0)
    candidates, released_, reference = (_unit(rng, n) for n in (300, 40, 9))
    patients = [f"p{i % 20}" for i in range(300)]
    made_from = {f"p{i}": [i, i + 20] for i in range(0, 20, 2)}
    nearest, calibrated = nearest_released(candidates, patients, released_, made_from, reference)
    for i in (0, 1, 77, 255, 256, 299):
        others = [j for j in range(40) if j not in made_from.get(patients[i], [])]
        usual = [np.mean(sorted(reference @ released_[j])[-3:]) for j in others]
        cosines = [candidates[i] @ released_[j] for j in others]
        assert nearest[i] == pytest.approx(max(cosines))
        assert calibrated[i] == pytest.approx(max(np.subtract(cosines, usual)))


def test_a_pool_knows_who_an_image_was_made_from():
    one, other = released(real_images("a"), "unchanged"), released(real_images("v"), "unchanged")
    pool = Pool.of([one, other])
    n = len(one.release)
    assert pool.made_from["a1"] == [3, 4, 5] and pool.made_from["v0"] == [n, n + 1, n + 2]
    assert np.array_equal(pool.pixels[n], other.release.pixels[0])
    real = real_images("a")
    averages = Judged(real, Release("k", real.pixels[:2], ((0, IMAGES_EACH), (IMAGES_EACH, 2 * IMAGES_EACH))))
    assert Pool.of([averages]).made_from == {"a0": [0], "a1": [0, 1], "a2": [1]}
    assert Pool.of([Judged(real, Release("g", real.pixels[:2], ((), ())))]).made_from == {}


def test_a_release_that_several_roles_hold_counts_once():
    drawn = real_images("s", 4).pixels
    parts = [Judged(real_images(name, 4), Release("g", drawn, ((),) * len(drawn))) for name in "mavt"]
    assert len(Pool.of(parts).pixels) == len(drawn)


def test_images_drawn_from_a_pool_keep_whom_they_were_made_from():
    pool = Pool.of([released(real_images("a", 4), "noise", seed=1), released(real_images("v", 4), "noise", seed=2)])
    few = pool.drawn(9, 3)
    assert len(few.pixels) == 9 and set(few.made_from) == set(pool.made_from)
    assert sorted(k for images in few.made_from.values() for k in images) == list(range(9))
    for patient, images in few.made_from.items():
        theirs = {pool.pixels[i].tobytes() for i in pool.made_from[patient]}
        assert {few.pixels[k].tobytes() for k in images} <= theirs
    assert len(pool.drawn(1000, 3).pixels) == len(pool.pixels)
    assert not np.array_equal(pool.drawn(9, 4).pixels, few.pixels)
