"""Inversion undoes what can be undone, beats the release there, and gets nothing out of noise."""

from __future__ import annotations

import pytest
from attack_cohorts import judged, knowledge

from gmia_monai.attacks.attackers.frozen import FrozenAttacker
from gmia_monai.attacks.attackers.metadata import MetadataAttacker
from gmia_monai.attacks.inversion import InversionAttack
from gmia_monai.attacks.pool import AttackerPool
from gmia_monai.attacks.training import Schedule
from gmia_monai.errors import UsageError
from gmia_monai.metrics.results import RunContext

FAST = Schedule(steps=120, lr=4e-3, weight_decay=0.0, validate_every=60)


def _table(system: str) -> dict:
    attack = InversionAttack(AttackerPool({"frozen": FrozenAttacker}), n_boot=30, schedule=FAST, batch_size=8)
    attack.fit(knowledge(system))
    return {r.name: r for r in attack.score(judged(system), RunContext("x", "p"))}


def test_a_negative_is_turned_back():
    table = _table("negative")
    found, release = table["inversion_auc.T1.v1"], table["inversion_auc_release.T1.v1"]
    assert release.value < 0.1 and found.value > 0.9, "the release lies at the far side, the inversion at the near one"
    assert table["inversion_psnr.v1"].value > 15
    assert table["inversion_auc.T2.v1"].value > 0.95


def test_noise_holds_nobody():
    table = _table("noise")
    assert abs(table["inversion_auc.T1.v1"].value - 0.5) < 0.15
    assert abs(table["inversion_auc.T2.v1"].value - 0.5) < 0.15


def test_a_judge_is_needed():
    with pytest.raises(UsageError, match="GM-U326"):
        InversionAttack(AttackerPool({"metadata": MetadataAttacker})).fit(knowledge("noise"))
    with pytest.raises(UsageError, match="GM-U311"):
        InversionAttack(AttackerPool({"frozen": FrozenAttacker})).score(judged("noise"), RunContext("x", "p"))
