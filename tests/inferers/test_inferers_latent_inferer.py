"""The MONAI inferer: memory, batches, TorchScript, evaluators."""

from __future__ import annotations

import logging
import sys
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.data import MetaTensor
from monai.engines import SupervisedEvaluator
from monai.inferers import Inferer
from tiny_bundle import ToyNet, parts_of, phantoms, tiny_network
from torch import Tensor, nn

from gmia_monai.errors import ResourceError
from gmia_monai.inferers import LatentOptimizationInferer, ReconstructionInferer, optimize_latents

SETTINGS: dict[str, Any] = {"margin_cos": -0.6, "max_steps": 25}


@pytest.fixture
def toy() -> ToyNet:
    return ToyNet()


@pytest.fixture
def images() -> Tensor:
    return torch.rand(7, 1, 8, 8, generator=torch.Generator().manual_seed(1))


class SmallMemory(nn.Module):
    """A synthesis network that more than ``most`` images do not fit into."""

    def __init__(self, synthesis: nn.Module, most: int, error: Exception) -> None:
        super().__init__()
        self.inner, self.most, self.error = synthesis, most, error
        self.tried: list[int] = []

    def forward(self, w: Tensor, noise_mode: str = "const") -> Tensor:
        self.tried.append(w.shape[0])
        if w.shape[0] > self.most:
            raise self.error
        return self.inner(w, noise_mode)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried 8 bytes"),
    ],
    ids=["cuda", "python", "cpu"],
)
def test_the_batch_is_halved_until_it_fits(toy, images, error, caplog) -> None:
    expected = optimize_latents(images, *parts_of(toy), **SETTINGS)
    toy.synthesis = SmallMemory(toy.synthesis, 2, error)
    inferer = LatentOptimizationInferer(**SETTINGS)
    with caplog.at_level(logging.WARNING):
        result = inferer.optimize(images, toy)
    # 16 by default on a CPU, seven images: 7 does not fit, nor does 3, and one alone does.
    assert toy.synthesis.tried[:2] == [7, 3] and max(toy.synthesis.tried[2:]) == 1
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    torch.testing.assert_close(result.w, expected.w, rtol=0, atol=1e-4)
    assert result.steps.tolist() == expected.steps.tolist()
    assert inferer.batch_size == 1, "the next call starts with what fits"
    toy.synthesis.tried.clear()
    inferer.optimize(images[:3], toy)
    assert max(toy.synthesis.tried) == 1


def test_long_work_says_how_far_it_is(toy, images, caplog, monkeypatch) -> None:
    monkeypatch.setattr("gmia_monai.inferers.latent_inferer._TELL_EVERY_S", 0.0)
    with caplog.at_level(logging.INFO):
        LatentOptimizationInferer(**SETTINGS)(images, toy)
    assert caplog.messages[0].startswith("step 0, ") and len(caplog.messages) > 3
    assert caplog.messages[-1].endswith(" 0 images unfinished")


def test_an_image_that_does_not_fit_alone_is_a_coded_error(toy, images) -> None:
    toy.synthesis = SmallMemory(toy.synthesis, 0, torch.OutOfMemoryError("out of memory"))
    with pytest.raises(ResourceError) as caught:
        LatentOptimizationInferer(4, **SETTINGS)(images, toy)
    assert caught.value.code == "GM-R050"
    assert toy.synthesis.tried == [4, 2, 1]


def test_other_failures_are_not_taken_for_memory(toy, images) -> None:
    toy.synthesis = SmallMemory(toy.synthesis, 0, RuntimeError("shapes do not fit"))
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        LatentOptimizationInferer(**SETTINGS)(images, toy)
    assert toy.synthesis.tried == [7]


@pytest.mark.parametrize("batch_size", [1, 3, 7, None])
def test_the_batch_size_changes_nothing_but_round_off(toy, images, batch_size) -> None:
    inferer = LatentOptimizationInferer(batch_size, **SETTINGS)
    out = inferer(images, toy)
    expected = optimize_latents(images, *parts_of(toy), **SETTINGS)
    torch.testing.assert_close(out, expected.image, rtol=0, atol=1e-4)
    assert inferer.last_result is not None
    assert torch.equal(inferer.last_result.image, out)
    assert inferer.last_result.steps.tolist() == expected.steps.tolist()


def test_no_images_give_no_images(toy) -> None:
    inferer = LatentOptimizationInferer(**SETTINGS)
    assert inferer(torch.zeros(0, 1, 8, 8), toy).shape == (0, 1, 8, 8)
    assert inferer.last_result is not None and inferer.last_result.steps.shape == (0,)


def test_a_scripted_network_gives_the_same() -> None:
    net, x = tiny_network(), phantoms(2)
    scripted = torch.jit.script(net)
    inferer = LatentOptimizationInferer(margin_cos=-1.0, max_steps=2)
    expected = inferer(x, net)
    torch.testing.assert_close(inferer(x, scripted), expected, rtol=0, atol=1e-3)

    class Wrapper:  # as MONAI Deploy hands a model over
        predictor = scripted

    torch.testing.assert_close(inferer(x, Wrapper()), expected, rtol=0, atol=1e-3)
    assert (expected - net(x)).abs().max() > 1e-3


def test_meta_tensors_are_taken_as_tensors(toy, images) -> None:
    inferer = LatentOptimizationInferer(**SETTINGS)
    out = inferer(MetaTensor(images), toy)
    assert type(out) is Tensor
    assert torch.equal(out, inferer(images, toy))


def test_seeds_reach_the_start_in_the_order_of_the_images(toy, images) -> None:
    settings: dict[str, Any] = {"start_noise": 0.5, "max_steps": 0, "min_steps": 0}
    seeds = list(range(7))
    whole = LatentOptimizationInferer(**settings)
    parts = LatentOptimizationInferer(3, **settings)
    torch.testing.assert_close(parts(images, toy, seeds=seeds), whole(images, toy, seeds=seeds))
    assert (whole(images, toy, seeds=seeds[::-1]) - parts(images, toy, seeds=seeds)).abs().max() > 1e-3


def test_it_serves_an_evaluator(toy, images) -> None:
    inferer = LatentOptimizationInferer(**SETTINGS)
    assert isinstance(inferer, Inferer)
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=[images[:4], images[4:]],
        network=toy,
        inferer=inferer,
        prepare_batch=lambda batch, *args, **kwargs: (batch, None),
        decollate=False,
    )
    got: list[Tensor] = []

    evaluator.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: got.append(engine.state.output["pred"]))
    evaluator.run()
    expected = optimize_latents(images, *parts_of(toy), **SETTINGS)
    torch.testing.assert_close(torch.cat(got), expected.image, rtol=0, atol=1e-4)
    assert (expected.cos_end < expected.cos_start).all()


def test_reconstruction_stays_in_the_range_of_images() -> None:
    out = ReconstructionInferer()(torch.tensor([[-1.0, 0.25, 2.0]]), nn.Identity())
    assert out.tolist() == [[0.0, 0.25, 1.0]]


def test_bfloat16_takes_nearly_the_same_path() -> None:
    network, pixels = tiny_network(), phantoms(3)
    settings: dict[str, Any] = {"margin_cos": -0.9, "max_steps": 4, "lr": 0.01}
    plain = LatentOptimizationInferer(**settings).optimize(pixels, network)
    half = LatentOptimizationInferer(bfloat16=True, **settings).optimize(pixels, network)
    assert half.image.dtype == half.cos_end.dtype == torch.float32
    assert 0 < (half.image - plain.image).abs().mean() < 0.02
    torch.testing.assert_close(half.cos_end, plain.cos_end, atol=0.1, rtol=0)


def test_compiled_networks_take_the_same_path(toy, images, monkeypatch) -> None:
    compiled_parts: list[Any] = []
    compile_one = torch.compile
    monkeypatch.setattr(sys, "argv", ["benchmark", "--only", "['gmia']"])  # torch reads it, and took it for code
    monkeypatch.setattr(torch, "compile", lambda part, **how: compiled_parts.append(part) or compile_one(part, **how))
    plain = LatentOptimizationInferer(**SETTINGS).optimize(images, toy)
    compiled = LatentOptimizationInferer(compiled=True, **SETTINGS)
    for part in (images, images[:3]):  # another batch size, the same code
        found = compiled.optimize(part, toy)
        torch.testing.assert_close(found.image, plain.image[: len(part)], atol=1e-4, rtol=0)
        assert torch.equal(found.steps, plain.steps[: len(part)])
        assert len(compiled_parts) == 4, "each network once"
