"""PReLU with a backward pass made of a few whole-tensor operations.

PyTorch's own backward of one slope a channel takes several times longer on a processor than its forward
(``scripts/benchmark_prelu.py``), which is a fifth of a step of the identity encoders. Values and gradients of the image
are the same bit for bit; the slopes' gradients are summed in another order.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["PReLU"]


class _ChannelPReLU(torch.autograd.Function):
    """One slope a channel, the second axis."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(x, slope)
        return F.prelu(x, slope)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, slope = ctx.saved_tensors
        above = torch.ops.aten.threshold_backward(grad, x, 0)
        below = grad - above
        of_slope = None
        if ctx.needs_input_grad[1]:
            others = [d for d in range(x.ndim) if d != 1]
            of_slope = (below * x).sum(others, dtype=torch.float32).to(slope.dtype)
        return above + below * slope.view(1, -1, *[1] * (x.ndim - 2)), of_slope


class PReLU(nn.PReLU):
    """:class:`torch.nn.PReLU` of one slope a channel, with its names and weights; faster backward on a processor.

    Exported, compiled and on other devices it is PyTorch's own. Not differentiable twice on a processor.
    """

    def forward(self, x: Tensor) -> Tensor:
        """``max(0, x) + slope * min(0, x)``, ``[b, c, ...]``."""
        if torch.jit.is_scripting():
            return F.prelu(x, self.weight)
        return _forward(x, self.weight)


@torch.jit.unused
def _forward(x: Tensor, weight: Tensor) -> Tensor:
    plain = torch.compiler.is_compiling() or torch.jit.is_tracing() or torch.onnx.is_in_onnx_export()
    if plain or x.device.type != "cpu" or x.ndim < 2:
        return F.prelu(x, weight)
    # What autocast does for the function that PyTorch knows.
    return _ChannelPReLU.apply(x, weight.to(x.dtype))
