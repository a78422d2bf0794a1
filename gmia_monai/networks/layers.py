"""Building blocks of StyleGAN2 in plain PyTorch operators: equalised learning rate, modulation, bilinear resampling.

Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", CVPR 2020, sections 2-4. Modulation scales the
activations and leaves one kernel for the whole batch, which is the same function as per-image kernels (their eq. 1-3)
and keeps batched latent optimisation cheap. The FIR filter [1, 3, 3, 1] at factor two is bilinear resampling.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "EqualConv2d",
    "EqualLinear",
    "ModulatedConv2d",
    "at_least_float32",
    "bilinear_down",
    "bilinear_up",
    "scaled_leaky_relu",
    "upsampling_conv",
]


def at_least_float32(x: Tensor) -> Tensor:
    """Leaves float32 and float64 as they are and raises the half precisions to float32."""
    return x.float() if x.dtype == torch.float16 or x.dtype == torch.bfloat16 else x


def scaled_leaky_relu(x: Tensor) -> Tensor:
    """Leaky ReLU with slope 0.2 and gain sqrt(2), which keeps the second moment of its input."""
    return F.leaky_relu(x, 0.2) * 1.4142135623730951


def _fir(x: Tensor, gain: float) -> Tensor:
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=x.dtype, device=x.device) / 8.0
    return (taps[:, None] * taps[None, :] * gain).expand(x.shape[1], 1, 4, 4)


def bilinear_down(x: Tensor) -> Tensor:
    """Halves rows and columns of ``[b, c, h, w]`` with the antialiased bilinear kernel, zero beyond the border."""
    # A depthwise convolution, for it is faster on a CPU than interpolate(antialias=True).
    return F.conv2d(x, _fir(x, 1.0), stride=2, padding=1, groups=x.shape[1])


def bilinear_up(x: Tensor) -> Tensor:
    """Doubles rows and columns of ``[b, c, h, w]``."""
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def upsampling_conv(x: Tensor, weight: Tensor) -> Tensor:
    """Bilinear doubling followed by a 3 x 3 convolution, at the cost of a convolution at the lower resolution.

    A strided transposed convolution inserts the zeros, and the FIR filter then interpolates; both are linear, so that
    away from the border the order makes no difference.

    Args:
        x: ``[b, c_in, h, w]``.
        weight: ``[c_out, c_in, 3, 3]``.

    Returns:
        ``[b, c_out, 2 h, 2 w]``.
    """
    x = F.conv_transpose2d(x, weight.transpose(0, 1).flip([2, 3]), stride=2)
    return F.conv2d(x, _fir(x, 4.0), padding=1, groups=x.shape[1])


class EqualLinear(nn.Module):
    """Linear layer with equalised learning rate.

    Args:
        in_features: length of the input.
        out_features: length of the output.
        bias_init: value that the bias starts with.
        lr_mult: factor on the learning rate of this layer.
        activate: whether :func:`scaled_leaky_relu` follows.
    """

    def __init__(
        self, in_features: int, out_features: int, bias_init: float = 0.0, lr_mult: float = 1.0, activate: bool = False
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_mult)
        self.bias = nn.Parameter(torch.full((out_features,), bias_init / lr_mult))
        self.weight_gain = lr_mult / math.sqrt(in_features)
        self.bias_gain = lr_mult
        self.activate = activate

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``[b, in_features]`` to ``[b, out_features]``."""
        x = F.linear(x, self.weight * self.weight_gain, self.bias * self.bias_gain)
        return scaled_leaky_relu(x) if self.activate else x


class EqualConv2d(nn.Module):
    """Convolution with equalised learning rate and "same" padding; optionally halves the resolution first.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: odd side of the kernel, in pixels.
        bias: whether a bias is added.
        down: halve rows and columns (bilinear) before the convolution.
        activate: whether :func:`scaled_leaky_relu` follows.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        bias: bool = True,
        down: bool = False,
        activate: bool = False,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.weight_gain = 1.0 / math.sqrt(in_channels * kernel_size**2)
        self.padding = kernel_size // 2
        self.down = down
        self.activate = activate

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``[b, in_channels, h, w]`` to ``[b, out_channels, h, w]`` (half of both with ``down``)."""
        if self.down:
            x = bilinear_down(x)
        x = F.conv2d(x, self.weight * self.weight_gain, self.bias, padding=self.padding)
        return scaled_leaky_relu(x) if self.activate else x


class ModulatedConv2d(nn.Module):
    """Convolution whose input channels are scaled by a style, with demodulation of its output.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: odd side of the kernel, in pixels.
        latent_dim: length of the latent code that the style is an affine function of.
        demodulate: divide each output channel by the expected norm of its modulated kernel.
        up: double rows and columns (bilinear) before the convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        latent_dim: int,
        demodulate: bool = True,
        up: bool = False,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.affine = EqualLinear(latent_dim, in_channels, bias_init=1.0)
        self.demodulate = demodulate
        self.up = up
        self.padding = kernel_size // 2
        # Demodulation cancels any gain on the kernel, so that only ToRGB needs the equalised learning rate.
        self.style_gain = 1.0 if demodulate else 1.0 / math.sqrt(in_channels * kernel_size**2)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Maps ``[b, in_channels, h, w]`` and codes ``[b, latent_dim]`` to ``[b, out_channels, h, w]``."""
        style = self.affine(w) * self.style_gain
        x = x * style[:, :, None, None].to(x.dtype)
        x = upsampling_conv(x, self.weight) if self.up else F.conv2d(x, self.weight, padding=self.padding)
        if self.demodulate:
            # A sum of products, not a matrix product, which autocast would take to bfloat16.
            squares = at_least_float32(self.weight).square().sum(dim=(2, 3))
            energy = (at_least_float32(style).square().unsqueeze(1) * squares).sum(dim=2)
            x = x * torch.rsqrt(energy + 1e-8)[:, :, None, None].to(x.dtype)
        return x
