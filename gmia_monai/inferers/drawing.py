"""Inferer of generators: drawn images in the place of a reconstruction."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gmia_monai.inferers.repeating import RepeatingInferer
from gmia_monai.networks.generator import MappedGenerator

__all__ = ["DrawingInferer"]


class DrawingInferer(RepeatingInferer):
    """Draws as many images as the batch holds, the same ones in each validation.

    Args:
        seed: of the noise.
    """

    def __call__(self, inputs: Tensor, network: MappedGenerator, *args: Any, **kwargs: Any) -> Tensor:
        """Images in [0, 1], of the shape of ``inputs``."""
        generator = torch.Generator().manual_seed(self._next_seed())
        z = torch.randn(len(inputs), network.latent_dim, generator=generator).to(inputs.device)
        return torch.clamp(network(z), 0.0, 1.0)
