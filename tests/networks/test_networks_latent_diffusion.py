"""The latent diffusion network: shapes, guidance, findings, seeds, DDIM, partial denoising, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from tiny_bundle import phantoms
from tiny_diffusion import ARGUMENTS, FINDINGS, SIZE, tiny_diffusion

from gmia_monai.errors import UsageError
from gmia_monai.networks import load_network, save_network
from gmia_monai.networks.latent_diffusion import LatentDiffusionNet
from gmia_monai.networks.pretrained import NETWORKS

LABELS = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.5, torch.nan]])


def test_images_go_to_standardised_latents_and_back():
    network, images = tiny_diffusion(), phantoms(4)
    assert network.latent_shape == (2, SIZE // 2, SIZE // 2)
    mean, sd = network.autoencoder.encode(images * 2.0 - 1.0)
    network.standardise(mean, sd)
    assert torch.allclose(network.latent_mean.flatten(), mean.mean(dim=(0, 2, 3)))
    standard_mean, standard_sd = network.latent_moments(images)
    variance = standard_mean.square() + standard_sd.square()
    assert torch.allclose(variance.mean(dim=(0, 2, 3)), torch.ones(2), atol=1e-5)
    assert torch.allclose(standard_mean.mean(dim=(0, 2, 3)), torch.zeros(2), atol=1e-5)
    expected = (network.autoencoder.decode(mean) * 0.5 + 0.5).clamp(0, 1)
    assert torch.allclose(network.reconstruct(images), expected, atol=1e-5)


def test_tokens_are_those_of_absent_present_and_unknown():
    network = tiny_diffusion()
    absent, present, unknown = network.tokens
    context = network.context(LABELS)
    assert torch.equal(context[0, 0], absent[0]) and torch.allclose(context[0, 1], present[1])
    assert torch.allclose(context[2, 0], 0.5 * (absent[0] + present[0])) and torch.equal(context[2, 1], unknown[1])


def test_findings_change_what_is_drawn():
    network = tiny_diffusion()
    first, other = (network.sample(torch.tensor([row]), [7], n_steps=5) for row in ([0.0, 0.0], [1.0, 1.0]))
    assert (first - other).abs().max() > 1e-3


def test_guidance_one_is_the_conditional_network_and_zero_the_unconditional_one():
    network, seeds = tiny_diffusion(), [1, 2, 3]
    scheduler = network.sampling_scheduler(4)
    unknown = torch.full_like(LABELS, torch.nan)
    for guidance, weights in ((1.0, (0.0, 1.0)), (0.0, (1.0, 0.0)), (2.5, (-1.5, 2.5))):
        x = network.noise(seeds)
        for t in scheduler.timesteps:  # naive re-statement
            with torch.no_grad():
                parts = [network(x, t.expand(3).float(), labels) for labels in (unknown, LABELS)]
            x, _ = scheduler.step(sum(w * p for w, p in zip(weights, parts, strict=True)), t, x)
        expected = network.decode(x)
        assert torch.allclose(network.sample(LABELS, seeds, guidance, 4), expected, atol=1e-4), guidance
    assert (network.sample(LABELS, seeds, 1.0, 4) - network.sample(LABELS, seeds, 0.0, 4)).abs().max() > 1e-3


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_ddim_with_the_true_noise_gives_the_latent_back(prediction):
    network = tiny_diffusion(prediction=prediction)
    scheduler, ddpm = network.sampling_scheduler(20), network.training_scheduler()
    assert scheduler.timesteps.tolist() == list(range(999, 0, -50))
    latent, noise = torch.randn(2, 3, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    x = ddpm.add_noise(latent, noise, scheduler.timesteps[:1].expand(3))
    for t in scheduler.timesteps:
        assert torch.allclose(x, ddpm.add_noise(latent, noise, t.expand(3)), atol=1e-4), "each step ends at the next"
        answer = noise if prediction == "epsilon" else ddpm.get_velocity(latent, noise, t.expand(3))
        x, _ = scheduler.step(answer, t, x)
    assert torch.allclose(x, latent, atol=1e-3)


def test_an_image_depends_on_its_own_seed_only():
    network = tiny_diffusion()
    all_ = network.sample(LABELS, [5, 6, 7], 1.5, 5)
    alone = network.sample(LABELS[1:2], [6], 1.5, 5)
    assert torch.allclose(all_[1:2], alone, atol=1e-4)
    assert torch.equal(all_, network.sample(LABELS, [5, 6, 7], 1.5, 5))
    assert (all_ - network.sample(LABELS, [5, 9, 7], 1.5, 5)).abs().amax(dim=(1, 2, 3))[1] > 1e-3
    assert 0.0 <= all_.min() and all_.max() <= 1.0 and all_.shape == (3, 1, SIZE, SIZE)


def test_partial_denoising_goes_from_the_reconstruction_to_a_new_image():
    network, images = tiny_diffusion(), phantoms(3)
    reconstruction = network.reconstruct(images)
    assert torch.equal(network.redraw(images, 0.0, [1, 2, 3], n_steps=10), reconstruction)
    latents = network.encode(images)
    scheduler = network.sampling_scheduler(10)
    level = scheduler.timesteps[-2:-1].expand(3)
    x = scheduler.add_noise(original_samples=latents, noise=network.noise([1, 2, 3]), timesteps=level)
    with torch.no_grad():
        for t in scheduler.timesteps[-2:]:
            x, _ = scheduler.step(network(x, t.expand(3).float(), LABELS), t, x)
    found = network.redraw(images, 0.2, [1, 2, 3], LABELS, n_steps=10)
    assert torch.allclose(found, network.decode(x), atol=1e-4)
    assert (found - reconstruction).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("more", "part"),
    [
        ({"findings": []}, "findings"),
        ({"image_size": 30}, "image_size"),
        ({"prediction": "score"}, "prediction"),
        ({"attention": [True]}, "attention"),
        ({"channels": [8, 12]}, "channels"),
    ],
)
def test_settings_that_do_not_fit_are_refused(more, part):
    with pytest.raises(UsageError, match=part) as caught:
        LatentDiffusionNet(**(ARGUMENTS | more))
    assert caught.value.code == "GM-U014"


def test_steps_and_strengths_that_do_not_fit_are_refused():
    network = tiny_diffusion()
    for call in (
        lambda: network.sample(LABELS, [1, 2, 3], n_steps=7),
        lambda: network.redraw(phantoms(1), 1.2, [1]),
    ):
        with pytest.raises(UsageError) as caught:
            call()
        assert caught.value.code == "GM-U014"


def test_one_file_holds_it_all(tmp_path, monkeypatch):
    monkeypatch.setitem(NETWORKS, "LatentDiffusionNet", LatentDiffusionNet)
    network = tiny_diffusion()
    network.latent_std.fill_(0.7)
    save_network(tmp_path / "latent_diffusion.safetensors", network, ARGUMENTS)
    loaded = load_network(tmp_path / "latent_diffusion.safetensors")
    assert loaded.findings == tuple(FINDINGS)
    assert torch.equal(loaded.sample(LABELS, [1, 2, 3], n_steps=2), network.sample(LABELS, [1, 2, 3], n_steps=2))
