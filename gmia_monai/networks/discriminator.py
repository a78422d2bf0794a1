"""Residual StyleGAN2 trunk, the discriminator on it, and the encoder that mirrors it.

Discriminator: Karras et al., CVPR 2020, figure 7 ("residual nets") with the minibatch deviation of Karras et al.,
ICLR 2018, section 3. Encoder: the same trunk without minibatch deviation and without the last linear layer, as in GMIA
(Li et al., ISBI 2025), so that its output coordinates are leaky-ReLU values like those of a StyleGAN2 mapping network.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from gmia_monai.networks.layers import EqualConv2d, EqualLinear, at_least_float32
from gmia_monai.networks.synthesis import channels_at, check_image_size

__all__ = ["Discriminator", "Encoder", "minibatch_deviation"]


def minibatch_deviation(x: Tensor, group_size: int = 4) -> Tensor:
    """Appends one channel: the standard deviation within groups of the batch, averaged over channels and pixels.

    Args:
        x: ``[b, c, h, w]``. Image ``i`` belongs to group ``i mod (b / g)``.
        group_size: images a group, ``g``; the largest divisor of ``b`` not above it is taken.

    Returns:
        ``[b, c + 1, h, w]``.
    """
    b, c, h, w = x.shape
    g = min(group_size, b)
    while b % g != 0:
        g -= 1
    y = at_least_float32(x).reshape(g, b // g, c, h, w)
    y = y - y.mean(dim=0, keepdim=True)
    y = (y.square().mean(dim=0) + 1e-8).sqrt().mean(dim=[1, 2, 3])
    y = y.repeat(g).reshape(b, 1, 1, 1).expand(-1, -1, h, w)
    return torch.cat([x, y.to(x.dtype)], dim=1)


class _ResidualBlock(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv0 = EqualConv2d(in_channels, in_channels, 3, activate=True)
        self.conv1 = EqualConv2d(in_channels, out_channels, 3, down=True, activate=True)
        self.skip = EqualConv2d(in_channels, out_channels, 1, bias=False, down=True)

    def forward(self, x: Tensor) -> Tensor:
        return (self.conv1(self.conv0(x)) + self.skip(x)) * math.sqrt(0.5)


class _Trunk(nn.Module):
    """From grey, then residual blocks down to 4 x 4."""

    def __init__(self, image_size: int, channel_base: int, channel_max: int) -> None:
        super().__init__()
        log_size = check_image_size(image_size)
        channels = [channels_at(2**k, channel_base, channel_max) for k in range(log_size, 1, -1)]
        self.from_grey = EqualConv2d(1, channels[0], 1, activate=True)
        self.blocks = nn.Sequential(*(_ResidualBlock(a, b) for a, b in zip(channels, channels[1:], strict=False)))
        self.out_channels = channels[-1]

    def forward(self, x: Tensor) -> Tensor:
        # [0, 1] to about zero mean and unit variance, where equalised learning rates expect their input.
        return self.blocks(self.from_grey((x - 0.5) * 4.0))


class Encoder(nn.Module):
    """Maps radiographs to codes in W.

    Args:
        image_size: rows and columns of the image: a power of two from 32 to 1024.
        latent_dim: length of a code.
        channel_base: channels at resolution r are ``min(channel_base / r, channel_max)``.
        channel_max: upper limit of the channels.

    Raises:
        UsageError: ``GM-U010`` for an image size that is not supported.
    """

    def __init__(
        self, image_size: int, latent_dim: int = 512, channel_base: int = 16384, channel_max: int = 512
    ) -> None:
        super().__init__()
        self.trunk = _Trunk(image_size, channel_base, channel_max)
        c = self.trunk.out_channels
        self.conv = EqualConv2d(c, c, 3, activate=True)
        self.fc = EqualLinear(c * 16, latent_dim, activate=True)

    def forward(self, image: Tensor) -> Tensor:
        """Maps ``[b, 1, image_size, image_size]`` in [0, 1] to ``[b, latent_dim]``."""
        return at_least_float32(self.fc(self.conv(self.trunk(image)).flatten(1)))


class Discriminator(nn.Module):
    """Scores radiographs: high for real ones.

    Args:
        image_size: rows and columns of the image: a power of two from 32 to 1024.
        channel_base: channels at resolution r are ``min(channel_base / r, channel_max)``.
        channel_max: upper limit of the channels.
        group_size: images a group of the minibatch deviation.

    Raises:
        UsageError: ``GM-U010`` for an image size that is not supported.
    """

    def __init__(self, image_size: int, channel_base: int = 16384, channel_max: int = 512, group_size: int = 4) -> None:
        super().__init__()
        self.trunk = _Trunk(image_size, channel_base, channel_max)
        c = self.trunk.out_channels
        self.group_size = group_size
        self.conv = EqualConv2d(c + 1, c, 3, activate=True)
        self.fc = EqualLinear(c * 16, c, activate=True)
        self.out = EqualLinear(c, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Maps ``[b, 1, image_size, image_size]`` to logits ``[b, 1]``."""
        x = minibatch_deviation(self.trunk(image), self.group_size)
        return at_least_float32(self.out(self.fc(self.conv(x).flatten(1))))
