"""Trunk, discriminator and encoder: minibatch deviation against loops, GMIA's counts, regularisation by R1."""

from __future__ import annotations

import math

import pytest
import torch

from gmia_monai.errors import UsageError
from gmia_monai.losses import r1_penalty
from gmia_monai.networks import Discriminator, Encoder
from gmia_monai.networks.discriminator import minibatch_deviation
from gmia_monai.networks.layers import EqualConv2d


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def naive_minibatch_deviation(x, group_size):
    """Loops over groups; image i is in group i mod (number of groups)."""
    b = len(x)
    g = max(n for n in range(1, min(group_size, b) + 1) if b % n == 0)
    n_groups = b // g
    out = []
    for i in range(b):
        members = [x[j] for j in range(b) if j % n_groups == i % n_groups]
        assert len(members) == g
        mean = sum(members) / g
        variance = sum((m - mean) ** 2 for m in members) / g
        statistic = (variance + 1e-8).sqrt().mean()
        out.append(torch.cat([x[i], statistic.expand(1, *x.shape[2:])]))
    return torch.stack(out)


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 5, 6, 7, 8, 9, 12])
@pytest.mark.parametrize("group_size", [1, 3, 4])
def test_minibatch_deviation_is_the_loop_over_groups(batch, group_size):
    x = torch.randn(batch, 3, 4, 5) * torch.arange(1, batch + 1)[:, None, None, None]
    out = minibatch_deviation(x, group_size)
    assert out.shape == (batch, 4, 4, 5)
    torch.testing.assert_close(out, naive_minibatch_deviation(x, group_size), rtol=1e-5, atol=1e-6)


def test_minibatch_deviation_keeps_the_dtype_and_is_constant_without_variety():
    out = minibatch_deviation(torch.ones(4, 2, 3, 3, dtype=torch.bfloat16))
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out[:, 2].float(), torch.full((4, 3, 3), 1e-4), rtol=0.01, atol=0)


def test_scores_depend_on_the_rest_of_the_group_only_through_the_deviation():
    x = torch.rand(2, 1, 32, 32)
    other = torch.stack([x[0], 1 - x[1]])
    alone = Discriminator(32, channel_base=512, channel_max=16, group_size=1)
    torch.testing.assert_close(alone(x)[0], alone(other)[0])
    grouped = Discriminator(32, channel_base=512, channel_max=16, group_size=2)
    assert (grouped(x)[0] - grouped(other)[0]).abs().item() > 1e-6


def test_parameters_at_256_px_are_those_of_the_paper():
    with torch.device("meta"):
        encoder, discriminator = Encoder(256), Discriminator(256)
    assert sum(p.numel() for p in encoder.parameters()) == pytest.approx(24.0e6, rel=0.01)
    assert sum(p.numel() for p in discriminator.parameters()) == pytest.approx(24.0e6, rel=0.01)


def test_encoder_mirrors_the_discriminator_without_deviation_and_last_layer():
    encoder, discriminator = Encoder(64, 32, 512, 16), Discriminator(64, 512, 16)
    shapes = [{n: p.shape for n, p in m.trunk.named_parameters()} for m in (encoder, discriminator)]
    assert shapes[0] == shapes[1]
    assert discriminator.conv.weight.shape[1] == encoder.conv.weight.shape[1] + 1
    assert not hasattr(encoder, "out") and discriminator.out.weight.shape == (1, 16)


def test_trunk_at_256_px_has_the_channels_and_blocks_of_the_paper():
    with torch.device("meta"):
        encoder = Encoder(256)
    blocks = list(encoder.trunk.blocks)
    assert [b.conv1.weight.shape[:2] for b in blocks] == [
        (128, 64),
        (256, 128),
        (512, 256),
        (512, 512),
        (512, 512),
        (512, 512),
    ]
    for block in blocks:
        assert block.skip.bias is None and block.skip.down and block.conv1.down and not block.conv0.down
    assert encoder.fc.weight.shape == (512, 8192)


def test_residual_blocks_keep_the_scale_of_their_input():
    block = Encoder(32, 32, 4096, 64).trunk.blocks[0]
    x = torch.randn(2, 64, 16, 16)
    down, skip = block.conv1(block.conv0(x)), block.skip(x)
    torch.testing.assert_close(block(x), (down + skip) / math.sqrt(2))
    assert isinstance(block.conv0, EqualConv2d) and block.conv0.activate and block.conv1.activate


@pytest.mark.parametrize("image_size", [32, 64, 128, 256, 512, 1024])
def test_encoder_and_discriminator_take_every_power_of_two(image_size):
    x = torch.rand(2, 1, image_size, image_size)
    with torch.no_grad():
        assert Encoder(image_size, 24, 2048, 4)(x).shape == (2, 24)
        assert Discriminator(image_size, 2048, 4)(x).shape == (2, 1)


@pytest.mark.parametrize("image_size", [0, 16, 48, 100, 2048, -64])
@pytest.mark.parametrize("network", [Encoder, Discriminator])
def test_other_sizes_are_refused(network, image_size):
    with pytest.raises(UsageError) as caught:
        network(image_size)
    assert caught.value.code == "GM-U010" and str(image_size) in str(caught.value)


@pytest.mark.parametrize("network", [Encoder, Discriminator])
def test_a_channel_base_that_leaves_no_channel_is_refused(network):
    with pytest.raises(UsageError):
        network(1024, channel_base=512)


def test_codes_have_the_range_of_a_leaky_layer():
    encoder = Encoder(32, 256, 1024, 32)
    codes = encoder(torch.rand(8, 1, 32, 32))
    positive, negative = codes[codes > 0], codes[codes < 0]
    assert len(positive) and len(negative)
    # Slope 0.2 below zero: negative coordinates are about five times smaller.
    assert 3 < positive.abs().mean() / negative.abs().mean() < 8


def test_r1_has_gradients_for_every_kernel_and_no_first_order_bias():
    discriminator = Discriminator(32, channel_base=512, channel_max=16)
    x = torch.rand(4, 1, 32, 32, requires_grad=True)
    penalty = r1_penalty(discriminator(x), x)
    penalty.backward()
    assert penalty.item() > 0
    kernels = {n: p for n, p in discriminator.named_parameters() if n.endswith("weight")}
    for name, p in kernels.items():
        assert p.grad is not None and torch.isfinite(p.grad).all() and p.grad.abs().sum() > 0, name


def test_r1_gradient_is_the_finite_difference():
    discriminator = Discriminator(32, channel_base=256, channel_max=8).double()
    x = torch.rand(3, 1, 32, 32, dtype=torch.float64, requires_grad=True)
    weight = discriminator.out.weight
    direction = torch.randn_like(weight)
    # Along the last layer the penalty is a quadratic, for which the central difference is exact.
    (gradient,) = torch.autograd.grad(r1_penalty(discriminator(x), x), weight)
    values = []
    for step in (1e-3, -1e-3):
        with torch.no_grad():
            weight += step * direction
        values.append(r1_penalty(discriminator(x), x).item())
        with torch.no_grad():
            weight -= step * direction
    assert (gradient * direction).sum().item() == pytest.approx((values[0] - values[1]) / 2e-3, rel=1e-3)
