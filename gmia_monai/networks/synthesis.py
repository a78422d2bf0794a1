"""StyleGAN2 synthesis network with skip connections, for one-channel images.

Karras et al., CVPR 2020, figure 7 ("output skips"). A code in W is broadcast to all layers; in W+ each has its own.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from gmia_monai.errors import UsageError
from gmia_monai.networks.layers import ModulatedConv2d, at_least_float32, bilinear_up, scaled_leaky_relu

__all__ = ["SynthesisNetwork", "channels_at", "check_image_size"]


def check_image_size(image_size: int) -> int:
    """Returns ``log2(image_size)``; raises :class:`UsageError` unless it is a power of two from 32 to 1024."""
    if image_size not in (32, 64, 128, 256, 512, 1024):
        raise UsageError(
            "GM-U010", "unsupported image size", got=image_size, expected="a power of two from 32 to 1024, in pixels"
        )
    return int(math.log2(image_size))


def channels_at(resolution: int, channel_base: int, channel_max: int) -> int:
    """Feature maps at a resolution: ``min(channel_base / resolution, channel_max)``."""
    channels = min(channel_base // resolution, channel_max)
    if channels < 1:
        raise UsageError(
            "GM-U012",
            f"no channels left at {resolution} px",
            got=f"channel_base {channel_base}, channel_max {channel_max}",
            expected=f"channel_base of at least {resolution}",
        )
    return channels


class _StyleLayer(nn.Module):
    """Modulated convolution, noise, bias, leaky ReLU."""

    def __init__(self, in_channels: int, out_channels: int, latent_dim: int, resolution: int, up: bool) -> None:
        super().__init__()
        self.conv = ModulatedConv2d(in_channels, out_channels, 3, latent_dim, up=up)
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise_const", torch.randn(1, 1, resolution, resolution))

    def forward(self, x: Tensor, w: Tensor, noise_mode: str) -> Tensor:
        x = self.conv(x, w)
        if noise_mode == "const":
            x = x + (self.noise_const * self.noise_strength).to(x.dtype)
        elif noise_mode == "random":
            noise = torch.randn([x.shape[0], 1, x.shape[2], x.shape[3]], device=x.device, dtype=x.dtype)
            x = x + noise * self.noise_strength.to(x.dtype)
        return scaled_leaky_relu(x + self.bias[None, :, None, None].to(x.dtype))


class _ToGrey(nn.Module):
    """1 x 1 modulated convolution to one channel; not demodulated."""

    def __init__(self, in_channels: int, latent_dim: int) -> None:
        super().__init__()
        self.conv = ModulatedConv2d(in_channels, 1, 1, latent_dim, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        # The skip sum is kept in float32: bfloat16 would quantise the image to eight bits at every resolution.
        return at_least_float32(self.conv(x, w)) + self.bias


class _SynthesisBlock(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, latent_dim: int, resolution: int) -> None:
        super().__init__()
        self.conv0 = _StyleLayer(in_channels, out_channels, latent_dim, resolution, up=True)
        self.conv1 = _StyleLayer(out_channels, out_channels, latent_dim, resolution, up=False)
        self.to_grey = _ToGrey(out_channels, latent_dim)

    def forward(
        self, x: Tensor, image: Tensor, w0: Tensor, w1: Tensor, w2: Tensor, noise_mode: str
    ) -> tuple[Tensor, Tensor]:
        x = self.conv1(self.conv0(x, w0, noise_mode), w1, noise_mode)
        return x, bilinear_up(image) + self.to_grey(x, w2)


class SynthesisNetwork(nn.Module):
    """Maps latent codes to radiographs.

    Args:
        image_size: rows and columns of the image: a power of two from 32 to 1024.
        latent_dim: length of a code in W.
        channel_base: channels at resolution r are ``min(channel_base / r, channel_max)``.
        channel_max: upper limit of the channels.

    Raises:
        UsageError: ``GM-U010`` for an image size that is not supported.
    """

    def __init__(
        self, image_size: int, latent_dim: int = 512, channel_base: int = 16384, channel_max: int = 512
    ) -> None:
        super().__init__()
        log_size = check_image_size(image_size)
        self.image_size = image_size
        self.latent_dim = latent_dim
        self.n_layers = 2 * log_size - 2
        channels = [channels_at(2**k, channel_base, channel_max) for k in range(2, log_size + 1)]
        self.const = nn.Parameter(torch.randn(channels[0], 4, 4))
        self.conv4 = _StyleLayer(channels[0], channels[0], latent_dim, 4, up=False)
        self.to_grey4 = _ToGrey(channels[0], latent_dim)
        self.blocks = nn.ModuleList(
            _SynthesisBlock(channels[k], channels[k + 1], latent_dim, 2 ** (k + 3)) for k in range(len(channels) - 1)
        )

    def forward(self, ws: Tensor, noise_mode: str = "const") -> Tensor:
        """Synthesises images.

        Args:
            ws: ``[b, latent_dim]`` (W, broadcast to all layers) or ``[b, n_layers, latent_dim]`` (W+).
            noise_mode: ``const`` (fixed noise buffers), ``random`` (fresh noise) or ``none``.

        Returns:
            ``[b, 1, image_size, image_size]``, nominally in [0, 1], not clamped.

        Raises:
            ValueError: for another noise mode, or codes of another number of layers.
        """
        if noise_mode != "const" and noise_mode != "random" and noise_mode != "none":
            raise ValueError("noise_mode must be const, random or none")
        if ws.dim() == 2:
            ws = ws.unsqueeze(1).expand(-1, self.n_layers, -1)
        if ws.shape[1] != self.n_layers:
            raise ValueError("W+ needs one code for each layer")
        x = self.const.unsqueeze(0).expand(ws.shape[0], -1, -1, -1)
        x = self.conv4(x, ws[:, 0], noise_mode)
        image = self.to_grey4(x, ws[:, 1])
        layer = 1
        for block in self.blocks:
            x, image = block(x, image, ws[:, layer], ws[:, layer + 1], ws[:, layer + 2], noise_mode)
            layer += 2
        # Radiographs have a mean near 0.5 and a standard deviation near 0.25; starting there saves the first epochs.
        return 0.5 + 0.25 * image
