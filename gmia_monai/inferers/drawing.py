"""Inferer of generators: drawn images in the place of a reconstruction."""

from __future__ import annotations

from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.inferers import Inferer
from torch import Tensor

from gmia_monai.networks.generator import MappedGenerator

__all__ = ["DrawingInferer"]


class DrawingInferer(Inferer):
    """Draws as many images as the batch holds, the same ones in each validation.

    Args:
        seed: of the noise.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed
        self._number = 0

    def attach(self, engine: Engine) -> None:
        """Lets each run of an evaluator begin with the same noise."""
        engine.add_event_handler(Events.STARTED, self._restart)

    def _restart(self, engine: Engine) -> None:
        self._number = 0

    def __call__(self, inputs: Tensor, network: MappedGenerator, *args: Any, **kwargs: Any) -> Tensor:
        """Images in [0, 1], of the shape of ``inputs``."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self._number)
        self._number += 1
        z = torch.randn(len(inputs), network.latent_dim, generator=generator).to(inputs.device)
        return torch.clamp(network(z), 0.0, 1.0)
