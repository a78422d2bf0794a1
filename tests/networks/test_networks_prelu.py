"""PReLU beside PyTorch's own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gmia_monai.networks.prelu import PReLU


def _gradients(module: nn.Module, x: Tensor, upstream: Tensor, autocast: bool) -> tuple[Tensor, Tensor, Tensor]:
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = module(x)
    module.zero_grad()
    y.backward(upstream.to(y.dtype))
    assert x.grad is not None
    assert module.weight.grad is not None
    return y.detach(), x.grad, module.weight.grad


def _pair(channels: int) -> tuple[PReLU, nn.PReLU]:
    ours, theirs = PReLU(channels), nn.PReLU(channels)
    with torch.no_grad():
        theirs.weight.copy_(torch.linspace(-0.5, 1.5, channels))
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", [(3, 5), (3, 5, 4), (2, 5, 4, 6)])
def test_value_and_gradients_are_those_of_pytorch(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    ours, theirs = _pair(5)
    ours, theirs = (ours.double(), theirs.double()) if dtype == torch.float64 else (ours, theirs)
    x, upstream = torch.randn(shape, dtype=dtype), torch.randn(shape, dtype=dtype)
    x.view(-1)[::7] = 0.0  # where the slope jumps
    autocast = dtype == torch.bfloat16
    (y, gx, gw), (y0, gx0, gw0) = _gradients(ours, x, upstream, autocast), _gradients(theirs, x, upstream, autocast)
    assert y.dtype == y0.dtype
    assert torch.equal(y, y0)
    assert torch.equal(gx, gx0)
    torch.testing.assert_close(gw, gw0, atol=0.05 if autocast else 1e-5, rtol=0.02 if autocast else 1e-5)


def test_numerical_gradient() -> None:
    torch.manual_seed(1)
    ours = _pair(3)[0].double()
    x = torch.randn(2, 3, 4, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x, w: torch.func.functional_call(ours, {"weight": w}, x), (x, ours.weight.detach().requires_grad_())
    )


def test_memory_format_is_kept_and_frozen_slopes_get_no_gradient() -> None:
    ours = _pair(4)[0].requires_grad_(False)
    x = torch.randn(2, 4, 3, 3).to(memory_format=torch.channels_last).requires_grad_()
    y = ours(x)
    assert y.is_contiguous(memory_format=torch.channels_last)
    y.square().sum().backward()
    assert x.grad is not None
    assert ours.weight.grad is None


def test_script_and_trace_are_pytorch_s() -> None:
    ours, theirs = _pair(4)
    x = torch.randn(2, 4, 3, 3)
    for exported in (torch.jit.script(ours), torch.jit.trace(ours, x)):
        assert "prelu" in str(exported.inlined_graph)
        assert torch.equal(exported(x), theirs(x))
