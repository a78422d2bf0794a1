"""Where a training starts: all of a network, or its trunk alone from a network of another class."""

from __future__ import annotations

import pytest
import torch

from gmia_monai.engines import start_from, start_verifier_from
from gmia_monai.errors import UsageError
from gmia_monai.networks import IdentityNet, SiameseVerifier, save_network

ARGUMENTS = {"image_size": 32, "architecture": "small_iresnet_pooled", "embedding_dim": 8}


def test_a_verifier_starts_with_the_normalised_embedding_of_an_encoder(tmp_path):
    torch.manual_seed(0)
    given = IdentityNet(**ARGUMENTS)
    with torch.no_grad():
        for _ in range(3):
            given(torch.rand(16, 1, 32, 32))  # statistics that are not those of the start
        given.norm.bias.normal_()
    save_network(tmp_path / "arcface.safetensors", given, ARGUMENTS)
    network = SiameseVerifier("small_iresnet_pooled", 8)
    assert start_verifier_from(network, tmp_path / "arcface.safetensors") is network
    image = torch.rand(4, 1, 32, 32)
    with torch.no_grad():
        expected = torch.sigmoid(given.eval()(image))
        assert torch.allclose(network.eval()(image), expected, atol=1e-4)
        near, far = torch.full((2, 8), 0.5), torch.stack([torch.full((8,), 0.5), torch.full((8,), 0.9)])
        assert network.compare(*near) > 0 > network.compare(*far)
    assert all(p.requires_grad for p in network.parameters()), "it goes on learning"


def test_another_trunk_is_refused_and_an_empty_path_changes_nothing(tmp_path):
    torch.manual_seed(0)
    save_network(tmp_path / "arcface.safetensors", IdentityNet(**ARGUMENTS), ARGUMENTS)
    network = SiameseVerifier("small", 8)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for other in (network, SiameseVerifier("small_iresnet_pooled", 9)):
        with pytest.raises(UsageError, match="GM-U046"):
            start_verifier_from(other, tmp_path / "arcface.safetensors")
    for start in (start_from, start_verifier_from):
        start(network, "")
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
