"""Inferer of latent diffusion in validation: reconstructions in the first stage, drawn images in the second."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gmia_monai.inferers.repeating import RepeatingInferer
from gmia_monai.networks.latent_diffusion import LatentDiffusionNet
from gmia_monai.networks.layers import at_least_float32

__all__ = ["LatentSamplingInferer"]


class LatentSamplingInferer(RepeatingInferer):
    """Draws an image for the findings of each image of the batch, the same ones in each validation.

    Args:
        stage: ``autoencoder`` reconstructs instead.
        guidance: weight of the condition, see :meth:`gmia_monai.networks.latent_diffusion.LatentDiffusionNet.sample`.
        n_steps: steps of denoising.
        seed: of the noise.
        bfloat16: autocast.
    """

    def __init__(
        self, stage: str = "diffusion", guidance: float = 1.0, n_steps: int = 25, seed: int = 0, bfloat16: bool = False
    ) -> None:
        super().__init__(seed)
        self.stage = stage
        self.guidance = guidance
        self.n_steps = n_steps
        self.bfloat16 = bfloat16

    def __call__(
        self, inputs: Tensor, network: LatentDiffusionNet, *args: Any, labels: Tensor, **kwargs: Any
    ) -> Tensor:
        """Images in [0, 1], of the shape of ``inputs``, for findings ``[b, k]``."""
        with torch.autocast(inputs.device.type, dtype=torch.bfloat16, enabled=self.bfloat16):
            if self.stage == "autoencoder":
                return at_least_float32(network.reconstruct(inputs))
            first = self._next_seed(len(inputs))
            return network.sample(labels.float(), range(first, first + len(inputs)), self.guidance, self.n_steps)
