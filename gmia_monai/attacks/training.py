"""The training loop that attacks share: AdamW, a warm-up and a cosine, the best network by a validation figure."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from gmia_monai.inferers.autocast import computes_bfloat16

__all__ = ["Schedule", "train"]

_log = logging.getLogger(__name__)
_WARM_UP = 0.1
_MAX_NORM = 5.0


@dataclass(frozen=True)
class Schedule:
    """How long and how fast a network is trained.

    Attributes:
        steps: updates.
        lr: highest learning rate; rises for a tenth of the steps, then falls by a cosine.
        weight_decay: of AdamW, for tensors with more than one axis.
        validate_every: updates between two validations.
        bfloat16: mixed precision where the device computes it faster; without effect elsewhere.
    """

    steps: int = 600
    lr: float = 5e-4
    weight_decay: float = 0.05
    validate_every: int = 100
    bfloat16: bool = True

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        rise = max(1, round(self.steps * _WARM_UP))
        if step < rise:
            return self.lr * (step + 1) / rise
        return self.lr * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, self.steps - rise)))


def train(
    module: nn.Module,
    loss_of: Callable[[np.random.Generator], Tensor],
    schedule: Schedule,
    seed: int,
    validate: Callable[[], float] | None = None,
    name: str = "training",
) -> None:
    """Trains a module in place; left in eval mode, with the best weights by ``validate``, those of the start included.

    Args:
        module: what is trained.
        loss_of: draws a batch with the generator and gives its loss; torch's own generator is seeded, too.
        schedule: how long and how fast.
        seed: of all draws; the global generator of torch is left as it was.
        validate: a figure that is better when higher, asked in eval mode; None keeps the last weights.
        name: word in the log.
    """
    device = next(module.parameters()).device.type
    trained = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": schedule.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=schedule.lr)
    rng = np.random.default_rng(seed)
    started = time.monotonic()
    best, best_state = -math.inf, None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for step in range(schedule.steps + 1):
            if validate is not None and (step % schedule.validate_every == 0 or step == schedule.steps):
                module.eval()
                figure = validate()
                per_step = (time.monotonic() - started) / max(step, 1)
                left = f", {per_step * (schedule.steps - step):.0f} s left" if step else ""
                _log.info("%s: step %d of %d, validation %.4f%s", name, step, schedule.steps, figure, left)
                if figure > best:
                    best, best_state = figure, copy.deepcopy(module.state_dict())
            if step == schedule.steps:
                break
            for group in optimizer.param_groups:
                group["lr"] = schedule.rate(step)
            module.train()
            with torch.autocast(device, torch.bfloat16, enabled=schedule.bfloat16 and computes_bfloat16(device)):
                loss = loss_of(rng)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, _MAX_NORM)
            optimizer.step()
    if best_state is not None:
        module.load_state_dict(best_state)
    module.eval()
