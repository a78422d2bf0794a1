"""The linear attacker: rings, is silent, undoes what is linear."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from attack_cohorts import SIZE, flat, judged, knowledge, real_images

from gmia_monai.attacks.attackers.frozen import FrozenAttacker
from gmia_monai.attacks.attackers.linear import LinearAttacker
from gmia_monai.attacks.base import Judged
from gmia_monai.data.release import Release
from gmia_monai.data.threats import threat_pairs
from gmia_monai.errors import UsageError
from gmia_monai.metrics.verification import roc_auc
from gmia_monai.networks import IdentityNet, save_network


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> list[Path]:
    path = tmp_path_factory.mktemp("attackers") / "arcface.safetensors"
    arguments = {"image_size": SIZE, "architecture": "small", "embedding_dim": 32}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_network(path, IdentityNet(**arguments), arguments)
    return [path]


def _auc(attacker, case: Judged, threat: str = "T1") -> float:
    pairs = threat_pairs(case.real.cohort, threat, "random", case.released)
    return roc_auc(attacker.score(case, pairs, threat), pairs.same, pairs.weight)


def test_a_linear_map_undoes_what_is_linear():
    """Identity turned about in the embedding by a fixed rotation: no trained attacker finds it, the linear one does."""
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((SIZE * SIZE, SIZE * SIZE)))[0]

    def turned(name: str) -> Judged:
        real = real_images(name)
        pixels = np.clip(0.5 + 0.2 * (flat(real.pixels) @ turn) * SIZE, 0, 1).astype(np.float32)
        sources = tuple((i,) for i in range(len(real)))
        return Judged(real, Release("turned", pixels.reshape(real.pixels.shape), sources))

    known = knowledge("unchanged")
    known = type(known)(known.training, turned("a"), turned("v"), known.frozen, known.anonymize)
    found = []
    for attacker in (FrozenAttacker(), LinearAttacker("linear_frozen")):
        attacker.fit(known, 0)
        found.append(_auc(attacker, turned("t")))
    assert abs(found[0] - 0.5) < 0.15 and found[1] > 0.9


@pytest.mark.parametrize("system", ["unchanged", "negative", "noise"])
def test_the_linear_attacker_rings_and_is_silent(system):
    attacker = LinearAttacker("linear_frozen")
    attacker.fit(knowledge(system), 0)
    auc = _auc(attacker, judged(system))
    assert abs(auc - 0.5) < 0.1 if system == "noise" else auc > 0.95


def test_the_linear_attacker_needs_an_encoder(weights):
    known = knowledge("unchanged", frozen=None)
    with pytest.raises(UsageError, match="GM-U312"):
        LinearAttacker("linear_frozen").fit(known, 0)
    attacker = LinearAttacker("linear", weights)
    attacker.fit(known, 0)
    assert _auc(attacker, judged("unchanged")) > 0.7
