"""Co-training: which losses move which network, moving averages, guards."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ignite.engine import Events
from ignite.handlers import EMAHandler
from torch import Tensor, nn

from gmia_monai.engines import AEGANTrainer, lazy_adam
from gmia_monai.errors import ResourceError
from gmia_monai.losses.adversarial import generator_logistic_loss
from gmia_monai.networks import AEGAN, Discriminator


def _batches(n: int, size: int = 4) -> list[dict[str, Tensor]]:
    g = torch.Generator().manual_seed(0)
    return [{"image": torch.rand(size, 1, 32, 32, generator=g)} for _ in range(n)]


def _trainer(n: int = 4, handlers: Any = (), **kwargs: Any) -> AEGANTrainer:
    torch.manual_seed(0)
    autoencoder = AEGAN(32, 8, 256, 8)
    discriminator = Discriminator(32, 256, 8)
    defaults = {"r1_interval": 2, "path_length_interval": 2}
    return AEGANTrainer(
        "cpu",
        1,
        _batches(n),
        autoencoder,
        discriminator,
        lazy_adam(autoencoder.parameters(), interval=4),
        lazy_adam(discriminator.parameters(), interval=16),
        train_handlers=[h(autoencoder) if callable(h) else h for h in handlers],
        **defaults | kwargs,
    )


def _copy(net: nn.Module) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in net.state_dict().items()}


def _moved(net: nn.Module, before: dict[str, Tensor]) -> bool:
    return any(not torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_an_iteration_reports_all_terms_and_moves_both_networks():
    trainer = _trainer(1, perceptual_loss=lambda a, b: (a - b).abs().mean(dim=(1, 2, 3)))
    before = _copy(trainer.autoencoder), _copy(trainer.discriminator)
    trainer.run()
    out = trainer.state.output
    assert all(torch.isfinite(torch.tensor(v)) for v in out.values())
    assert out["loss"] == pytest.approx(
        10 * out["pixel_loss"] + 10 * out["perceptual_loss"] + out["generator_loss"], rel=1e-5
    )
    assert min(out[k] for k in ("discriminator_loss", "r1_penalty", "path_length_penalty", "perceptual_loss")) > 0
    assert _moved(trainer.autoencoder, before[0]) and _moved(trainer.discriminator, before[1])
    assert all(p.requires_grad for p in trainer.discriminator.parameters())


def test_the_first_terms_are_those_of_a_plain_calculation():
    trainer = _trainer(1, r1_interval=0, path_length_interval=0)
    real = trainer.data_loader[0]["image"].contiguous(memory_format=torch.channels_last)
    torch.manual_seed(5)
    fake = trainer.autoencoder.synthesis(trainer.autoencoder.encoder(real), noise_mode="random")
    expected = {
        "pixel_loss": ((fake - real) ** 2).mean().item(),
        "generator_loss": generator_logistic_loss(trainer.discriminator(fake)).item(),
        "discriminator_loss": (
            torch.log1p(trainer.discriminator(fake).exp()).mean()
            + torch.log1p((-trainer.discriminator(real)).exp()).mean()
        ).item(),
    }
    torch.manual_seed(5)
    trainer.run()
    for name, value in expected.items():
        assert trainer.state.output[name] == pytest.approx(value, rel=1e-4), name


@pytest.mark.parametrize("kwargs", [{"adversarial_weight": 0.0}, {"adversarial_start": 100}])
def test_without_the_game_the_discriminator_rests(kwargs):
    trainer = _trainer(2, **kwargs)
    before = _copy(trainer.discriminator)
    trainer.run()
    out = trainer.state.output
    assert out["generator_loss"] == out["discriminator_loss"] == out["r1_penalty"] == out["path_length_penalty"] == 0
    assert not _moved(trainer.discriminator, before)


def test_regularisers_run_at_their_intervals():
    trainer = _trainer(6, r1_interval=3, path_length_interval=2)
    seen: list[tuple[float, float]] = []
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED,
        lambda e: seen.append((e.state.output["r1_penalty"], e.state.output["path_length_penalty"])),
    )
    trainer.run()
    r1, path = zip(*seen, strict=True)
    assert [i for i in range(1, 6) if r1[i] != r1[i - 1]] == [3]
    assert [i for i in range(1, 6) if path[i] != path[i - 1]] == [2, 4]


def test_ema_is_the_naive_moving_average_with_copied_buffers():
    kept: dict[str, Any] = {}

    def handler(autoencoder: AEGAN) -> EMAHandler:
        kept["ema"] = EMAHandler(autoencoder, momentum=0.1)
        return kept["ema"]

    trainer = _trainer(4, [handler])
    naive = {k: v.detach().clone() for k, v in trainer.autoencoder.named_parameters()}

    @trainer.on(Events.ITERATION_COMPLETED)
    def follow(engine: Any) -> None:
        for k, v in trainer.autoencoder.named_parameters():
            naive[k] = 0.9 * naive[k] + 0.1 * v.detach()

    trainer.run()
    ema = kept["ema"].ema_model
    assert _moved(trainer.autoencoder, naive)
    for k, v in ema.named_parameters():
        torch.testing.assert_close(v, naive[k], rtol=1e-5, atol=1e-7)
    buffers = dict(trainer.autoencoder.named_buffers())
    assert buffers and all(torch.equal(v, buffers[k]) for k, v in ema.named_buffers())


@pytest.mark.parametrize("bad", [1, 2])  # without and with a path-length phase
def test_an_update_that_is_not_finite_is_left_out(bad):
    trainer = _trainer(5)
    trainer.data_loader[bad]["image"][0, 0, 0, 0] = float("nan")
    states = []

    def record(engine: Any) -> None:
        states.append(_copy(trainer.autoencoder) | {f"d.{k}": v for k, v in _copy(trainer.discriminator).items()})

    trainer.add_event_handler(Events.ITERATION_COMPLETED, record)
    trainer.run()
    assert all(torch.equal(v, states[bad][k]) for k, v in states[bad - 1].items())
    assert any(not torch.equal(v, states[bad + 1][k]) for k, v in states[bad].items())
    assert all(torch.isfinite(v).all() for v in states[-1].values())
    assert torch.isfinite(trainer.path_length.mean) and trainer.path_length.mean > 0


def test_many_left_out_updates_in_a_row_stop_the_training():
    trainer = _trainer(5, max_skipped=3, adversarial_weight=0.0)
    for batch in trainer.data_loader:
        batch["image"][:] = float("nan")
    with pytest.raises(ResourceError, match="GM-R030"):
        trainer.run()
    assert trainer.state.iteration == 3


def test_a_phase_that_always_fails_stops_the_training_though_others_go_well():
    broken = lambda a, b: (a - b).sum() * float("inf")  # noqa: E731
    trainer = _trainer(5, max_skipped=3, perceptual_loss=broken)
    with pytest.raises(ResourceError, match="generator updates in a row"):
        trainer.run()
    assert trainer.state.iteration == 3


def test_e_training_lowers_the_loss_of_the_encoder_for_a_generator_that_stays():
    torch.manual_seed(0)
    autoencoder = AEGAN(32, 32, 256, 16)
    autoencoder.synthesis.requires_grad_(False)
    with torch.no_grad():  # images that this generator can make
        images = autoencoder.synthesis(2.0 * torch.randn(4, 32), noise_mode="none").clamp(0, 1)
    before = _copy(autoencoder.synthesis)
    losses: list[float] = []
    trainer = AEGANTrainer(
        "cpu",
        1,
        [{"image": images}] * 80,
        autoencoder,
        Discriminator(32, 256, 8),
        lazy_adam(autoencoder.parameters(), 0.005, (0.9, 0.99)),
        lazy_adam(Discriminator(32, 256, 8).parameters()),
        adversarial_weight=0.0,
        path_length_interval=0,
    )
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda e: losses.append(e.state.output["pixel_loss"]))
    trainer.run()
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    assert not _moved(autoencoder.synthesis, before)
