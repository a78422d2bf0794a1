"""Inferer of auto-encoders: the reconstruction, within the range of images."""

from __future__ import annotations

from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor, nn

__all__ = ["ReconstructionInferer"]


class ReconstructionInferer(Inferer):
    """Calls the network and clamps its output to [0, 1]."""

    def __call__(self, inputs: Tensor, network: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        """Maps ``[b, 1, h, w]`` in [0, 1] to the same."""
        return torch.clamp(network(inputs, *args, **kwargs), 0.0, 1.0)
