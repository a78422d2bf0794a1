"""Scores as one: likelihood ratios hear both sides, and patients are left out where they are scored."""

from __future__ import annotations

import numpy as np
import pytest

from gmia_monai.attacks.weighing import CrossFitted, LogOdds
from gmia_monai.errors import UsageError
from gmia_monai.metrics.verification import roc_auc

N = 200


def _halves(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Positives are higher in the first score, on either far side in the second; the third knows nothing."""
    rng = np.random.default_rng(seed)
    positive = np.arange(N) % 2 == 0
    scores = rng.standard_normal((N, 3))
    scores[positive, 0] += 1.0
    scores[positive, 1] *= 3.0
    return scores, positive


def test_both_scores_are_heard_and_both_sides_of_one():
    learned, truth = _halves(0)
    odds = LogOdds(learned, truth, np.ones(N), N / 2)
    scores, positive = _halves(1)
    found = roc_auc(odds(scores), positive)
    alone = [roc_auc(column, positive) for column in scores.T]
    assert found > max(alone) + 0.05 and abs(alone[1] - 0.5) < 0.1
    assert np.array_equal(odds(scores), odds(scores[::-1])[::-1])


def test_weights_of_a_kind_have_one_sum():
    scores, positive = _halves(2)
    one, two = (LogOdds(scores, positive, w, 50.0) for w in (np.ones(N), np.where(positive, 7.0, 0.2)))
    np.testing.assert_allclose(one(scores), two(scores), rtol=1e-6)
    with pytest.raises(UsageError, match="GM-U315"):
        LogOdds(scores, np.arange(N) < 1, np.ones(N), 1.0)


def test_nobody_is_scored_by_what_was_learned_from_them():
    """A model that knows its rows by heart, and says of each how many it knew."""
    patient = np.repeat(np.arange(20), 2)
    seen: list[np.ndarray] = []

    def learn(rows: np.ndarray):
        seen.append(rows)
        return lambda asked: np.isin(asked, np.flatnonzero(rows)).astype(np.float64)

    fitted = CrossFitted(learn, np.arange(40) % 2 == 0, patient)
    rows = np.arange(40)
    assert fitted.all(rows).all() and not fitted.left_out(rows, patient).any()
    assert len(seen) == 6 and seen[0].all() and all(of_fold.sum() == 32 for of_fold in seen[1:])
    for of_fold in seen[1:]:
        assert all(len(set(of_fold[patient == p])) == 1 for p in range(20)), "patients are left out whole"
    strangers = np.full(40, 99)
    assert fitted.left_out(rows, strangers).all(), "those who are not of V2 are scored by all of it"


def test_a_pair_is_left_out_with_either_patient():
    first, second = np.arange(20), (np.arange(20) + 1) % 20
    learned: list[np.ndarray] = []
    fitted = CrossFitted(
        lambda rows: learned.append(rows) or (lambda asked: asked), np.arange(20) % 2 == 0, first, second
    )
    part = fitted._parts(np.arange(20))
    assert np.bincount(part).tolist() == [4] * 5
    for fold, rows in enumerate(learned[1:]):
        assert not np.isin(np.flatnonzero(part == fold), [first[rows], second[rows]]).any()
        assert rows.sum() >= 12
