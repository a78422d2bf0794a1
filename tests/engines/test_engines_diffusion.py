"""The two stages of latent diffusion: what each trains, its losses, and that they fall."""

from __future__ import annotations

import pytest
import torch
from ignite.engine import Events
from monai.networks.nets import PatchDiscriminator
from tiny_bundle import phantoms
from tiny_diffusion import tiny_diffusion
from torch.distributions import Normal
from torch.distributions import kl_divergence as torch_kl

from gmia_monai.engines.diffusion import (
    LatentDiffusionTrainer,
    findings_batch,
    kl_divergence,
    latent_dataset,
    start_stage,
)
from gmia_monai.errors import UsageError
from gmia_monai.handlers import GradientHandler
from gmia_monai.networks import save_network


def _items(n: int = 4) -> list[dict[str, torch.Tensor]]:
    labels = torch.tensor([[0.0, 1.0], [1.0, torch.nan]]).repeat(n, 1)
    return [{"image": image, "label": label} for image, label in zip(phantoms(n), labels, strict=False)]


def _batch(items: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {key: torch.stack([item[key] for item in items]) for key in items[0]}


def _start(stage: str, tmp_path, **more):
    network = tiny_diffusion(**more).requires_grad_(True).train()
    save_network(tmp_path / "start.safetensors", network, {})
    return start_stage(network, stage, tmp_path / "start.safetensors" if stage == "diffusion" else "", _items())


def _losses(network, stage, batch, steps, lr=2e-3, **more) -> list[dict[str, float]]:
    torch.manual_seed(0)
    rows: list[dict[str, float]] = []
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr)
    trainer = LatentDiffusionTrainer(
        "cpu", 1, [batch] * steps, network, optimizer, stage, train_handlers=[GradientHandler([network])], **more
    )
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: rows.append(dict(engine.state.output)))
    trainer.run()
    return rows


def test_each_stage_trains_its_own_part(tmp_path):
    for stage, trained in (("autoencoder", ("autoencoder",)), ("diffusion", ("unet", "tokens"))):
        network = _start(stage, tmp_path)
        before = {name: p.clone() for name, p in network.named_parameters()}
        _losses(network, stage, _batch(_items()), 2)
        changed = {name.split(".")[0] for name, p in network.named_parameters() if not torch.equal(p, before[name])}
        assert changed == set(trained)


def test_latents_are_standardised_by_the_training_images(tmp_path):
    network = _start("diffusion", tmp_path)
    mean, sd = network.latent_moments(_batch(_items())["image"])
    assert torch.allclose((mean.square() + sd.square()).mean(dim=(0, 2, 3)), torch.ones(2), atol=1e-4)
    assert torch.equal(_start("autoencoder", tmp_path).latent_std, torch.ones(1, 2, 1, 1))


def test_kept_latents_are_those_of_the_images(tmp_path):
    network = _start("diffusion", tmp_path)
    dataset = latent_dataset(network, _items())
    assert len(dataset) == 4
    mean, sd = network.latent_moments(_items()[2]["image"][None])
    assert torch.allclose(dataset[2]["latent"], torch.cat([mean, sd], dim=1)[0], atol=1e-5)
    assert torch.equal(dataset[2]["label"], _items()[2]["label"])
    rows = [_losses(network, "diffusion", _batch(items), 1, lr=0.0) for items in (list(dataset), _items())]
    assert rows[0][0]["loss"] == pytest.approx(rows[1][0]["loss"], rel=1e-4)


def test_divergence_is_that_of_normal_distributions():
    mean, sd = torch.randn(2, 3, 4, 4), torch.rand(2, 3, 4, 4) + 0.1
    expected = torch_kl(Normal(mean, sd), Normal(0.0, 1.0)).sum(dim=(1, 2, 3)).mean()
    assert kl_divergence(mean, sd) == pytest.approx(float(expected), rel=1e-4)


def test_terms_of_the_first_stage_are_weighed(tmp_path):
    more = {"perceptual_loss": lambda a, b: (a - b).square().mean(dim=(1, 2, 3)), "perceptual_weight": 3.0}
    discriminator = PatchDiscriminator(2, 8, 1, num_layers_d=2)
    before = [p.clone() for p in discriminator.parameters()]
    more |= {"discriminator": discriminator, "adversarial_weight": 0.5, "adversarial_start": 1}
    more["d_optimizer"] = torch.optim.Adam(discriminator.parameters(), 1e-3)
    first, second = _losses(_start("autoencoder", tmp_path), "autoencoder", _batch(_items()), 2, kl_weight=0.1, **more)
    assert "generator_loss" not in first and second["discriminator_loss"] > 0, "the game starts later"
    for row in (first, second):
        expected = row["pixel_loss"] + 0.1 * row["kl_loss"] + 3.0 * row["perceptual_loss"]
        assert row["loss"] == pytest.approx(expected + 0.5 * row.get("generator_loss", 0.0), rel=1e-4)
    assert any(not torch.equal(p, q) for p, q in zip(discriminator.parameters(), before, strict=True))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_second_stage_predicts_noise_or_v(tmp_path, monkeypatch, prediction):
    network = _start("diffusion", tmp_path, prediction=prediction)
    seen = {}

    def answer(x, timesteps, context):
        seen.update(x=x, timesteps=timesteps, labels=context)
        return torch.zeros_like(x)

    monkeypatch.setattr(network, "forward", answer)
    batch = _batch(list(latent_dataset(network, _items())))
    torch.manual_seed(3)
    trainer = LatentDiffusionTrainer(
        "cpu", 1, [batch], network, torch.optim.Adam(network.unet.parameters()), "diffusion"
    )
    loss = trainer._diffusion_loss(batch)
    mean, sd = batch["latent"].chunk(2, dim=1)
    torch.manual_seed(3)
    torch.rand(4)
    latent = mean + sd * torch.randn(mean.shape)
    noise = torch.randn(mean.shape)
    a = network.training_scheduler().alphas_cumprod[seen["timesteps"]][:, None, None, None]
    assert torch.allclose(seen["x"], a.sqrt() * latent + (1 - a).sqrt() * noise, atol=1e-5)
    wanted = noise if prediction == "epsilon" else a.sqrt() * noise - (1 - a).sqrt() * latent
    assert float(loss) == pytest.approx(float(wanted.square().mean()), rel=1e-4)


@pytest.mark.parametrize(("share", "all_withheld"), [(0.0, False), (1.0, True)])
def test_findings_are_withheld_from_a_share_of_the_images(tmp_path, monkeypatch, share, all_withheld):
    network = _start("diffusion", tmp_path)
    contexts = []
    original = network.context
    monkeypatch.setattr(network, "context", lambda labels: contexts.append(labels) or original(labels))
    batch = _batch(_items())
    _losses(network, "diffusion", batch, 1, condition_dropout=share)
    assert contexts[0].isnan().all() == all_withheld
    if not all_withheld:
        assert torch.equal(contexts[0].isnan(), batch["label"].isnan())


@pytest.mark.slow
def test_both_losses_fall_on_a_few_images(tmp_path):
    batch = _batch(_items())
    rows = _losses(_start("autoencoder", tmp_path), "autoencoder", batch, 30, lr=5e-3)
    assert rows[-1]["pixel_loss"] < 0.7 * rows[0]["pixel_loss"]
    rows = _losses(_start("diffusion", tmp_path), "diffusion", batch, 80, lr=5e-3)
    first, last = (sum(r["loss"] for r in part) / 20 for part in (rows[:20], rows[-20:]))
    assert last < 0.8 * first


def test_a_validation_batch_has_its_findings():
    batch = _batch(_items())
    image, target, args, more = findings_batch(batch, torch.device("cpu"))
    assert (
        image is target and args == () and torch.equal(more["labels"].nan_to_num(9.0), batch["label"].nan_to_num(9.0))
    )


@pytest.mark.parametrize(("stage", "init_from"), [("second", "x"), ("diffusion", "")])
def test_stages_that_cannot_be_trained_are_refused(stage, init_from):
    with pytest.raises(UsageError) as caught:
        start_stage(tiny_diffusion(), stage, init_from, _items())
    assert caught.value.code == "GM-U047"
