"""Drawn images repeat with each run of an evaluator and differ between its batches."""

from __future__ import annotations

from typing import Any

import torch
from ignite.engine import Engine
from torch import Tensor

from gmia_monai.inferers import DrawingInferer
from gmia_monai.inferers.repeating import RepeatingInferer
from gmia_monai.networks import MappedGenerator

IMAGES = torch.zeros(3, 1, 32, 32)


class Seeds(RepeatingInferer):
    """Gives the seeds that it takes, one an image."""

    def __call__(self, inputs: Tensor, network: Any = None, *args: Any, **kwargs: Any) -> list[int]:
        first = self._next_seed(len(inputs))
        return list(range(first, first + len(inputs)))


def _runs(inferer: RepeatingInferer, network: Any = None) -> list[list[Any]]:
    """What two runs over three batches give."""
    found: list[list[Any]] = []
    engine = Engine(lambda engine, batch: found[-1].append(inferer(IMAGES, network)))
    inferer.attach(engine)
    for _ in range(2):
        found.append([])
        engine.run([0, 1, 2])
    return found


def test_no_seed_comes_twice_in_a_run_and_all_come_again():
    first, again = _runs(Seeds(2))
    assert first == again and sum(first, []) == [2 * 1_000_003 + i for i in range(9)]


def test_without_an_evaluator_seeds_go_on():
    inferer = Seeds()
    assert inferer(IMAGES[:1]) + inferer(IMAGES[:2]) == [0, 1, 2]


def test_the_generator_draws_from_the_seed_of_the_batch():
    torch.manual_seed(0)
    network = MappedGenerator(32, 8, 256, 8, mapping_layers=2).eval().requires_grad_(False)
    first, again = _runs(DrawingInferer(3), network)
    for number, (images, same) in enumerate(zip(first, again, strict=True)):
        z = torch.randn(3, 8, generator=torch.Generator().manual_seed(3 * 1_000_003 + number))
        assert torch.equal(images, network(z).clamp(0.0, 1.0)) and torch.equal(images, same)
    assert (first[0] - first[1]).abs().max() > 1e-3
