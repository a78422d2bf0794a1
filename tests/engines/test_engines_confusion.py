"""Training against verifier and classifier: pairs, which losses move which network, guards."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from ignite.engine import Events
from tiny_bundle import save_tiny
from torch import Tensor, nn

from gmia_monai.data.cohort import Cohort, ImageRecord
from gmia_monai.engines.confusion import (
    ConfusionEvaluator,
    ConfusionGame,
    ConfusionTrainer,
    load_critic,
    make_generator,
    pair_datalist,
    pair_partners,
    recorded_findings,
)
from gmia_monai.errors import ResourceError, UsageError
from gmia_monai.networks import SiameseVerifier, UtilityNet, save_network
from gmia_monai.networks.deformation import DeformationNet
from gmia_monai.networks.image_translation import TranslationNet

TINY = (4, 4, 8, 8, 8, 4)
FOLDER = 1 << 20


def _batches(n: int, patients: int = 3) -> list[dict[str, Tensor]]:
    g = torch.Generator().manual_seed(0)
    return [
        {
            "image": torch.rand(2 * patients, 1, 32, 32, generator=g),
            "label": (torch.rand(2 * patients, 2, generator=g) < 0.5).float(),
            "patient": torch.arange(patients).repeat_interleave(2) * FOLDER,
        }
        for _ in range(n)
    ]


def _game(objective: str = "confusion", kind: str = "translation", **weights: float) -> ConfusionGame:
    torch.manual_seed(0)
    arguments = {"features": TINY} | ({"mu": 0.1} if kind == "deformation" else {})
    critics = SiameseVerifier("small", 8), UtilityNet(2, "small")
    return ConfusionGame(make_generator(kind, arguments), *critics, objective, **weights)


def _trainer(game: ConfusionGame, n: int = 2, lr: float = 1e-3, **more: Any) -> ConfusionTrainer:
    optimizers = [torch.optim.SGD(net.parameters(), lr) for net in (game.generator, game.verifier, game.classifier)]
    return ConfusionTrainer("cpu", 1, _batches(n), game, *optimizers, **more)


def _weights(net: nn.Module) -> dict[str, Tensor]:
    return {k: v.detach().clone() for k, v in net.named_parameters()}


def _moved(net: nn.Module, before: dict[str, Tensor]) -> bool:
    return any(not torch.equal(v, before[k]) for k, v in net.named_parameters())


def test_partners_are_balanced_within_a_folder_and_never_twice():
    people = torch.tensor([3, 7, 1, 9, 4, 8])
    folders = torch.tensor([0, 1, 0, 1, 0, 1])
    keys = (people * FOLDER + folders).repeat_interleave(2)
    partner, same = pair_partners(keys)
    assert sorted(partner.tolist()) == list(range(12))
    assert not (partner == torch.arange(12)).any()
    assert same.tolist() == [True, False] * 6
    assert torch.equal(keys % FOLDER, keys[partner] % FOLDER)
    assert torch.equal(same, people.repeat_interleave(2) == people.repeat_interleave(2)[partner])


def test_a_patient_alone_in_its_folder_or_drawn_twice_meets_itself():
    _, same = pair_partners(torch.tensor([5, 5, 6, 6, 6, 6]) * FOLDER)
    assert same.tolist() == [True, False, True, True, True, False]
    partner, same = pair_partners(torch.tensor([5 * FOLDER] * 2 + [6 * FOLDER + 1] * 2))
    assert same.all() and partner.tolist() == [1, 0, 3, 2]


@pytest.mark.parametrize("patients", [[0, 0, 1], [0, 1, 1, 0]])
def test_a_batch_without_twos_is_refused(patients):
    with pytest.raises(UsageError, match="GM-U049"):
        pair_partners(torch.tensor(patients) * FOLDER)


def test_items_of_one_patient_in_two_folders_are_no_pair(tmp_path):
    records = [ImageRecord(tmp_path / f"{i}.png", f"p{i // 3}", folder="ab"[i % 2], labels=()) for i in range(6)]
    items = pair_datalist(Cohort(tuple(records)), ["Mass"])
    keys = [item["patient"] for item in items]
    assert len(set(keys)) == 4 and keys[0] == keys[2] != keys[1] and keys[3] == keys[5]
    assert [key // FOLDER for key in keys] == [0, 0, 0, 1, 1, 1]


def test_the_first_phase_learns_the_identity_alone():
    game = _game()
    before = [_weights(net) for net in (game.generator, game.verifier, game.classifier)]
    own = torch.optim.Adam(game.generator.parameters(), 1e-2)
    trainer = _trainer(game, 2, pretraining=2, pretraining_optimizer=own)
    real = _batches(1)[0]["image"]
    trainer.run()
    out = trainer.state.output
    assert out["loss"] == out["pixel_loss"] > 0 and out["verifier_loss"] == out["verification_loss"] == 0
    moved = [_moved(n, b) for n, b in zip((game.generator, game.verifier, game.classifier), before, strict=True)]
    assert moved == [True, False, False]
    assert own.state and torch.isfinite(game.generator(real)).all()


@pytest.mark.parametrize("kind", ["deformation", "translation"])
@pytest.mark.parametrize("objective", ["confusion", "two_sided", "minimax"])
def test_an_iteration_moves_all_three_and_its_terms_are_plain_calculations(objective, kind):
    game = _game(objective, kind, lam_ac=0.7, lam_ver=1.3)
    before = [_weights(net) for net in (game.generator, game.verifier, game.classifier)]
    batch = _batches(1)[0]
    x, y = batch["image"], batch["label"]
    with torch.no_grad():
        fake = game.generator.train()(x)
        v, c = game.verifier.eval(), game.classifier.eval()
        other = v(fake) if objective == "minimax" else v(x)
        z = v.compare(v(fake), other[[1, 2, 3, 4, 5, 0]])
    same = torch.tensor([1.0, 0.0] * 3)
    cross = F.binary_cross_entropy_with_logits(z, same)
    told = {
        "confusion": -(1 - torch.sigmoid(z)).log().mean(),
        "two_sided": 0.5 * sum((F.softplus(z) - z / 2 - torch.log(torch.tensor(2.0)))[m].mean()
                               for m in (same > 0, same == 0)),
        "minimax": -cross,
    }[objective]  # fmt: skip
    task = F.binary_cross_entropy_with_logits(c(fake), y)
    trainer = _trainer(_game(objective, kind, lam_ac=0.7, lam_ver=1.3), 1)
    game = trainer.game
    trainer.run()
    out = trainer.state.output
    assert out["verification_loss"] == pytest.approx(told.item(), rel=1e-3, abs=1e-6)
    assert out["utility_loss"] == pytest.approx(task.item(), rel=1e-3)
    assert out["loss"] == pytest.approx(0.7 * out["utility_loss"] + 1.3 * out["verification_loss"], rel=1e-5)
    assert out["verifier_loss"] > 0 and out["classifier_loss"] > 0
    nets = (game.generator, game.verifier, game.classifier)
    assert all(_moved(net, b) for net, b in zip(nets, before, strict=True))
    assert all(p.requires_grad for net in nets for p in net.parameters())


def test_critics_are_in_eval_mode_as_a_loss_and_learn_only_in_their_own_step():
    game = _game()
    trainer = _trainer(game, 1)
    seen = []
    game.verifier.register_forward_hook(lambda m, i, o: seen.append((m.training, o.requires_grad, len(o))))
    buffers = {k: v.clone() for k, v in game.verifier.named_buffers()}
    trainer.run()
    # changed images with a way back to the generator, real ones without, then both to learn from
    assert seen == [(False, True, 6), (False, False, 6), (True, True, 12)]
    assert any(not torch.equal(v, buffers[k]) for k, v in game.verifier.named_buffers())


def test_the_evaluator_measures_and_changes_nothing():
    game = _game("minimax")
    before = {k: v.clone() for net in (game.generator, game.verifier) for k, v in net.state_dict().items()}
    evaluator = ConfusionEvaluator("cpu", _batches(1), game)
    evaluator.run()
    out = evaluator.state.output
    assert out["loss"] == pytest.approx(out["utility_loss"] + out["verification_loss"], rel=1e-5)
    assert out["verification_loss"] == pytest.approx(-out["verifier_loss"], rel=1e-5)
    assert out["pixel_loss"] == pytest.approx((out["pred"] - out["label"]).square().mean().item())
    after = {k: v for net in (game.generator, game.verifier) for k, v in net.state_dict().items()}
    assert all(torch.equal(v, after[k]) for k, v in before.items())


def test_an_update_that_is_not_finite_is_left_out_and_many_stop_the_training():
    trainer = _trainer(_game(), 3)
    trainer.data_loader[1]["image"][0] = float("nan")
    states: list[dict[str, Tensor]] = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda e: states.append(_weights(trainer.game.generator)))
    trainer.run()
    assert all(torch.equal(v, states[1][k]) for k, v in states[0].items())
    broken = _trainer(_game(), 4, max_skipped=2)
    for batch in broken.data_loader:
        batch["image"][:] = float("nan")
    with pytest.raises(ResourceError, match="GM-R030"):
        broken.run()


def test_unknown_generators_and_objectives_are_refused():
    assert isinstance(make_generator("deformation", {"features": TINY}), DeformationNet)
    assert isinstance(make_generator("translation", {"features": TINY}), TranslationNet)
    for make in (lambda: make_generator("gan", {}), lambda: _game("both")):
        with pytest.raises(UsageError, match="GM-U049"):
            make()


def test_critics_come_from_recorded_weights(tmp_path):
    folder = save_tiny(tmp_path)
    critic = load_critic(folder, "utility")
    assert all(p.requires_grad for p in critic.parameters())
    with pytest.raises(UsageError, match="GM-U049"):
        recorded_findings(folder)
    save_network(folder / "utility.safetensors", UtilityNet(2, "small"), {"n_findings": 2, "architecture": "small"},
                 findings=["Mass", "Edema"])  # fmt: skip
    assert recorded_findings(folder) == ["Mass", "Edema"]


@pytest.mark.parametrize(
    ("kind", "objective"), [("deformation", "confusion"), ("translation", "confusion"), ("translation", "minimax")]
)
def test_the_generator_lowers_its_loss_and_changes_images_as_its_paper_means_to(kind, objective):
    """Against critics that stand still: PriCheXy-Net moves pixels, Privacy-Net repaints them."""
    game = _game(objective, kind)
    nets = (game.generator, game.verifier, game.classifier)
    optimizers = [torch.optim.Adam(game.generator.parameters(), 1e-2)]
    optimizers += [torch.optim.SGD(net.parameters(), 0.0) for net in nets[1:]]
    trainer = ConfusionTrainer("cpu", 1, _batches(1) * 40, game, *optimizers)
    losses: list[float] = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda e: losses.append(e.state.output["loss"]))
    trainer.run()
    assert sum(losses[-5:]) < sum(losses[:5]) - 0.05
    image = _batches(1)[0]["image"]
    with torch.no_grad():
        changed = game.generator.eval()(image)
    assert (changed - image).abs().mean() > 0.01
    if kind == "deformation":  # a sample between pixels is no brighter and no darker than they are
        assert image.amin() - 1e-5 <= changed.amin() and changed.amax() <= image.amax() + 1e-5
        assert abs(changed.mean() - image.mean()) < 0.02
