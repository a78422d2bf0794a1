"""Embeddings are compared where the comparing network is, and scores come back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attack_cohorts import judged
from torch import Tensor, nn

from gmia_monai.attacks.attackers.base import cosine_score
from gmia_monai.attacks.attackers.frozen import FrozenAttacker
from gmia_monai.data.threats import threat_pairs
from gmia_monai.networks import SiameseVerifier


class _Elsewhere(nn.Module):
    """A comparison whose weights are on another device than the CPU; ``meta`` holds no values, so it gives zeros."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3, device=device))
        self.seen: set[str] = set()

    def compare(self, a: Tensor, b: Tensor) -> Tensor:
        self.seen |= {a.device.type, b.device.type}
        shape = torch.broadcast_shapes(a.shape, b.shape)[:-1]
        return torch.zeros(shape)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_embeddings_go_to_the_device_of_the_comparing_network(device):
    network, attacker = _Elsewhere(device), FrozenAttacker()
    attacker.compare = network.compare
    left, right = np.zeros((72, 3), np.float32), np.ones((72, 3), np.float32)
    pairs = threat_pairs(judged("unchanged").real.cohort, "T1", "random", negatives_per_positive=2)
    assert attacker.compare_positions(left, right, pairs).shape == (len(pairs),)
    assert network.seen == {device}
    assert attacker.compare_all(left, right[:5]).shape == (72, 5)
    assert network.seen == {device}


def test_pairs_by_position_have_the_scores_of_all_pairs():
    rng = np.random.default_rng(0)
    left, right = (rng.random((72, 16), dtype=np.float32) for _ in range(2))
    pairs = threat_pairs(judged("unchanged").real.cohort, "T1", "random", negatives_per_positive=2)
    for compare in (SiameseVerifier(features=16).compare, cosine_score):
        attacker = FrozenAttacker()
        attacker.compare = compare
        everything = attacker.compare_all(left, right)
        np.testing.assert_allclose(
            attacker.compare_positions(left, right, pairs), everything[pairs.first, pairs.second], atol=1e-5
        )
