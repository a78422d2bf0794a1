"""Unconditional StyleGAN2 generator: a mapping network before the synthesis network.

Karras et al., CVPR 2019 (mapping, style mixing, truncation) and CVPR 2020. The auto-encoder of E-training has the
synthesis network of this one, frozen; its mapping gives the codes of people who do not exist.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gmia_monai.networks.layers import EqualLinear
from gmia_monai.networks.synthesis import SynthesisNetwork

__all__ = ["MappedGenerator", "MappingNetwork"]

_W_AVG_BETA = 0.995


class MappingNetwork(nn.Module):
    """Maps normal noise to codes in W.

    Args:
        latent_dim: length of the noise, of a code, and of the layers between them.
        n_layers: fully connected layers; 8 as published, 2 in StyleGAN2-ADA.
        lr_mult: factor on the learning rate of these layers.
    """

    def __init__(self, latent_dim: int = 512, n_layers: int = 8, lr_mult: float = 0.01) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(EqualLinear(latent_dim, latent_dim, lr_mult=lr_mult, activate=True) for _ in range(n_layers))
        )
        self.register_buffer("w_avg", torch.zeros(latent_dim))

    def forward(self, z: Tensor) -> Tensor:
        """Maps ``[b, latent_dim]`` to codes of the same shape; each ``z`` is scaled to unit second moment first."""
        return self.layers(z * torch.rsqrt(z.square().mean(dim=1, keepdim=True) + 1e-8))

    @torch.no_grad()
    def follow(self, w: Tensor) -> None:
        """Takes codes of a training batch into the running mean of W."""
        self.w_avg.lerp_(w.detach().mean(dim=0).to(self.w_avg), 1.0 - _W_AVG_BETA)


class MappedGenerator(nn.Module):
    """Mapping and synthesis: from noise to radiographs.

    Args:
        image_size: rows and columns of the image: a power of two from 32 to 1024.
        latent_dim: length of a code in W.
        channel_base: channels at resolution r are ``min(channel_base / r, channel_max)``.
        channel_max: upper limit of the channels.
        mapping_layers: layers of the mapping network.

    Raises:
        UsageError: ``GM-U010`` for an image size that is not supported.
    """

    def __init__(
        self,
        image_size: int,
        latent_dim: int = 512,
        channel_base: int = 16384,
        channel_max: int = 512,
        mapping_layers: int = 8,
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.latent_dim = latent_dim
        self.mapping = MappingNetwork(latent_dim, mapping_layers)
        self.synthesis = SynthesisNetwork(image_size, latent_dim, channel_base, channel_max)

    def forward(self, z: Tensor) -> Tensor:
        """Draws ``[b, 1, image_size, image_size]`` from ``[b, latent_dim]``; nominally in [0, 1], not clamped."""
        return self.synthesis(self.mapping(z))

    @torch.no_grad()
    def sample_codes(self, n: int, seed: int = 0, truncation: float = 1.0) -> Tensor:
        """Codes of people who do not exist, ``[n, latent_dim]``.

        Args:
            n: number of codes.
            seed: of the noise.
            truncation: how far from the mean of W a code may be, as a factor; 1 leaves it where it is.
        """
        device = self.mapping.w_avg.device
        z = torch.randn(n, self.latent_dim, generator=torch.Generator().manual_seed(seed)).to(device)
        w = self.mapping(z)
        return self.mapping.w_avg + truncation * (w - self.mapping.w_avg)
