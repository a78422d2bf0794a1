"""Where a training starts: all of a network, or its trunk alone from a network of another class."""

from __future__ import annotations

import pytest
import torch

from gmia_monai.engines import start_from, start_trunk_from
from gmia_monai.errors import UsageError
from gmia_monai.networks import IdentityNet, SiameseVerifier, save_network

ARGUMENTS = {"image_size": 32, "architecture": "small_iresnet_pooled", "embedding_dim": 8}


def test_a_trunk_comes_from_another_class_and_the_rest_stays(tmp_path):
    torch.manual_seed(0)
    given = IdentityNet(**ARGUMENTS)
    save_network(tmp_path / "arcface.safetensors", given, ARGUMENTS)
    network = SiameseVerifier("small_iresnet_pooled", 8)
    head = network.fc.weight.clone()
    assert start_trunk_from(network, tmp_path / "arcface.safetensors") is network
    own = network.trunk.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in given.trunk.state_dict().items())
    assert torch.equal(network.fc.weight, head)
    assert all(p.requires_grad for p in network.parameters()), "it goes on learning"


def test_another_trunk_is_refused_and_an_empty_path_changes_nothing(tmp_path):
    torch.manual_seed(0)
    save_network(tmp_path / "arcface.safetensors", IdentityNet(**ARGUMENTS), ARGUMENTS)
    network = SiameseVerifier("small", 8)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(UsageError, match="GM-U046"):
        start_trunk_from(network, tmp_path / "arcface.safetensors")
    for start in (start_from, start_trunk_from):
        start(network, "")
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
