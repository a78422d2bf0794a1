"""FALCO moves the middle layers only, from the nearest synthetic code, to a target cosine; a batch is single runs."""

from __future__ import annotations

import inspect
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from attack_cohorts import real_images
from tiny_bundle import SIZE, phantoms, save_tiny

from gmia_monai.anonymizers import falco
from gmia_monai.anonymizers.base import Anonymizer
from gmia_monai.anonymizers.falco import Falco, trainable_layers
from gmia_monai.errors import IntegrityError, UsageError
from gmia_monai.losses import cosine
from gmia_monai.networks import AEGAN, IdentityNet, UtilityNet, load_network
from gmia_monai.networks.generator import MappedGenerator

WEIGHTS = {"aegan_e": "0", "generator": "1", "identity": "2", "utility": "3"}
N_LAYERS, FREE = 8, slice(1, 4)


class _Codes:
    """Codes as a generator gives them."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int, float]] = []

    def sample_codes(self, n, seed=0, truncation=1.0):
        self.asked.append((n, seed, truncation))
        return truncation * torch.randn(n, 512, generator=torch.Generator().manual_seed(seed))


def networks(dtype=torch.float32) -> list[torch.nn.Module]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = [AEGAN(SIZE, channel_base=256, channel_max=32), IdentityNet(SIZE, "small"), UtilityNet(3, "small")]
    return [network.to(dtype).eval().requires_grad_(False) for network in made]


def system(dtype=torch.float32, weights=WEIGHTS, **settings) -> Falco:
    aegan, identity, utility = networks(dtype)
    generator = _Codes()
    made = Falco(aegan, generator, identity, utility, weights, **{"n_synthetic": 20, "n_steps": 4} | settings)
    if dtype == torch.float64:
        generator.sample_codes = lambda *a: _Codes.sample_codes(generator, *a).double()
    return made


def test_the_published_layers_are_scaled():
    found = {n: trainable_layers(n) for n in (18, 14, 12, 10, 8)}
    assert found[18] == slice(3, 8), "3 to 7 at 1024 px"
    assert [found[n] for n in (14, 12, 10)] == [slice(2, 6), slice(2, 6), slice(2, 5)]
    assert found[N_LAYERS] == FREE


def test_the_start_is_the_nearest_synthetic_code_in_the_trainable_layers():
    made, images = system(), phantoms(5)
    codes = made.generator.sample_codes(20, 0, 0.7)
    with torch.no_grad():
        synthetic = made.utility.features(made.aegan.synthesis(codes).clamp(0, 1))
        real = made.utility.features(images)
        own = made.aegan.encoder(images)
        ws = made.start(images)
    nearest = [int(np.argmax([F.cosine_similarity(r, s, dim=0).item() for s in synthetic])) for r in real]
    assert ws.shape == (5, N_LAYERS, 512)
    for layer in range(N_LAYERS):
        expected = codes[nearest] if FREE.start <= layer < FREE.stop else own
        assert torch.equal(ws[:, layer], expected), layer


def test_only_the_trainable_layers_move():
    made, images = system(), phantoms(3)
    start, end = made.start(images), made.optimize(images)
    moved = (end - start).abs().amax(dim=(0, 2))
    assert (moved[FREE] > 1e-3).all()
    assert torch.equal(end[:, : FREE.start], start[:, : FREE.start]) and torch.equal(
        end[:, FREE.stop :], start[:, FREE.stop :]
    )
    assert (end[:, FREE.start] - end[:, FREE.start + 1]).abs().max() > 1e-4, "each layer has a code of its own"


def test_synthetic_images_are_drawn_once_as_published():
    made = system(n_steps=0)
    for _ in range(2):
        made.anonymize_batch(phantoms(2), [0, 0])
    assert made.generator.asked == [(20, 0, 0.7)]
    signature = {p.name: p.default for p in inspect.signature(Falco).parameters.values()}
    published = {"target_cos": 0.0, "lambda_id": 10.0, "lr": 0.01, "n_steps": 50, "truncation": 0.7}
    assert {key: signature[key] for key in published} == published
    assert signature["lambda_attr"] == pytest.approx(0.1 * 197, rel=0.02)


def test_the_losses_are_those_of_the_paper():
    made, images = system(target_cos=0.3), phantoms(6)
    a, b = images[:3], images[3:]
    with torch.no_grad():
        off, drift = made.losses(b, made.identity(a), made.attributes(a))
        for i in range(3):
            e, f = made.identity(a)[i], made.identity(b)[i]
            assert off[i].item() == pytest.approx(abs((e @ f / (e.norm() * f.norm())).item() - 0.3), abs=1e-5)
            tokens = [torch.relu(made.utility.trunk((x[i : i + 1] - 0.5) / 0.25))[0].flatten(1).T for x in (a, b)]
            per_token = [(s - t).abs().mean().item() for s, t in zip(*tokens, strict=True)]
            assert drift[i].item() == pytest.approx(np.mean(per_token), rel=1e-4)
    pooled = made.attributes(a).mean(dim=(2, 3))
    torch.testing.assert_close(pooled, made.utility.features(a), msg="the map before the pooled feature")


def test_the_target_is_reached_from_both_sides():
    images = phantoms(3)
    for target in (-0.9, 0.9):
        made = system(target_cos=target, lambda_attr=0.0, n_steps=15, lr=0.1)
        embedding = made.identity(images)
        with torch.no_grad():
            cosines = [
                cosine(embedding, made.identity(made.aegan.synthesis(ws).clamp(0, 1)))
                for ws in (made.start(images), made.optimize(images))
            ]
        off = [(cos - target).abs() for cos in cosines]
        assert (off[1] < off[0]).all()


def test_the_loss_decreases():
    images = phantoms(3)

    def loss(made: Falco, ws: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            image = made.aegan.synthesis(ws).clamp(0, 1)
            off, drift = made.losses(image, made.identity(images), made.attributes(images))
            return made.lambda_id * off + made.lambda_attr * drift

    made = system(n_steps=12)
    assert (loss(made, made.optimize(images)) < loss(made, made.start(images))).all()


def test_bfloat16_comes_as_far_as_float32():
    images = phantoms(3)

    def loss(made: Falco, ws: torch.Tensor) -> float:
        with torch.no_grad():
            off, drift = made.losses(made._synthesise(ws), made.identity(images), made.attributes(images))
            return float((made.lambda_id * off + made.lambda_attr * drift).sum())

    plain, quick = (system(n_steps=12, bfloat16=b) for b in (False, True))
    start, end = loss(plain, plain.start(images)), loss(plain, plain.optimize(images))
    ws = quick.optimize(images)
    assert ws.dtype == torch.float32 and not torch.equal(ws, plain.optimize(images))
    assert start - loss(plain, ws) > 0.8 * (start - end) > 0


def test_adam_goes_by_the_published_schedule(monkeypatch):
    rates, betas = [], set()

    class Spy(torch.optim.Adam):
        def step(self, closure=None):
            rates.append(self.param_groups[0]["lr"])
            betas.add(tuple(self.param_groups[0]["betas"]))
            return super().step(closure)

    monkeypatch.setattr(falco.torch.optim, "Adam", Spy)
    system(n_steps=20).optimize(phantoms(1))
    assert rates == pytest.approx([0.01] * 15 + [0.008] * 3 + [0.0064] * 2)
    assert betas == {(0.9, 0.999)}


def test_a_batch_is_the_same_as_single_runs():
    images = phantoms(3, dtype=torch.float64)
    made = system(torch.float64)
    whole = made.optimize(images)
    single = torch.cat([made.optimize(image[None]) for image in images])
    torch.testing.assert_close(whole, single, rtol=1e-6, atol=1e-7)


def test_a_release_says_what_was_done_and_is_the_same_again():
    real = real_images("t", 2)
    made = system(target_cos=0.5, unit_size=4)
    release = made.anonymize(real, seed=1)
    assert isinstance(made, Anonymizer) and (made.name, release.policy) == ("falco m=0.5", "pseudonymous")
    assert release.kind == "one_to_one"
    assert np.array_equal(release.pixels, system(target_cos=0.5, unit_size=4).anonymize(real, seed=2).pixels)
    found = release.convergence
    assert found.steps.tolist() == [4] * len(real)
    assert json.loads(json.dumps(found.settings)) == found.settings
    assert found.settings["layers"] == [1, 2, 3] and "layers 1 to 3 of 8" in found.description


def test_an_image_is_done_when_its_cosine_is_near_the_target():
    images = phantoms(4)
    probe = system(n_steps=0)
    released, _ = probe.anonymize_batch(images, [0] * 4)
    cosines = cosine(probe.identity(images), probe.identity(released))
    target = float(cosines[0].clamp(-1, 1))
    _, outcomes = system(n_steps=0, target_cos=target).anonymize_batch(images, [0] * 4)
    assert [o.converged for o in outcomes] == [abs(float(c) - target) < 0.1 for c in cosines]
    far = target - 0.5 if target > 0 else target + 0.5
    assert not system(n_steps=0, target_cos=far).anonymize_batch(images, [0] * 4)[1][0].converged


def test_settings_and_weights_decide_the_fingerprint():
    prints = {system().fingerprint, system(target_cos=0.5).fingerprint, system(synthetic_seed=1).fingerprint}
    prints |= {system(bfloat16=True).fingerprint, system(weights=WEIGHTS | {"generator": "9"}).fingerprint}
    assert len(prints) == 5


@pytest.mark.parametrize(
    "setting",
    [
        {"target_cos": 1.1},
        {"lambda_id": -1.0},
        {"lambda_attr": -1.0},
        {"lr": 0.0},
        {"n_steps": -1},
        {"n_synthetic": 0},
        {"truncation": 0.0},
        {"truncation": 1.1},
    ],
)
def test_settings_out_of_range_are_refused(setting):
    with pytest.raises(UsageError) as caught:
        system(**setting)
    assert caught.value.code == "GM-U068" and next(iter(setting)) in str(caught.value)


def test_weights_that_were_not_recorded_are_missed(tmp_path):
    with pytest.raises(IntegrityError) as caught:
        Falco.from_weights(save_tiny(tmp_path))
    assert caught.value.code == "GM-W001" and "aegan_e" in str(caught.value)


def test_it_is_built_from_recorded_weights(tmp_path, monkeypatch):
    folder = save_tiny(tmp_path)
    generator = MappedGenerator(32, channel_base=256, channel_max=32, mapping_layers=2).eval()

    def load(models_dir, name):
        return generator if name == "generator" else load_network(folder / f"{name.removesuffix('_e')}.safetensors")

    recorded = {name: {"sha256": name * 2} for name in WEIGHTS}
    monkeypatch.setattr(falco, "load_recorded", load)
    monkeypatch.setattr(falco, "read_index", lambda models_dir: recorded)
    made = Falco.from_weights(folder, n_steps=1, n_synthetic=3)
    assert "aegan_eaegan_e" in made.fingerprint and made.generator is generator
    release = made.anonymize(real_images("t", 1))
    codes = generator.sample_codes(3, 0, 0.7)
    assert torch.equal(made.synthetic[0], codes) and len(release) == 3
