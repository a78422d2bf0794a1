"""The validated kernel distance is that of the metric, and drawn images are the same in each validation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ignite.engine import Engine

from gmia_monai.handlers import NegativeKID
from gmia_monai.inferers import DrawingInferer
from gmia_monai.metrics.kid import KernelDistance
from gmia_monai.networks import MappedGenerator


def _features(images: torch.Tensor) -> torch.Tensor:
    return images.flatten(1)[:, :12]


def test_it_is_minus_the_distance_of_both_sets():
    g = torch.Generator().manual_seed(0)
    drawn, real = torch.rand(10, 1, 4, 4, generator=g), torch.rand(10, 1, 4, 4, generator=g) * 0.5
    metric = NegativeKID(_features)
    engine = Engine(lambda _, i: {"pred": drawn[i : i + 5], "label": real[i : i + 5]})
    metric.attach(engine, "kid")
    found = engine.run([0, 5]).metrics["kid"]
    units = np.arange(10), 10 + np.arange(10)
    expected = -KernelDistance(_features(real).numpy(), _features(drawn).numpy(), *units)()
    assert found == pytest.approx(expected) and found < 0
    assert engine.run([0, 5]).metrics["kid"] == pytest.approx(found), "a second run begins anew"


def test_each_validation_draws_the_same_images():
    torch.manual_seed(0)
    net, inferer, real = MappedGenerator(32, 8, 256, 8, 2).eval(), DrawingInferer(3), torch.rand(4, 1, 32, 32)
    seen: list[torch.Tensor] = []
    engine = Engine(lambda _, batch: seen.append(inferer(batch, net)))
    inferer.attach(engine)
    for _ in range(2):
        engine.run([real, real])
    assert torch.equal(seen[0], seen[2]) and torch.equal(seen[1], seen[3]) and not torch.equal(seen[0], seen[1])
    assert seen[0].shape == real.shape and 0 <= seen[0].min() and seen[0].max() <= 1
