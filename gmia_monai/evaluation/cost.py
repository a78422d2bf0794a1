"""What a system costs: seconds and floating-point operations a released image, measured on real images."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from gmia_monai.anonymizers.base import Anonymizer
from gmia_monai.data.release import RealImages
from gmia_monai.metrics.results import Result, RunContext

__all__ = ["COST", "cost_lines"]

COST = "cost"  # its name among the attacks
_MIB = 1024.0**2


def cost_lines(anonymizer: Anonymizer, real: RealImages, context: RunContext, device: str = "cpu") -> list[Result]:
    """Two lines, ``cost_seconds_per_image.v1`` and ``cost_gflop_per_image.v1``.

    Operations are counted first, without compiling, which warms up as well; then, where the system compiles, it runs
    once more unseen; then it is timed. Nothing is taken from finished units. Operations are those of matrix products,
    convolutions and attention, forwards and backwards, two a multiply-add; what a network does not compute is not
    counted. Of k images to one, and of generated ones, the cost is that of an image that leaves. ``extra`` holds
    threads, images worked on together, and, on a GPU, MiB of memory beyond what was in use before; beside these what
    the system says of itself: policy, description, figures of its own such as the epsilon of a whole image.

    Args:
        anonymizer: the system.
        real: what it anonymizes.
        context: of the lines.
        device: where its networks run.
    """
    counter = _Operations()
    with torch.compiler.set_stance("force_eager"), counter:
        released = anonymizer.anonymize(real)
    settings = getattr(anonymizer, "settings", None) or {}
    if settings.get("compiled"):
        anonymizer.anonymize(real)
    with _peak_memory(device) as peak:
        _wait(device)
        started = time.perf_counter()
        anonymizer.anonymize(real)
        _wait(device)
        seconds = time.perf_counter() - started
    n = max(1, len(released))
    facts = {
        "threads": torch.get_num_threads(),
        "batch": getattr(anonymizer, "unit_size", None),
        "device": torch.device(device).type,
        "n_real": len(real),
        "policy": anonymizer.policy,
        "description": getattr(anonymizer, "description", ""),
    }
    figures = getattr(anonymizer, "figures_of", None)  # of systems that have some of their own
    facts |= {} if figures is None else dict(figures(real))
    shared = {"n_patients": len(real.cohort.patients), "n_images": len(released)}
    memory = {} if not peak else {"peak_memory_mib": round(peak[0], 1)}
    return [
        context.result("cost_seconds_per_image.v1", seconds / n, **shared, extra=facts | memory),
        context.result("cost_gflop_per_image.v1", counter.total / n / 1e9, **shared, extra=facts),
    ]


class _Operations(TorchDispatchMode):
    """Counts floating-point operations by torch's own formulas.

    Torch's counter also follows the modules that they belong to, by hooks that fail under ``torch.autograd.grad``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        formula = flop_registry.get(func._overloadpacket)
        if formula is None and func is not torch.ops.prim.device.default:
            with self:
                found = func.decompose(*args, **kwargs)
            if found is not NotImplemented:
                return found
        found = func(*args, **kwargs)
        if formula is not None:
            self.total += formula(*args, **kwargs, out_val=found)
        return found


def _wait(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


@contextlib.contextmanager
def _peak_memory(device: str) -> Iterator[list[float]]:
    """Gives a list that holds, after the block, the MiB by which a GPU's memory grew at most; empty on a CPU, where
    allocators keep what was freed, so that nobody can tell."""
    found: list[float] = []
    if torch.device(device).type != "cuda":
        yield found
        return
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    yield found
    found.append((torch.cuda.max_memory_allocated(device) - before) / _MIB)
