"""Building blocks against naive re-statements: per-image kernels, zero insertion, torch's own resampling."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from gmia_monai.networks.layers import (
    EqualConv2d,
    EqualLinear,
    ModulatedConv2d,
    bilinear_down,
    bilinear_up,
    scaled_leaky_relu,
    upsampling_conv,
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def bilinear_by_zero_insertion(x):
    """Doubles rows and columns: zeros between the pixels, then the filter [1, 3, 3, 1] / 4 along both axes."""
    b, c, h, w = x.shape
    spread = x.new_zeros(b, c, 2 * h, 2 * w)
    spread[:, :, ::2, ::2] = x
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=x.dtype) / 4
    padded = F.pad(spread, (2, 1, 2, 1)).reshape(b * c, 1, 2 * h + 3, 2 * w + 3)
    return F.conv2d(padded, torch.outer(taps, taps)[None, None]).reshape(b, c, 2 * h, 2 * w)


def grouped_modulated_conv(layer, x, w):
    """The published form: one kernel an image, ``w' = s w``, divided by its norm, as a grouped convolution."""
    weight = layer.weight.detach()
    o, i, k, _ = weight.shape
    style = w @ (layer.affine.weight.detach() / math.sqrt(w.shape[1])).t() + layer.affine.bias.detach()
    if not layer.demodulate:
        style = style / math.sqrt(i * k * k)
    kernels = weight[None] * style[:, None, :, None, None]
    if layer.demodulate:
        kernels = kernels * torch.rsqrt(kernels.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8)
    if layer.up:
        x = bilinear_by_zero_insertion(x)
    b, _, h, width = x.shape
    out = F.conv2d(x.reshape(1, b * i, h, width), kernels.reshape(b * o, i, k, k), padding=k // 2, groups=b)
    return out.reshape(b, o, h, width)


@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize("kernel_size", [1, 3])
def test_modulated_conv_is_the_grouped_form(demodulate, kernel_size):
    layer = ModulatedConv2d(5, 7, kernel_size, 6, demodulate=demodulate)
    torch.nn.init.normal_(layer.affine.bias)
    x, w = torch.randn(3, 5, 9, 8), torch.randn(3, 6)
    ours, naive = layer(x, w), grouped_modulated_conv(layer, x, w)
    assert ours.shape == (3, 7, 9, 8)
    torch.testing.assert_close(ours, naive, rtol=1e-4, atol=1e-5)
    # The style of one image must not reach another.
    assert not torch.allclose(layer(x, w.flip(0)), naive, atol=1e-2)


@pytest.mark.parametrize("demodulate", [True, False])
def test_modulated_upsampling_conv_is_the_grouped_form_away_from_the_border(demodulate):
    layer = ModulatedConv2d(5, 7, 3, 6, demodulate=demodulate, up=True)
    x, w = torch.randn(3, 5, 9, 8), torch.randn(3, 6)
    ours, naive = layer(x, w), grouped_modulated_conv(layer, x, w)
    assert ours.shape == naive.shape == (3, 7, 18, 16)
    torch.testing.assert_close(ours[..., 2:-2, 2:-2], naive[..., 2:-2, 2:-2], rtol=1e-4, atol=1e-5)


def test_demodulation_gives_unit_variance_for_any_style():
    layer = ModulatedConv2d(64, 32, 3, 4)
    out = layer(torch.randn(2, 64, 32, 32), torch.tensor([[1.0, 0, 0, 0], [0, 50.0, 0, 0]]))
    torch.testing.assert_close(out.std(dim=(1, 2, 3)), torch.ones(2), rtol=0.05, atol=0)


@pytest.mark.parametrize("up", [True, False])
def test_modulated_conv_has_right_first_and_second_derivatives(up):
    layer = ModulatedConv2d(2, 2, 3, 3, up=up).double()
    x, w = torch.randn(2, 2, 4, 4).double().requires_grad_(), torch.randn(2, 3).double().requires_grad_()
    assert torch.autograd.gradcheck(layer, (x, w))
    assert torch.autograd.gradgradcheck(layer, (x, w))


def test_bilinear_up_is_zero_insertion_and_filter():
    x = torch.randn(2, 3, 7, 5)
    torch.testing.assert_close(
        bilinear_up(x)[..., 1:-1, 1:-1], bilinear_by_zero_insertion(x)[..., 1:-1, 1:-1], rtol=1e-5, atol=1e-6
    )


def test_bilinear_down_is_the_antialiased_resampling_of_torch():
    x = torch.randn(2, 3, 16, 12)
    ours = bilinear_down(x)
    theirs = F.interpolate(x, scale_factor=0.5, mode="bilinear", antialias=True, align_corners=False)
    assert ours.shape == theirs.shape
    torch.testing.assert_close(ours[..., 1:-1, 1:-1], theirs[..., 1:-1, 1:-1], rtol=1e-5, atol=1e-6)
    # Zero beyond the border: a constant image keeps its value inside and loses an eighth along an edge.
    flat = bilinear_down(torch.ones(1, 1, 8, 8))[0, 0]
    torch.testing.assert_close(flat[1, :], torch.tensor([7 / 8, 1.0, 1.0, 7 / 8]))


def test_upsampling_conv_is_bilinear_up_then_conv_away_from_the_border():
    x, weight = torch.randn(2, 4, 6, 7), torch.randn(5, 4, 3, 3)
    ours, plain = upsampling_conv(x, weight), F.conv2d(bilinear_up(x), weight, padding=1)
    assert ours.shape == plain.shape == (2, 5, 12, 14)
    torch.testing.assert_close(ours[..., 2:-2, 2:-2], plain[..., 2:-2, 2:-2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("lr_mult", [1.0, 0.01])
def test_equal_linear_has_the_gain_of_its_fan_in(lr_mult):
    layer = EqualLinear(400, 300, bias_init=0.7, lr_mult=lr_mult)
    x = torch.randn(64, 400)
    out = layer(x)
    torch.testing.assert_close(out, x @ layer.weight.t() * (lr_mult / 20.0) + 0.7, rtol=1e-4, atol=1e-4)
    # The multiplier changes how fast the layer learns, not where it starts.
    assert (out - 0.7).std().item() == pytest.approx(1.0, abs=0.05)
    torch.testing.assert_close(EqualLinear.forward(_activated(layer), x), scaled_leaky_relu(out))


def _activated(layer):
    layer.activate = True
    return layer


@pytest.mark.parametrize(("layer", "x"), [(EqualLinear(64, 3), (5, 64)), (EqualConv2d(4, 3, 3), (2, 4, 6, 6))])
def test_one_step_of_adam_moves_the_effective_weight_by_the_gain(layer, x):
    fan_in = layer.weight[0].numel()
    before = layer.weight.detach().clone()
    optimizer = torch.optim.Adam([layer.weight], lr=0.01, betas=(0.0, 0.99))
    layer(torch.randn(x)).square().sum().backward()
    optimizer.step()
    moved = (layer.weight.detach() - before).abs() * layer.weight_gain
    torch.testing.assert_close(moved, torch.full_like(moved, 0.01 / math.sqrt(fan_in)), rtol=1e-3, atol=0)


@pytest.mark.parametrize("down", [True, False])
@pytest.mark.parametrize("activate", [True, False])
@pytest.mark.parametrize("kernel_size", [1, 3])
def test_equal_conv_is_a_scaled_convolution(down, activate, kernel_size):
    layer = EqualConv2d(6, 4, kernel_size, down=down, activate=activate)
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(2, 6, 8, 8)
    source = F.conv2d(F.pad(x, (1, 1, 1, 1)), _box(6), stride=2, groups=6) if down else x
    naive = F.conv2d(source, layer.weight / math.sqrt(6 * kernel_size**2), layer.bias, padding=kernel_size // 2)
    if activate:
        naive = torch.where(naive > 0, naive, 0.2 * naive) * math.sqrt(2)
    torch.testing.assert_close(layer(x), naive, rtol=1e-4, atol=1e-5)


def _box(channels):
    taps = torch.tensor([0.125, 0.375, 0.375, 0.125])
    return torch.outer(taps, taps).expand(channels, 1, 4, 4)


def test_equal_conv_keeps_unit_variance_and_may_have_no_bias():
    layer = EqualConv2d(128, 64, 3, bias=False)
    assert [name for name, _ in layer.named_parameters()] == ["weight"]
    assert layer(torch.randn(1, 128, 32, 32))[..., 1:-1, 1:-1].std().item() == pytest.approx(1.0, abs=0.05)


def test_scaled_leaky_relu_keeps_the_second_moment():
    x = torch.randn(200_000)
    y = scaled_leaky_relu(x)
    # 2 (1 + 0.2^2) / 2 of a standard normal; it is the second moment that the next layer's variance follows.
    assert y.square().mean().item() == pytest.approx(1.04, abs=0.01)
    torch.testing.assert_close(y, torch.where(x > 0, x, 0.2 * x) * math.sqrt(2))
