"""Gradients are clipped, and left out where they are not finite."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from torch import Tensor, nn

from gmia_monai.errors import ResourceError
from gmia_monai.handlers import GradientHandler


def _train(batches: list[float], seen: list[float] | None = None, **kwargs: Any) -> nn.Module:
    """Gradient descent on ``weight * x`` with batch ``x``: the gradient is ``x``."""
    net = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(net.weight)
    trainer = SupervisedTrainer(
        "cpu",
        1,
        [{"image": torch.tensor([[x]]), "label": torch.zeros(1, 1)} for x in batches],
        net,
        torch.optim.SGD(net.parameters(), lr=1.0, momentum=0.5),
        lambda pred, _: pred,
        train_handlers=[GradientHandler([net], **kwargs)],
        decollate=False,
    )
    if seen is not None:
        trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda _: seen.append(net.weight.item()))
    trainer.run()
    return net


@pytest.mark.parametrize("max_norm, step", [(None, -3.0), (0.0, -3.0), (5.0, -3.0), (2.0, -2.0)])
def test_gradients_are_clipped_to_the_norm(max_norm: float | None, step: float):
    assert _train([3.0], max_norm=max_norm).weight.item() == pytest.approx(step, rel=1e-5)


def test_an_update_that_is_not_finite_moves_neither_weights_nor_momentum():
    seen: list[float] = []
    _train([2.0, float("nan"), float("inf"), 2.0], seen)
    assert seen == pytest.approx([-2.0, -2.0, -2.0, -5.0])  # the last step is 2 + 0.5 * 2


def test_many_in_a_row_stop_the_training():
    nan = float("nan")
    _train([nan, nan, 1.0, nan, nan], max_skipped=3)
    with pytest.raises(ResourceError, match="GM-R030"):
        _train([1.0, nan, nan, nan], max_skipped=3)


def test_modules_are_clipped_one_by_one():
    a, b = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    a.weight.grad, b.weight.grad = torch.tensor([[30.0]]), torch.tensor([[0.5]])
    GradientHandler([a, b], max_norm=3.0)(_Engine())
    grads: list[Tensor] = [a.weight.grad, b.weight.grad]
    assert [g.item() for g in grads] == pytest.approx([3.0, 0.5], rel=1e-5)


class _Engine:
    amp = False
