"""AutocastInferer: bfloat16 inside, float32 outside, and nothing at all when it is off."""

from __future__ import annotations

import torch
from torch import nn

from gmia_monai.inferers import AutocastInferer


class _Recorder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 4)
        self.seen: torch.dtype | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.linear(x)
        self.seen = y.dtype
        return y


def test_runs_in_bfloat16_and_gives_float32():
    net, x = _Recorder(), torch.randn(3, 8)
    y = AutocastInferer()(x, net)
    assert net.seen == torch.bfloat16
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, net.linear(x), atol=0.05, rtol=0.05)
    y.sum().backward()
    assert net.linear.weight.grad.dtype == torch.float32


def test_off_is_the_network_itself():
    net, x = _Recorder(), torch.randn(3, 8)
    y = AutocastInferer(enabled=False)(x, net)
    assert net.seen == torch.float32
    assert torch.equal(y, net.linear(x))
