"""Mapping network, running mean of W, truncation, and how a generator is read back."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from gmia_monai.networks import MappedGenerator, load_network, save_network
from gmia_monai.networks.generator import MappingNetwork

ARGUMENTS = {"image_size": 32, "latent_dim": 16, "channel_base": 256, "channel_max": 16, "mapping_layers": 2}


def test_the_mapping_is_its_naive_restatement():
    torch.manual_seed(0)
    mapping, z = MappingNetwork(16, 3), torch.randn(5, 16)
    x = z / z.square().mean(dim=1, keepdim=True).sqrt()
    for layer in mapping.layers:
        # equalised learning rate with a factor of 0.01 on weights and biases
        x = 2**0.5 * F.leaky_relu(x @ (layer.weight * 0.01 / 4.0).T + 0.01 * layer.bias, 0.2)
    assert torch.allclose(mapping(z), x, atol=1e-5)
    assert torch.allclose(mapping(3.0 * z), mapping(z), atol=1e-4), "only the direction of the noise counts"


def test_the_running_mean_follows_the_codes():
    mapping = MappingNetwork(4, 1)
    for _ in range(2000):
        mapping.follow(torch.tensor([[1.0, 2.0, 3.0, 4.0], [3.0, 2.0, 1.0, 0.0]]))
    assert torch.allclose(mapping.w_avg, torch.full((4,), 2.0), atol=1e-3)


def test_truncation_moves_codes_towards_the_mean():
    torch.manual_seed(0)
    net = MappedGenerator(**ARGUMENTS).eval()
    net.mapping.w_avg.fill_(0.3)
    whole, half, none = (net.sample_codes(6, 1, t) for t in (1.0, 0.5, 0.0))
    assert torch.allclose(half - 0.3, 0.5 * (whole - 0.3), atol=1e-6) and torch.allclose(
        none, torch.full_like(none, 0.3)
    )
    assert torch.equal(net.sample_codes(6, 1), whole) and not torch.equal(net.sample_codes(6, 2), whole)


def test_weights_come_back_with_the_mean(tmp_path):
    torch.manual_seed(0)
    net = MappedGenerator(**ARGUMENTS).eval()
    net.mapping.w_avg.normal_()
    save_network(tmp_path / "generator.safetensors", net, ARGUMENTS)
    again = load_network(tmp_path / "generator.safetensors")
    assert torch.equal(again.sample_codes(2, 0, 0.7), net.sample_codes(2, 0, 0.7))
    z = torch.randn(2, 16)
    assert torch.equal(again(z), net(z)) and again(z).shape == (2, 1, 32, 32)
