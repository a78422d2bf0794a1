"""Maps in closed form: discriminants beside scikit-learn's, ridge regression beside its equations."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge

from gmia_monai.attacks.linear_maps import _discriminants, linear_maps


def test_discriminants_are_those_of_an_independent_library():
    rng = np.random.default_rng(0)
    person = np.repeat(np.arange(12), 30)
    x = rng.standard_normal((12, 6))[person] * [3, 2, 1, 0.5, 0.2, 0.1] + rng.standard_normal((360, 6)) @ rng.random(
        (6, 6)
    )
    x -= x.mean(0)
    ours = _discriminants(x, person, 1e-9)[:, :3]
    theirs = LinearDiscriminantAnalysis(solver="eigen").fit(x, person).scalings_[:, :3]
    for a, b in zip(ours.T, theirs.T, strict=True):
        assert abs(a @ b) / np.linalg.norm(a) / np.linalg.norm(b) == pytest.approx(1.0, abs=1e-6)


def test_released_embeddings_are_mapped_by_ridge_regression():
    rng = np.random.default_rng(1)
    training, person = rng.standard_normal((60, 7)), np.repeat(np.arange(20), 3)
    behind = rng.standard_normal((40, 7))
    released = 3.0 * behind @ rng.standard_normal((7, 7)) + 1.0
    found = list(linear_maps(training, person, released, behind))
    assert len(found) == 2 * 3, "all numbers of directions are the seven that there are"
    unit = released / np.linalg.norm(released, axis=1, keepdims=True)
    centred = unit - unit.mean(0)
    for maps, factor in zip(found[:3], (0.1, 1.0, 10.0), strict=True):
        ridge = Ridge(alpha=factor * np.square(centred).sum() / 7, fit_intercept=False)
        np.testing.assert_allclose(maps.released(released), ridge.fit(centred, maps.real(behind)).predict(centred))
        assert np.allclose(maps.real(5.0 * behind), maps.real(behind)), "lengths of embeddings tell nothing"
