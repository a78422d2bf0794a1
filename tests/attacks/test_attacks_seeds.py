"""Attackers of several seeds: those without chance are asked once."""

from __future__ import annotations

import numpy as np
import pytest
from attack_cohorts import knowledge

from gmia_monai.attacks.attackers.frozen import FrozenAttacker
from gmia_monai.attacks.attackers.fusion import FusionAttacker
from gmia_monai.attacks.attackers.metadata import MetadataAttacker
from gmia_monai.attacks.base import AttackerKnowledge, TooLittleDataError
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


class _Lacking(FrozenAttacker):
    """Finds too few patients with every second seed."""

    def __init__(self) -> None:
        super().__init__()
        self.name = "lacking"

    def fit(self, known: AttackerKnowledge, seed: int) -> None:
        tried.append(seed)
        if seed % 2:
            raise TooLittleDataError("GM-U314", "too few patients on both sides")
        super().fit(known, seed)


tried: list[int] = []


def test_who_has_too_little_data_is_left_out_with_a_word_unless_alone(caplog):
    tried.clear()
    known, makers = knowledge("noise"), {"lacking": _Lacking, "frozen": FrozenAttacker}
    pool = AttackerPool(makers | {"fusion": lambda: FusionAttacker(makers)})
    assert list(pool.of_seeds((2, 3), known)) == ["frozen", "fusion"]
    assert list(embedding_attackers(pool, (2, 3), known)) == ["frozen"]
    assert list(pool.embedding(3, known)) == ["frozen"] and list(pool.embedding(2, known)) == ["lacking", "frozen"]
    assert tried == [2, 3], "it is tried once"
    said = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert said == ["attacker lacking, seed 3, is left out: too few patients on both sides"]
    for names in (["lacking"], ["lacking", "metadata"]):
        alone = AttackerPool({name: (makers | {"metadata": MetadataAttacker})[name] for name in names})
        with pytest.raises(TooLittleDataError, match="GM-U314"):
            embedding_attackers(alone, (2, 3), known)
    with pytest.raises(TooLittleDataError, match="GM-U314"):
        FusionAttacker({"lacking": _Lacking}).fit(known, 1)
    with pytest.raises(TooLittleDataError, match="GM-U314"):
        AttackerPool({"lacking": _Lacking}).of_seeds((2, 3), known)


def test_no_seed_is_refused():
    assert checked_seeds([2, 1]) == (2, 1)
    with pytest.raises(UsageError, match="GM-U316"):
        checked_seeds([])
