"""Training of the unconditional generator: which losses move which network, style mixing, and that it learns."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ignite.engine import Events

from gmia_monai.engines import GANTrainer, lazy_adam
from gmia_monai.networks import Discriminator, MappedGenerator


def _trainer(images: torch.Tensor, n: int = 4, epochs: int = 1, lr: float = 0.0025, **kwargs: Any) -> GANTrainer:
    torch.manual_seed(0)
    generator = MappedGenerator(32, 8, 256, 8, mapping_layers=2)
    discriminator = Discriminator(32, 256, 8)
    defaults = {"r1_interval": 2, "path_length_interval": 2}
    return GANTrainer(
        "cpu",
        epochs,
        [{"image": images}] * n,
        generator,
        discriminator,
        lazy_adam(generator.parameters(), lr, interval=4),
        lazy_adam(discriminator.parameters(), lr, interval=16),
        **defaults | kwargs,
    )


def test_an_iteration_moves_mapping_synthesis_and_discriminator():
    trainer = _trainer(torch.rand(4, 1, 32, 32), 1)
    nets = (trainer.generator.mapping.layers, trainer.generator.synthesis, trainer.discriminator)
    before = [{k: v.clone() for k, v in net.state_dict().items()} for net in nets]
    trainer.run()
    for net, old in zip(nets, before, strict=True):
        assert any(not torch.equal(v, old[k]) for k, v in net.state_dict().items())
    assert trainer.generator.mapping.w_avg.abs().sum() > 0
    out = trainer.state.output
    assert min(out[k] for k in ("generator_loss", "discriminator_loss", "r1_penalty", "path_length_penalty")) > 0
    assert all(p.requires_grad for p in trainer.discriminator.parameters())


def test_style_mixing_takes_two_codes_from_a_layer_on():
    trainer = _trainer(torch.rand(4, 1, 32, 32), style_mixing=1.0)
    ws = trainer._codes(64, torch.device("cpu"))
    changes = (ws[:, 1:] != ws[:, :-1]).any(dim=2).sum(dim=1)
    assert (changes == 1).all(), "one cut, from one code to another"
    trainer.style_mixing = 0.0
    ws = trainer._codes(8, torch.device("cpu"))
    assert (ws == ws[:, :1]).all() and not torch.equal(ws[0, 0], ws[1, 0])


@pytest.mark.slow
def test_it_learns_the_brightness_of_the_images():
    images = 0.8 + 0.05 * torch.randn(8, 1, 32, 32)
    trainer = _trainer(images, 150, lr=0.01, r1_interval=8, path_length_interval=0, r1_gamma=0.1)
    with torch.no_grad():
        start = trainer.generator.synthesis(trainer.generator.sample_codes(32)).mean().item()
    seen: list[float] = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda e: seen.append(e.state.output["discriminator_loss"]))
    trainer.run()
    with torch.no_grad():
        end = trainer.generator.synthesis(trainer.generator.sample_codes(32)).mean().item()
    assert abs(end - 0.8) < 0.5 * abs(start - 0.8) and abs(end - 0.8) < 0.15
    assert max(seen) > min(seen) > 0
