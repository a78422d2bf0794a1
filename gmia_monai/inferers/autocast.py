"""Forward pass in bfloat16, on a CPU as on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor

from gmia_monai.networks.layers import at_least_float32

__all__ = ["AutocastInferer", "computes_bfloat16"]


class AutocastInferer(Inferer):
    """Calls the network under bfloat16 autocast, and gives float32.

    MONAI's engines autocast on CUDA only, and to float16 with a gradient scaler; bfloat16 needs none, and is
    faster on a CPU that has it, too.

    Args:
        enabled: without it the network runs in its own precision.
    """

    def __init__(self, enabled: bool = True) -> None:
        super().__init__()
        self.enabled = enabled

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """Calls ``network(inputs)``."""
        with torch.autocast(inputs.device.type, dtype=torch.bfloat16, enabled=self.enabled):
            output = network(inputs, *args, **kwargs)
        return at_least_float32(output)


def computes_bfloat16(device: str) -> bool:
    """Whether the device multiplies in bfloat16; emulated, it would be slower than float32.

    Args:
        device: with or without a number.
    """
    kind = torch.device(device).type
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return kind == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())
