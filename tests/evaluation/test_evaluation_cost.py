"""What a system costs: operations counted as by hand, seconds an image that leaves, memory where it can be known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attack_cohorts import SIZE, real_images
from torch import nn

from gmia_monai.anonymizers import ImageAnonymizer, Outcome, Unchanged
from gmia_monai.data.release import Release
from gmia_monai.evaluation import cost
from gmia_monai.evaluation.cost import cost_lines
from gmia_monai.metrics.results import RunContext

CONTEXT = RunContext("x", "cxr32", command="c")


class Blurring(ImageAnonymizer):
    """One convolution, and a backward pass where asked for."""

    def __init__(self, backward: bool = False, compiled: bool = False) -> None:
        super().__init__("x", "x", unit_size=4, settings={"compiled": compiled})
        self.network = nn.Conv2d(1, 3, 5, padding=2, bias=False)
        self.backward = backward
        self.calls = 0

    def anonymize_batch(self, images, seeds):
        self.calls += 1
        images = images.clone().requires_grad_(self.backward)
        found = self.network(images)
        if self.backward:
            torch.autograd.grad(found.square().sum(), images)
        return found[:, :1].sigmoid(), [Outcome()] * len(images)


class OfFour(Unchanged):
    """Four images to one."""

    def anonymize(self, real, seed=0, store=None):
        assert store is None
        sources = tuple(tuple(range(i, i + 4)) for i in range(0, len(real), 4))
        pixels = np.stack([real.pixels[list(s)].mean(0) for s in sources]).astype(np.float32)
        return Release("x", pixels, sources)


def test_operations_are_those_of_the_layers() -> None:
    forward = 2 * 3 * 25 * SIZE**2  # two a multiply-add: output channels, kernel, positions
    real = real_images("t", 4)
    for backward, times in ((False, 1), (True, 2)):  # to the input: as many again
        seconds, operations = cost_lines(Blurring(backward), real, CONTEXT)
        assert operations.name == "cost_gflop_per_image.v1" and seconds.name == "cost_seconds_per_image.v1"
        assert operations.value == pytest.approx(times * forward / 1e9, abs=1e-6)
        assert seconds.value > 0 and seconds.extra["threads"] == torch.get_num_threads()
        assert seconds.extra["batch"] == 4 and seconds.extra["device"] == "cpu"
        assert (seconds.n_images, seconds.n_patients, seconds.extra["n_real"]) == (12, 4, 12)


def test_lines_say_what_the_system_says_of_itself() -> None:
    system = Unchanged()
    system.policy, system.description = "unlinkable", "in words"
    system.figures_of = lambda real: {"epsilon": float(len(real))}
    for line in cost_lines(system, real_images("t", 2), CONTEXT):
        told = {key: line.extra[key] for key in ("policy", "description", "epsilon")}
        assert told == {"policy": "unlinkable", "description": "in words", "epsilon": 6.0}


def test_composed_operations_are_counted_with_and_without_gradients() -> None:
    x, y = torch.rand(2, 3, 4, 5), torch.rand(2, 3, 5, 6)
    for context in (torch.no_grad, torch.inference_mode, torch.enable_grad):
        with context(), cost._Operations() as counter:
            found = x @ y
        assert counter.total == 2 * 6 * 4 * 5 * 6 and torch.equal(found, x @ y)


def test_what_compiles_is_warm_before_it_is_timed() -> None:
    for compiled, runs in ((False, 2), (True, 3)):
        system = Blurring(compiled=compiled)
        cost_lines(system, real_images("t", 4), CONTEXT)
        assert system.calls == runs * 3


def test_the_cost_is_that_of_an_image_that_leaves(monkeypatch) -> None:
    clock = iter([10.0, 16.0])
    monkeypatch.setattr(cost.time, "perf_counter", lambda: next(clock))
    seconds, operations = cost_lines(OfFour(), real_images("t", 4), CONTEXT)
    assert seconds.value == 6.0 / 3 and seconds.n_images == 3 and seconds.extra["n_real"] == 12
    assert operations.value == 0.0 and seconds.release_hash is None and seconds.command == "c"


def test_memory_is_told_where_it_can_be_known(monkeypatch) -> None:
    class Cuda:
        def reset_peak_memory_stats(self, device):
            self.reset = device

        def memory_allocated(self, device):
            return 2**20

        def max_memory_allocated(self, device):
            return 3 * 2**20

        def synchronize(self, device):
            """Nothing."""

    assert "peak_memory_mib" not in cost_lines(Unchanged(), real_images("t", 4), CONTEXT)[0].extra
    monkeypatch.setattr(cost.torch, "cuda", Cuda())
    found = cost_lines(Unchanged(), real_images("t", 4), CONTEXT, "cuda:0")[0].extra
    assert found["peak_memory_mib"] == 2.0 and found["device"] == "cuda" and cost.torch.cuda.reset == "cuda:0"
