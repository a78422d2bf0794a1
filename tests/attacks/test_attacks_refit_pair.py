"""A network behind a linear map is what the closed form says, in training as in use."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from attack_cohorts import SIZE, real_images

from gmia_monai.attacks.linear_maps import AffineMap, LinearMaps
from gmia_monai.attacks.refit_pair import MappedNetwork, RefitPair
from gmia_monai.networks import IdentityNet, SiameseVerifier


def _maps(dims: int, k: int) -> LinearMaps:
    rng = np.random.default_rng(0)
    return LinearMaps(*(AffineMap(rng.normal(size=dims) / 9, 40 * rng.normal(size=(dims, k))) for _ in range(2)))


@pytest.mark.parametrize("two_views", [False, True])
def test_cosines_behind_a_map_are_those_of_the_map(two_views):
    torch.manual_seed(0)
    network = IdentityNet(SIZE, "small", 8, two_views=two_views).eval()
    pair, images = RefitPair(network, shared=False).eval(), torch.from_numpy(real_images("a").pixels[:6])
    with torch.no_grad():
        plain = network(images)
        assert torch.equal(pair.released(images), plain)
        maps = _maps(plain.shape[1], 5)
        pair.turn()
        pair.place(maps)
        found = pair.compare(pair.released(images)[:, None], pair.real(images)[None])
    a, b = (torch.from_numpy(side(plain.numpy())) for side in (maps.released, maps.real))
    expected = F.cosine_similarity(a[:, None], b[None], dim=-1)
    torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=1e-4)
    assert pair.released.weight.norm().item() == pytest.approx(plain.shape[1] ** 0.5, rel=1e-5)


def test_both_views_are_trained_behind_a_map_and_one_without():
    torch.manual_seed(0)
    mapped, images = MappedNetwork(IdentityNet(SIZE, "small", 8, two_views=True)), torch.rand(4, 1, SIZE, SIZE)
    assert mapped.train()(images).shape == (4, 8) and mapped.eval()(images).shape == (4, 16)
    mapped.place(_maps(16, 5).released)
    for norm in mapped.modules():
        if isinstance(norm, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
            norm.momentum = None  # statistics of this one batch
            norm.reset_running_stats()
    trained = mapped.train()(images)
    trained.sum().backward()
    assert mapped.weight.grad is not None and mapped.network.fc.weight.grad is not None
    used = mapped.eval()(images)
    # Batches are normalised with the biased variance, later images with the unbiased one.
    assert F.cosine_similarity(trained, used, dim=1).min() > 0.9


def test_the_head_of_a_siamese_network_compares_until_there_is_a_map():
    network = SiameseVerifier(features=16)
    pair = RefitPair(network, shared=True)
    a, b = torch.rand(2, 3, 16)
    pair.turn()
    assert pair.by_head and torch.equal(pair.compare(a, b), -network.compare(a, b))
    maps = _maps(16, 4)
    pair.place(LinearMaps(maps.released, maps.released))
    assert not pair.by_head and pair.real is pair.released
    torch.testing.assert_close(pair.compare(a, b), F.cosine_similarity(a, b, dim=-1))
