"""Embeddings are what the network gives, each computed once, and never those of another network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gmia_monai.attacks.attackers import embedder
from gmia_monai.attacks.attackers.base import CosineScore
from gmia_monai.attacks.attackers.embedder import NetworkEmbedder
from gmia_monai.attacks.attackers.frozen import FrozenAttacker
from gmia_monai.networks.identity import IdentityNet


class _Counting(nn.Module):
    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 3)
        self.gain = gain
        self.called: list[int] = []

    def forward(self, image: Tensor) -> Tensor:
        self.called.append(len(image))
        return self.linear(image.flatten(1)) * self.gain


def _pixels(seed: int, n: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).random((n, 1, 4, 4), dtype=np.float32)


def test_each_array_is_embedded_once_for_all_holders_of_the_network():
    torch.manual_seed(11)
    network = _Counting()
    one, two = NetworkEmbedder(network, batch_size=2), NetworkEmbedder(network)
    pixels = _pixels(1)
    first = one(pixels)
    with torch.no_grad():
        np.testing.assert_allclose(first, network.linear(torch.from_numpy(pixels).flatten(1)).numpy(), atol=5e-3)
    assert network.called == [2, 2, 1]
    first[:] = 0  # the caller may do what it likes with its copy
    np.testing.assert_allclose(two(pixels.copy()), one(pixels))
    assert network.called == [2, 2, 1] and two(pixels).any()
    two(_pixels(2))
    assert network.called == [2, 2, 1, 5]


def test_weights_settings_and_views_make_another_network():
    torch.manual_seed(12)
    network = _Counting()
    embed = NetworkEmbedder(network)
    pixels = _pixels(3)
    before = embed(pixels)
    with torch.no_grad():
        network.linear.bias += 1.0
    np.testing.assert_allclose(embed(pixels), before + 1.0, atol=1e-2)
    network.gain = 2.0
    np.testing.assert_allclose(embed(pixels), 2 * (before + 1.0), atol=2e-2)
    identity = IdentityNet(32, "small_pooled", embedding_dim=8)
    embed, images = NetworkEmbedder(identity), np.random.default_rng(4).random((2, 1, 32, 32), dtype=np.float32)
    assert embed(images).shape == (2, 8)
    identity.two_views = True
    assert embed(images).shape == (2, 16)


def test_too_many_bytes_push_out_the_oldest(monkeypatch):
    monkeypatch.setattr(embedder, "_kept", embedder._Kept(2 * 5 * 3 * 4))
    torch.manual_seed(13)
    network = _Counting()
    embed = NetworkEmbedder(network)
    for seed in (1, 2, 1, 3):  # 1 was asked for again, so that 2 leaves
        embed(_pixels(seed))
    network.called.clear()
    embed(_pixels(1))
    embed(_pixels(3))
    assert network.called == []
    embed(_pixels(2))
    assert network.called == [5]


def test_cosines_of_all_pairs_are_those_of_single_ones():
    rng = np.random.default_rng(0)
    left, right = (rng.standard_normal((n, 7)).astype(np.float32) for n in (5, 4))
    for sign in (1.0, -1.0):
        attacker = FrozenAttacker()
        attacker.compare = CosineScore(sign)
        found = attacker.compare_all(left, right)
        for i, j in np.ndindex(5, 4):
            naive = sign * left[i] @ right[j] / np.linalg.norm(left[i]) / np.linalg.norm(right[j])
            assert found[i, j] == pytest.approx(naive, abs=1e-6)
