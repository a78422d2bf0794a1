"""Linkability: figures of verdicts, the alarm, and what the published protocol hides."""

from __future__ import annotations

import numpy as np
import pytest
from attack_cohorts import judged, knowledge
from sklearn.metrics import accuracy_score, f1_score, recall_score

from gmia_monai.attacks.attackers.frozen import FrozenAttacker
from gmia_monai.attacks.attackers.metadata import MetadataAttacker
from gmia_monai.attacks.linkability import LinkabilityAttack, verdict_figures
from gmia_monai.attacks.pool import AttackerPool
from gmia_monai.metrics.results import RunContext


def _table(system: str) -> dict:
    pool = AttackerPool({"frozen": FrozenAttacker, "metadata": MetadataAttacker})
    attack = LinkabilityAttack(pool, n_boot=30)
    attack.fit(knowledge(system))
    return {r.name: r for r in attack.score(judged(system), RunContext("x", "cxr64"))}


def test_figures_of_verdicts_are_those_of_sklearn():
    rng = np.random.default_rng(0)
    accepted, same, weights = rng.random(200) < 0.4, rng.random(200) < 0.5, rng.random(200)
    found = verdict_figures(accepted, same, weights)
    assert found["f1"] == pytest.approx(f1_score(same, accepted, sample_weight=weights))
    assert found["accuracy"] == pytest.approx(accuracy_score(same, accepted, sample_weight=weights))
    assert found["tar"] == pytest.approx(recall_score(same, accepted, sample_weight=weights))
    assert found["far"] == pytest.approx(1 - recall_score(~same, ~accepted, sample_weight=weights))
    assert found["frr"] == pytest.approx(1 - found["tar"])


def test_it_rings_on_unchanged_images():
    table = _table("unchanged")
    for side in ("inner", "outer"):
        assert table[f"linkability_f1.{side}.frozen.v1"].value > 0.98
        assert table[f"linkability_far.{side}.frozen.v1"].value < 0.05
        assert table[f"linkability_tar.{side}.frozen.v1"].negatives == "balanced"


def test_the_published_outer_figures_are_one_number():
    table = _table("negative")
    tar = table["paper_linkability_tar.outer.frozen.v1"].value
    # Identity is at the far side: the published verdict accepts no pair and calls that private ...
    assert tar == 0.0 and table["paper_linkability_accuracy.outer.frozen.v1"].value == tar
    frr = table["paper_linkability_frr.outer.frozen.v1"]
    assert frr.value == 1.0 and frr.extra["published_as"] == "FAR" and frr.negatives is None
    # ... but who reads it the other way round has them all, and two released images still give the person away.
    assert table["linkability_f1.outer.frozen.v1"].value > 0.98
    assert table["linkability_f1.outer.frozen.v1"].extra["sign"] == -1.0
    assert table["linkability_f1.inner.frozen.v1"].value > 0.98


def test_it_is_silent_on_noise():
    table = _table("noise")
    for side in ("inner", "outer"):
        tar, far = (table[f"linkability_{figure}.{side}.frozen.v1"].value for figure in ("tar", "far"))
        assert abs(tar - far) < 0.2
