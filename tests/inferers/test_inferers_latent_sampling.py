"""Validation of latent diffusion: the same noise in each run, other noise in each batch."""

from __future__ import annotations

import torch
from ignite.engine import Engine
from tiny_bundle import phantoms
from tiny_diffusion import tiny_diffusion

from gmia_monai.inferers.latent_sampling import LatentSamplingInferer

LABELS = torch.tensor([[0.0, 1.0], [1.0, 0.0]])


def test_runs_repeat_and_batches_differ():
    network, images = tiny_diffusion(), phantoms(2)
    inferer = LatentSamplingInferer(n_steps=2, seed=3)
    found: list[list[torch.Tensor]] = []
    engine = Engine(lambda engine, batch: found[-1].append(inferer(images, network, labels=LABELS)))
    inferer.attach(engine)
    for _ in range(2):
        found.append([])
        engine.run([0, 1])
    (first, second), again = found
    assert torch.equal(first, again[0]) and torch.equal(second, again[1])
    assert (first - second).abs().max() > 1e-3
    seeds = [3 * 1_000_003 + 2, 3 * 1_000_003 + 3]
    assert torch.equal(second, network.sample(LABELS, seeds, n_steps=2))


def test_the_first_stage_reconstructs_and_bfloat16_comes_close():
    network, images = tiny_diffusion(), phantoms(2)
    exact, half = (
        LatentSamplingInferer("autoencoder", bfloat16=b)(images, network, labels=LABELS) for b in (False, True)
    )
    assert torch.equal(exact, network.reconstruct(images))
    assert half.dtype == torch.float32 and 0 < (half - exact).abs().max() < 0.1
