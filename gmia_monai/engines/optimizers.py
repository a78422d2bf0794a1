"""Adam for lazy regularisation, and the averaging of gradients over processes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist
from torch import nn

from gmia_monai.errors import UsageError

__all__ = ["average_gradients", "broadcast_parameters", "lazy_adam", "make_optimizer", "warm_up_decay"]


def lazy_adam(
    params: Iterable[nn.Parameter],
    lr: float = 0.0025,
    betas: tuple[float, float] = (0.0, 0.99),
    eps: float = 1e-8,
    interval: int = 1,
) -> torch.optim.Adam:
    """Adam corrected for a regulariser that takes a step of its own every ``interval`` steps.

    Learning rate and betas go to ``c lr`` and ``betas ** c`` with ``c = k / (k + 1)`` (Karras et al., CVPR 2020,
    appendix B). ``interval`` 1 means no regulariser and no correction.
    """
    c = interval / (interval + 1) if interval > 1 else 1.0
    return torch.optim.Adam(
        (p for p in params if p.requires_grad),
        lr=lr * c,
        betas=(float(betas[0]) ** c, float(betas[1]) ** c),
        eps=eps,
    )


def make_optimizer(
    modules: Sequence[nn.Module], name: str = "AdamW", lr: float = 1e-3, weight_decay: float = 0.0
) -> torch.optim.Optimizer:
    """SGD (momentum 0.9), Adam or AdamW over several modules, without decay for biases and normalisation layers.

    Raises:
        UsageError: ``GM-U043`` for another name.
    """
    if name not in ("SGD", "Adam", "AdamW"):
        raise UsageError("GM-U043", "unknown optimizer", got=name, expected="SGD, Adam or AdamW")
    params = [p for module in modules for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in params if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in params if p.ndim <= 1], "weight_decay": 0.0},
    ]
    extra = {"momentum": 0.9} if name == "SGD" else {}
    return getattr(torch.optim, name)(groups, lr=lr, **extra)


def warm_up_decay(
    optimizer: torch.optim.Optimizer, total_steps: int, warm_up: float = 0.1, flat: float = 0.0, floor: float = 0.0
) -> torch.optim.lr_scheduler.LambdaLR:
    """Linear warm-up, then constant, then cosine decay, stepped every iteration.

    Args:
        optimizer: its learning rate is the highest one.
        total_steps: iterations of the whole run.
        warm_up: share of the run until the highest rate.
        flat: share of the run that stays there.
        floor: last learning rate, as a share of the highest.
    """
    rise = max(1, round(warm_up * total_steps))
    start = rise + round(flat * total_steps)

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        done = min(1.0, max(0, step - start) / max(1, total_steps - start))
        return floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * done))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def average_gradients(params: Iterable[nn.Parameter]) -> None:
    """Averages ``.grad`` over the processes of the default group; does nothing in a single process.

    DistributedDataParallel hooks into one backward pass a forward; here one backward follows several networks and
    second-order terms, so the gradients are averaged by hand, as one flat tensor.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return
    with_grad = [p for p in params if p.grad is not None]
    flat = torch.cat([p.grad.flatten() for p in with_grad])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    offset = 0
    for p in with_grad:
        p.grad.copy_(flat[offset : offset + p.numel()].view_as(p))
        offset += p.numel()


def broadcast_parameters(modules: Iterable[nn.Module]) -> None:
    """Gives every process the parameters and buffers of process 0; does nothing in a single process."""
    if not (dist.is_available() and dist.is_initialized()):
        return
    for module in modules:
        for tensor in (*module.parameters(), *module.buffers()):
            dist.broadcast(tensor.data, src=0)
