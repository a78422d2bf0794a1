"""Hidden rate, local cloaking and their two-sided forms against loops over all images."""

from __future__ import annotations

import numpy as np
import pytest
from attack_cohorts import judged, knowledge

from gmia_monai.attacks.attackers.frozen import FrozenAttacker
from gmia_monai.attacks.pool import AttackerPool
from gmia_monai.attacks.singling_out import SinglingOutAttack, cloaking
from gmia_monai.metrics.results import RunContext


def _table(system: str) -> dict:
    attack = SinglingOutAttack(AttackerPool({"frozen": FrozenAttacker}), n_boot=50)
    attack.fit(knowledge(system))
    return {r.name.split(".")[0]: r.value for r in attack.score(judged(system), RunContext("x", "cxr64"))}


def test_counts_are_those_of_a_loop():
    rng = np.random.default_rng(0)
    released, real, patient = rng.standard_normal((30, 5)), rng.standard_normal((30, 5)), np.arange(30) // 2
    found = cloaking(released, real, patient)
    r, x = (e / np.linalg.norm(e, axis=1, keepdims=True) for e in (released, real))
    for i in range(30):
        own = np.linalg.norm(x[i] - r[i])
        assert found.avatars_nearer[i] == sum(np.linalg.norm(x[i] - r[j]) < own for j in range(30) if j != i)
        assert found.records_nearer[i] == sum(np.linalg.norm(x[i] - x[j]) < own for j in range(30) if j != i)
        nearest = min(range(30), key=lambda j: np.linalg.norm(x[i] - r[j]))
        assert found.nearest_is_patient[i] == (patient[nearest] == patient[i])


def test_unchanged_images_are_singled_out():
    table = _table("unchanged")
    assert table["hidden_rate"] == 0.0 and table["hidden_rate_patient"] == 0.0
    assert table["local_cloaking_avatars"] == 0.0
    assert table["place_spread"] == pytest.approx(0.5)


def test_the_far_side_hides_from_the_published_figure_alone():
    table = _table("negative")
    assert table["hidden_rate"] == 1.0
    assert table["hidden_rate_two_sided"] == 0.0 and table["place_spread"] == pytest.approx(0.5)


def test_noise_hides():
    table = _table("noise")
    assert table["hidden_rate_two_sided"] > 0.9
    assert table["place_spread"] == pytest.approx(0.25, abs=0.06)
