"""Every epoch has its own seed."""

from __future__ import annotations

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data import Dataset
from monai.transforms import Compose, RandScaleIntensity

from gmia_monai.handlers import EpochSeed


def _draws(epochs: int, start: int = 0, seed: int = 0, rank: int = 0) -> list[tuple[float, ...]]:
    dataset = Dataset([np.ones(1, dtype=np.float32)], Compose([RandScaleIntensity(0.5, prob=1.0)]))
    seen = []

    def step(engine: Engine, batch: int) -> None:
        seen.append((torch.rand(()).item(), float(np.random.rand()), float(dataset[0][0])))  # noqa: NPY002

    engine = Engine(step)
    engine.add_event_handler(Events.STARTED, lambda e: setattr(e.state, "epoch", start))
    EpochSeed(seed, dataset, rank).attach(engine)
    engine.run([0, 0], max_epochs=epochs)
    return seen


def test_an_epoch_draws_the_same_after_a_resume():
    whole = _draws(3)
    assert len(set(whole)) == 6
    assert _draws(3, start=2) == whole[4:]


def test_seeds_and_processes_draw_differently():
    whole = _draws(1)
    assert whole == _draws(1)
    for other in (_draws(1, seed=1), _draws(1, rank=1)):
        assert all(a != b for x, y in zip(whole, other, strict=True) for a, b in zip(x, y, strict=True))
