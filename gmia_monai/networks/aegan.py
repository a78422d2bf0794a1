"""AE-GAN: the co-trained encoder and StyleGAN2 synthesis network of GMIA (Li et al., ISBI 2025, section 2.1)."""

from __future__ import annotations

from torch import Tensor, nn

from gmia_monai.networks.discriminator import Encoder
from gmia_monai.networks.synthesis import SynthesisNetwork

__all__ = ["AEGAN"]


class AEGAN(nn.Module):
    """Auto-encoder of radiographs through one latent code in W.

    Args:
        image_size: rows and columns of the image: a power of two from 32 to 1024.
        latent_dim: length of a code in W.
        channel_base: channels at resolution r are ``min(channel_base / r, channel_max)``; 16384 at 256 px in the paper.
        channel_max: upper limit of the channels.

    Raises:
        UsageError: ``GM-U010`` for an image size that is not supported.
    """

    def __init__(
        self, image_size: int, latent_dim: int = 512, channel_base: int = 16384, channel_max: int = 512
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.latent_dim = latent_dim
        self.encoder = Encoder(image_size, latent_dim, channel_base, channel_max)
        self.synthesis = SynthesisNetwork(image_size, latent_dim, channel_base, channel_max)

    def forward(self, image: Tensor) -> Tensor:
        """Reconstructs ``[b, 1, image_size, image_size]``: values nominally in [0, 1], not clamped."""
        return self.synthesis(self.encoder(image))
