"""Attackers of several seeds: those without chance are asked once."""

from __future__ import annotations

import numpy as np
import pytest
from attack_cohorts import knowledge

from gmia_monai.attacks.attackers.frozen import FrozenAttacker
from gmia_monai.attacks.attackers.metadata import MetadataAttacker
from gmia_monai.attacks.pool import AttackerPool
from gmia_monai.attacks.seeds import checked_seeds, embedding_attackers, shared_statistics
from gmia_monai.errors import UsageError


def test_equal_scores_share_one_statistic():
    asked = []

    def make(scores: np.ndarray) -> object:
        asked.append(scores[0])
        return object()

    made = shared_statistics([np.array([1.0, 2.0]), np.array([1.0, 2.0]), np.array([3.0, 2.0]), np.ones(2)], make)
    assert made[0] is made[1] and len(set(map(id, made))) == 3 and asked == [1.0, 3.0, 1.0]


def test_those_that_embed_are_fitted_with_each_seed():
    pool = AttackerPool({"frozen": FrozenAttacker, "metadata": MetadataAttacker})
    known = knowledge("noise")
    found = embedding_attackers(pool, (3, 5), known)
    assert list(found) == ["frozen"]
    assert [pool.fitted("frozen", seed, known) for seed in (3, 5)] == found["frozen"]


def test_no_seed_is_refused():
    assert checked_seeds([2, 1]) == (2, 1)
    with pytest.raises(UsageError, match="GM-U316"):
        checked_seeds([])
