"""Latent optimisation against a plain loop over single images, and what it promises beside."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_bundle import REPOSITORY, ToyNet, parts_of, phantoms, tiny_network
from torch import Tensor, nn

from gmia_monai.errors import UsageError
from gmia_monai.inferers import LatentOptimizationResult, optimize_latents
from gmia_monai.networks import load_anonymizer
from gmia_monai.weights import read_index

ENDLESS: dict[str, Any] = {"stop": "joint", "max_drift": 0.0, "margin_cos": -1.0}


@pytest.fixture
def toy() -> ToyNet:
    return ToyNet().double()


@pytest.fixture
def images() -> Tensor:
    return torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def naive(
    net: Any,
    image: Tensor,
    *,
    margin_cos: float,
    lambda_id: float = 1.0,
    lambda_ut: float = 1.0,
    utility_form: str = "mse",
    max_steps: int = 40,
    min_steps: int = 1,
    max_drift: float = math.inf,
) -> tuple[Tensor, int, bool, float, float]:
    """The method for one image, as eq. 1-3 read: code, steps, whether the criterion was met, cosine, drift."""
    x = image[None]
    w = net.encoder(x).clone().requires_grad_(True)
    optimizer = torch.optim.Adam([w], lr=0.01, betas=(0.0, 0.99))
    a, f = net.identity(x)[0], net.utility.features(x)[0]
    step = 0
    while True:
        y = net.synthesis(w, "const").clamp(0, 1)
        b, g = net.identity(y)[0], net.utility.features(y)[0]
        cos = (a * b).sum() / (a.norm() * b.norm())
        l_id = torch.relu(cos - margin_cos)
        l_ut = ((g - f) ** 2).mean() if utility_form == "mse" else ((g - f) ** 2).sum().sqrt()
        met = (lambda_id == 0 or l_id.item() < 1e-8) and l_ut.item() <= max_drift and step >= min_steps
        if met or step == max_steps:
            return w.detach()[0], step, met, cos.item(), l_ut.item()
        optimizer.zero_grad()
        (lambda_id * l_id + lambda_ut * l_ut).backward()
        optimizer.step()
        step += 1


@pytest.mark.parametrize(
    "settings",
    [
        {"margin_cos": 0.0},
        {"margin_cos": -0.6, "max_steps": 60},
        {"margin_cos": 0.2, "utility_form": "norm"},
        {"margin_cos": -0.7, "lambda_id": 3.0, "lambda_ut": 0.1},
        {"margin_cos": -0.6, "lambda_ut": 0.0},
        {"margin_cos": 0.9, "min_steps": 7},
        {"margin_cos": 0.3, "max_drift": 0.01, "max_steps": 150},
        {"margin_cos": 0.0, "lambda_id": 0.0, "max_drift": 0.02},
        {"margin_cos": -1.0, "max_steps": 0, "min_steps": 0},
    ],
)
def test_the_batch_gives_what_a_plain_loop_over_single_images_gives(toy, images, settings) -> None:
    settings = {"max_steps": 40, **settings}
    stop = {"stop": "joint"} if "max_drift" in settings else {}
    result = optimize_latents(images, *parts_of(toy), **settings, **stop)
    for i, image in enumerate(images):
        w, steps, met, cos, drift = naive(toy, image, **settings)
        assert (int(result.steps[i]), bool(result.converged[i])) == (steps, met)
        torch.testing.assert_close(result.w[i], w, rtol=0, atol=1e-9)
        assert float(result.cos_end[i]) == pytest.approx(cos, abs=1e-9)
        assert float(result.drift_end[i]) == pytest.approx(drift, abs=1e-5)
        start = naive(toy, image, margin_cos=-1.0, max_steps=0, min_steps=0)
        assert float(result.cos_start[i]) == pytest.approx(start[3], abs=1e-9)


def test_the_result_holds_together(toy, images) -> None:
    result = optimize_latents(images, *parts_of(toy), margin_cos=-0.6, max_steps=60)
    assert result.converged.any(), "the setting must have something to show"
    torch.testing.assert_close(result.image, toy.synthesis(result.w, "const").clamp(0, 1), rtol=0, atol=1e-12)
    a, b = toy.identity(images), toy.identity(result.image)
    torch.testing.assert_close(result.cos_end, (a * b).sum(1) / a.norm(dim=1) / b.norm(dim=1))
    assert (result.cos_end[result.converged] <= -0.6 + 1e-8).all()
    assert (result.cos_end < result.cos_start).all()
    drift = (toy.utility.features(images) - toy.utility.features(result.image)).square().mean(1)
    torch.testing.assert_close(result.drift_end, drift)


def _one_at_a_time(images: Tensor, net: Any, **settings: Any) -> LatentOptimizationResult:
    return LatentOptimizationResult.cat([optimize_latents(image[None], *parts_of(net), **settings) for image in images])


def test_a_batch_equals_independent_runs_on_untrained_networks() -> None:
    # 20 steps: with random weights the descent is chaotic and doubles round-off at each of them.
    net, x = tiny_network().double(), phantoms(2, dtype=torch.float64)
    batch = optimize_latents(x, *parts_of(net), max_steps=20, **ENDLESS)
    alone = _one_at_a_time(x, net, max_steps=20, **ENDLESS)
    assert batch.steps.tolist() == [20, 20]
    assert (batch.w - net.encoder(x)).abs().max() > 0.01, "nothing moved"
    assert (batch.w - alone.w).abs().max() < 1e-6
    assert (batch.image - alone.image).abs().max() < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"margin_cos": -0.5}, ENDLESS], ids=["paper", "all steps"])
def test_a_batch_equals_independent_runs_on_the_reference_networks(settings) -> None:
    models = REPOSITORY / "bundle" / "models"
    if not {"aegan", "identity", "utility"} <= read_index(models).keys():
        pytest.skip("bundle/models lacks the reference weights")
    net = load_anonymizer(models).double()
    x = phantoms(2, size=64, dtype=torch.float64)
    batch = optimize_latents(x, *parts_of(net), max_steps=50, **settings)
    alone = _one_at_a_time(x, net, max_steps=50, **settings)
    assert batch.steps.tolist() == alone.steps.tolist()
    assert (batch.w - net.encoder(x)).abs().max() > 0.01, "nothing moved"
    assert (batch.w - alone.w).abs().max() < 1e-6


def _row_by_row(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda rows, *rest: torch.cat([function(row[None], *rest) for row in rows])


def test_without_round_off_a_batch_equals_independent_runs_to_the_last_bit(toy) -> None:
    # Kernels that see one row at a time round alike in both; what is left is the method's own book-keeping.
    x = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    settings: dict[str, Any] = {"margin_cos": -0.6, "max_steps": 80}
    batch = optimize_latents(x, *map(_row_by_row, parts_of(toy)), **settings)
    alone = _one_at_a_time(x, toy, **settings)
    assert len(set(batch.steps.tolist())) > 2, "images must leave at different steps"
    assert torch.equal(batch.w, alone.w)
    assert torch.equal(batch.steps, alone.steps)
    assert torch.equal(batch.cos_end, alone.cos_end)


def test_finished_images_cost_nothing_more(toy, images) -> None:
    seen: list[int] = []

    def identity(image: Tensor) -> Tensor:
        seen.append(image.shape[0])
        return toy.identity(image)

    left: list[tuple[int, int]] = []
    result = optimize_latents(
        images,
        toy.encoder,
        toy.synthesis,
        identity,
        toy.utility.features,
        margin_cos=-0.6,
        max_steps=60,
        on_step=lambda step, unfinished: left.append((step, unfinished)),
    )
    steps = result.steps.tolist()
    assert len(set(steps)) > 1
    # Once for the real images, then each image once for every step it makes and once where it ends.
    expected = [sum(s >= step for s in steps) for step in range(max(steps) + 1)]
    assert seen == [5, *expected]
    assert left == [(step, sum(s > step for s in steps)) for step in range(max(steps) + 1)]


def test_features_of_the_real_images_are_computed_once(toy, images) -> None:
    calls = {"identity": 0, "utility": 0, "encoder": 0}

    def counted(name: str, function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def call(image: Tensor) -> Tensor:
            if image.shape == images.shape and torch.equal(image, images):
                calls[name] += 1
                assert not torch.is_grad_enabled()
            return function(image)

        return call

    optimize_latents(
        images,
        counted("encoder", toy.encoder),
        toy.synthesis,
        counted("identity", toy.identity),
        counted("utility", toy.utility.features),
        max_steps=4,
        **ENDLESS,
    )
    assert calls == {"identity": 1, "utility": 1, "encoder": 1}


def test_joint_stop_waits_for_the_utility(toy, images) -> None:
    paper = optimize_latents(images, *parts_of(toy), margin_cos=-0.6, max_steps=300)
    limit = float(paper.drift_end.min()) * 0.8
    joint = optimize_latents(images, *parts_of(toy), margin_cos=-0.6, max_steps=300, stop="joint", max_drift=limit)
    assert paper.converged.all()
    assert (joint.steps >= paper.steps).all() and (joint.steps > paper.steps).any()
    assert joint.converged.any()
    assert (joint.drift_end[joint.converged] <= limit).all()
    assert (joint.cos_end[joint.converged] <= -0.6 + 1e-8).all()


def test_a_lower_margin_takes_more_steps_and_ends_lower(toy, images) -> None:
    high = optimize_latents(images, *parts_of(toy), margin_cos=-0.4, max_steps=200)
    low = optimize_latents(images, *parts_of(toy), margin_cos=-0.8, max_steps=200)
    assert (low.steps > high.steps).all()
    assert (low.cos_end < high.cos_end).all()


def test_at_least_min_steps_are_made(toy, images) -> None:
    assert optimize_latents(images, *parts_of(toy), margin_cos=1.0).steps.tolist() == [1] * 5
    assert optimize_latents(images, *parts_of(toy), margin_cos=1.0, min_steps=0).steps.tolist() == [0] * 5
    assert optimize_latents(images, *parts_of(toy), margin_cos=1.0, min_steps=9).steps.tolist() == [9] * 5


def test_no_steps_give_the_reconstruction_and_say_whether_it_is_far_enough(toy, images) -> None:
    result = optimize_latents(images, *parts_of(toy), margin_cos=0.5, max_steps=0, min_steps=0)
    torch.testing.assert_close(result.image, toy.synthesis(toy.encoder(images)).clamp(0, 1), rtol=0, atol=0)
    assert torch.equal(result.cos_start, result.cos_end)
    assert torch.equal(result.converged, result.cos_end <= 0.5 + 1e-8)
    none = optimize_latents(images, *parts_of(toy), margin_cos=-1.0, max_steps=0, min_steps=0)
    assert not none.converged.any()


def test_without_the_identity_loss_the_diagnosis_alone_is_fitted(toy, images) -> None:
    result = optimize_latents(images, *parts_of(toy), lambda_id=0.0, stop="joint", max_drift=0.0, max_steps=100)
    assert (result.drift_end < 0.5 * result.drift_start).all()


def test_without_the_utility_loss_the_diagnosis_drifts_further(toy, images) -> None:
    with_utility = optimize_latents(images, *parts_of(toy), margin_cos=-0.6, max_steps=300)
    without = optimize_latents(images, *parts_of(toy), margin_cos=-0.6, max_steps=300, lambda_ut=0.0)
    assert without.converged.all() and with_utility.converged.all()
    assert without.drift_end.sum() > 1.02 * with_utility.drift_end.sum()


def test_noise_of_the_loop_is_that_of_the_output(toy, images) -> None:
    results = {
        mode: optimize_latents(images, *parts_of(toy), max_steps=5, noise_mode=mode) for mode in ("const", "none")
    }
    for mode, result in results.items():
        torch.testing.assert_close(result.image, toy.synthesis(result.w, mode).clamp(0, 1), rtol=0, atol=1e-12)
    assert not torch.equal(results["const"].w, results["none"].w)


def test_the_same_call_gives_the_same_bits(images) -> None:
    net, x = tiny_network(), phantoms(2)
    one, two = (optimize_latents(x, *parts_of(net), max_steps=3, margin_cos=-1.0) for _ in range(2))
    assert torch.equal(one.w, two.w) and torch.equal(one.image, two.image)


def test_it_works_where_gradients_are_off(toy, images) -> None:
    expected = optimize_latents(images, *parts_of(toy), max_steps=10)
    with torch.no_grad():
        result = optimize_latents(images, *parts_of(toy), max_steps=10)
        assert not torch.is_grad_enabled()
    assert torch.equal(result.w, expected.w)
    assert not any(t.requires_grad for t in (result.image, result.w, result.cos_start, result.cos_end))


def test_only_the_code_moves(toy, images) -> None:
    toy.requires_grad_(True)  # a caller who forgot to freeze
    before = {k: v.clone() for k, v in toy.state_dict().items()}
    given = images.clone()
    result = optimize_latents(images, *parts_of(toy), max_steps=5, **ENDLESS)
    assert (result.w - toy.encoder(images)).abs().max() > 0.01
    assert all(torch.equal(v, before[k]) for k, v in toy.state_dict().items())
    assert all(p.grad is None for p in toy.parameters())
    assert torch.equal(images, given)


def test_a_noisy_start_belongs_to_the_seed_of_the_image(toy, images) -> None:
    def start(rows: list[int], seeds: list[int], start_noise: float = 0.5) -> Tensor:
        at: dict[str, Any] = {"max_steps": 0, "min_steps": 0, "start_noise": start_noise}
        return optimize_latents(images[rows], *parts_of(toy), seeds=seeds, **at).w

    both = start([0, 1], [7, 8])
    torch.testing.assert_close(both[1:], start([1], [8]), rtol=0, atol=1e-12)
    assert (both[0] - start([0], [9])[0]).abs().max() > 0.01
    codes = toy.encoder(images[[0, 1]])
    ratio = (start([0, 1], [7, 8], 1.0) - codes) / (both - codes)
    torch.testing.assert_close(ratio, torch.full_like(ratio, 2.0))
    assert torch.equal(start([0, 1], [7, 8], 0.0), codes)


def test_values_outside_the_range_of_images_are_clamped_in_loop_and_output(images) -> None:
    class Bright(nn.Module):
        def forward(self, w: Tensor, noise_mode: str = "const") -> Tensor:
            return 3.0 * toy.synthesis(w, noise_mode)

    toy = ToyNet().double()
    seen: list[Tensor] = []

    def identity(image: Tensor) -> Tensor:
        seen.append(image.detach())
        return toy.identity(image)

    result = optimize_latents(images, toy.encoder, Bright(), identity, toy.utility.features, max_steps=3)
    assert 0.0 <= result.image.min() and result.image.max() == 1.0
    assert all(0.0 <= image.min() and image.max() <= 1.0 for image in seen)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"stop": "never"}, "stop"),
        ({"noise_mode": "random"}, "noise_mode"),
        ({"margin_cos": 1.01}, "margin_cos"),
        ({"margin_cos": math.nan}, "margin_cos"),
        ({"max_steps": 0}, "max_steps"),
        ({"max_steps": -1, "min_steps": -1}, "max_steps"),
        ({"lr": 0.0}, "lr"),
        ({"betas": (0.0, 1.0)}, "betas"),
        ({"betas": [0.9]}, "betas"),
        ({"lambda_id": -1.0}, "lambda_id"),
        ({"lambda_ut": -1.0}, "lambda_ut"),
        ({"max_drift": -0.1}, "max_drift"),
        ({"start_noise": -0.1}, "start_noise"),
        ({"start_noise": 0.1}, "seeds"),
        ({"start_noise": 0.1, "seeds": [1]}, "seeds"),
    ],
)
def test_settings_outside_their_range_are_refused(toy, images, settings, name) -> None:
    with pytest.raises(UsageError, match=name) as caught:
        optimize_latents(images, *parts_of(toy), **settings)
    assert caught.value.code == "GM-U050"


def test_an_unknown_form_of_the_utility_loss_is_refused(toy, images) -> None:
    with pytest.raises(UsageError) as caught:
        optimize_latents(images, *parts_of(toy), utility_form="l1")
    assert caught.value.code == "GM-U020"
