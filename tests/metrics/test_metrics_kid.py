"""Kernel distance against scikit-learn's kernel and a loop over pairs."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics.pairwise import polynomial_kernel as sklearn_kernel

from gmia_monai.errors import UsageError
from gmia_monai.metrics.kid import KernelDistance, polynomial_kernel


def _features(n, shift=0.0, seed=0):
    return (np.random.default_rng([seed, n]).normal(size=(n, 6)) + shift).astype(np.float32)


def _pairwise(real, fake):
    """The unbiased estimate, pair by pair."""

    def within(x):
        kernel = sklearn_kernel(x, degree=3, gamma=1 / x.shape[1], coef0=1)
        return np.mean([kernel[i, j] for i in range(len(x)) for j in range(len(x)) if i != j])

    return within(real) + within(fake) - 2 * sklearn_kernel(real, fake, degree=3, gamma=1 / 6, coef0=1).mean()


def test_kernel_is_sklearns():
    x, y = _features(5).astype(float), _features(7, 1.0).astype(float)
    np.testing.assert_allclose(polynomial_kernel(x, y), sklearn_kernel(x, y, degree=3, gamma=1 / 6, coef0=1))


def test_distance_is_the_mean_over_pairs_whatever_the_units():
    real, fake = _features(20).astype(float), _features(15, 0.5).astype(float)
    expected = _pairwise(real, fake)
    alone = KernelDistance(real, fake, np.arange(20), np.arange(20, 35))
    shared = KernelDistance(real, fake, np.arange(20) // 2, np.arange(15) // 2)
    assert alone() == pytest.approx(expected) and shared() == pytest.approx(expected)


def test_a_patient_drawn_twice_counts_twice_but_is_no_pair_with_itself():
    real, fake = _features(6).astype(float), _features(4, 0.5).astype(float)
    unit_real, unit_fake = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 1, 2, 3])
    counts = np.array([2.0, 0.0, 1.0, 3.0])

    def mean(x, y, ux, uy, same):
        total = weight = 0.0
        for i, a in enumerate(ux):
            for j, b in enumerate(uy):
                if same and i == j:
                    continue
                w = counts[a] if a == b else counts[a] * counts[b]
                total, weight = total + w * polynomial_kernel(x[i : i + 1], y[j : j + 1])[0, 0], weight + w
        return total / weight

    expected = mean(real, real, unit_real, unit_real, True) + mean(fake, fake, unit_fake, unit_fake, True)
    expected -= 2 * mean(real, fake, unit_real, unit_fake, False)
    assert KernelDistance(real, fake, unit_real, unit_fake)(counts) == pytest.approx(expected)


def test_alike_sets_are_near_zero_and_unlike_ones_are_not():
    n = np.arange(300)
    near = KernelDistance(_features(300), _features(300, seed=1), n, n + 300)()
    far = KernelDistance(_features(300), _features(300, 0.7, seed=1), n, n + 300)()
    assert abs(near) < 0.05 < 0.5 < far
    # unbiased: the mean over many pairs of sets of one distribution is zero
    values = [
        KernelDistance(_features(20, seed=s), _features(20, seed=s + 500), n[:20], n[20:40])() for s in range(400)
    ]
    assert abs(np.mean(values)) < 4 * np.std(values) / 20


def test_pairs_of_an_image_and_its_sources_are_left_out():
    real, fake = _features(8).astype(float), _features(4, 0.5).astype(float)
    sources = [(0, 1), (2, 3), (), (6,)]
    kernel = polynomial_kernel(real, fake)
    cross = np.mean([kernel[i, j] for i in range(8) for j in range(4) if i not in sources[j]])
    whole = _pairwise(real, fake) + 2 * kernel.mean() - 2 * cross
    distance = KernelDistance(real, fake, np.arange(8), np.arange(8, 12), sources)
    assert distance() == pytest.approx(whole)
    own = [(i,) for i in range(8)]
    copy = KernelDistance(real, real, np.arange(8) // 2, np.arange(8) // 2, own)
    assert [copy(), copy(np.array([2.0, 1.0, 0.0, 1.0]))] == pytest.approx([0.0, 0.0], abs=1e-12)
    assert KernelDistance(real, real, np.arange(8), np.arange(8))() < -0.1


def test_subsets_average_to_the_whole():
    real, fake = _features(120), _features(100, 0.5)
    distance = KernelDistance(real, fake, np.arange(120), np.arange(120, 220))
    some = distance.over_subsets(40, 400)
    assert some.mean == pytest.approx(distance(), abs=5 * some.sd / 20) and some.sd > 0
    assert distance.over_subsets(100, 3, seed=1) == distance.over_subsets(100, 3, seed=1)
    of_all = KernelDistance(real[:100], fake, np.arange(100), np.arange(100)).over_subsets(100, 1)
    assert of_all.mean == pytest.approx(_pairwise(real[:100].astype(float), fake.astype(float)))


def test_features_that_do_not_fit_are_refused():
    real, units = _features(10), np.arange(10)
    for fake in (_features(10)[:, :5], np.full((10, 6), np.nan, np.float32)):
        with pytest.raises(UsageError, match="GM-U351"):
            KernelDistance(real, fake, units, units)
    with pytest.raises(UsageError, match="GM-U351"):
        KernelDistance(real, real[:1], units, units[:1])
    for size in (1, 11):
        with pytest.raises(UsageError, match="GM-U351"):
            KernelDistance(real, real, units, units).over_subsets(size)
