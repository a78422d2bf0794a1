"""The guarded update: as the optimizer's own where all is finite, left out and counted where not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from gmia_monai.engines import AEGANTrainer, GANTrainer
from gmia_monai.engines.batches import batch_as_target
from gmia_monai.engines.confusion import ConfusionGame, ConfusionTrainer
from gmia_monai.engines.guarded import GuardedTrainer
from gmia_monai.errors import ResourceError
from gmia_monai.losses.adversarial import PathLengthPenalty
from gmia_monai.networks import AEGAN, Discriminator, MappedGenerator, SiameseVerifier, UtilityNet

LR = 0.1


def _net() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(3, 1)


class Steps(GuardedTrainer):
    """One step in each of two phases; batches say by how much to multiply each loss."""

    def __init__(self, net: nn.Module, factors: list[tuple[float, float]], **shared: Any) -> None:
        super().__init__("cpu", 1, [torch.tensor(pair) for pair in factors], **shared)
        self.net, self.optimizer, self.done = net, torch.optim.SGD(net.parameters(), LR), []

    def _iteration(self, engine: Any, batchdata: torch.Tensor) -> dict[str, float]:
        for phase, factor in zip("ab", batchdata, strict=True):
            loss = factor * self.net(torch.ones(1, 3)).square().sum()
            self.done.append(self._step(phase, self.optimizer, loss))
        return {}


def test_updates_are_those_of_the_optimizer_and_bad_ones_are_left_out():
    net, naive = _net(), _net()
    trainer = Steps(net, [(1.0, 0.5), (float("nan"), 2.0), (float("inf"), 1.0), (1.0, 1.0)], max_skipped=3)
    trainer.run()
    assert trainer.done == [True, True, False, True, False, True, True, True]
    for factor in (1.0, 0.5, 2.0, 1.0, 1.0, 1.0):
        loss = factor * naive(torch.ones(1, 3)).square().sum()
        grads = torch.autograd.grad(loss, list(naive.parameters()))
        with torch.no_grad():
            for parameter, grad in zip(naive.parameters(), grads, strict=True):
                parameter -= LR * grad
    for found, expected in zip(net.parameters(), naive.parameters(), strict=True):
        torch.testing.assert_close(found, expected)
    assert trainer._skipped == {"a": 0, "b": 0}, "counts begin anew with a good update"


def test_each_phase_counts_its_own():
    trainer = Steps(_net(), [(1.0, float("nan"))] * 5, max_skipped=3)
    with pytest.raises(ResourceError, match="3 b updates in a row") as caught:
        trainer.run()
    assert caught.value.code == "GM-R030" and trainer.state.iteration == 3


def _trainers() -> dict[str, Any]:
    """Constructors of the three trainers with all that they ask for."""
    gan, aegan, discriminator = MappedGenerator(32, 8, 256, 8), AEGAN(32, 8, 256, 8), Discriminator(32, 256, 8)
    game = ConfusionGame(_net(), SiameseVerifier("small", 8), UtilityNet(2, "small"))
    sgd = torch.optim.SGD(discriminator.parameters(), LR)
    data: list[Any] = [{}] * 4
    return {
        "gan": lambda **more: GANTrainer("cpu", 2, data, gan, discriminator, sgd, sgd, **more),
        "aegan": lambda **more: AEGANTrainer("cpu", 2, data, aegan, discriminator, sgd, sgd, **more),
        "confusion": lambda **more: ConfusionTrainer("cpu", 2, data, game, sgd, sgd, sgd, **more),
    }


@pytest.mark.parametrize("name", ["gan", "aegan", "confusion"])
def test_shared_arguments_reach_their_place_and_unknown_ones_are_refused(name):
    make, heard = _trainers()[name], []
    plain = make()
    assert (plain.max_skipped, plain.state.epoch_length, plain.amp, plain.non_blocking) == (10, 4, False, False)
    assert plain.prepare_batch is batch_as_target and plain.state.max_epochs == 2
    settings = {"max_skipped": 3, "amp": True, "non_blocking": True, "prepare_batch": print}
    handler = type("Handler", (), {"attach": lambda self, engine: heard.append(engine)})()
    found = make(**settings, epoch_length=2, train_handlers=[handler])
    assert {key: getattr(found, key) for key in settings} == settings
    assert found.state.epoch_length == 2 and heard == [found]
    with pytest.raises(TypeError, match="max_skiped"):
        make(max_skiped=3)


@pytest.mark.parametrize("name", ["gan", "aegan"])
def test_settings_of_the_regularisers_reach_their_place(name):
    make = _trainers()[name]
    published = {"r1_gamma": 1.0, "r1_interval": 16, "path_length_weight": 2.0, "path_length_interval": 4}
    plain = make()
    assert {key: getattr(plain, key) for key in published} == published and plain.path_length_batch_shrink == 2
    others = {key: value + 1 for key, value in published.items()}
    others |= {"path_length_batch_shrink": 1, "path_length": PathLengthPenalty()}
    found = make(**others)
    assert {key: getattr(found, key) for key in others} == others
