"""Scores as one: likelihood ratios hear both sides, and both kinds weigh alike."""

from __future__ import annotations

import numpy as np
import pytest

from gmia_monai.attacks.weighing import LogOdds
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
