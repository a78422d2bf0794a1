"""The curve over the attacker's budget: nested parts, an alarm that grows with the budget, silence on noise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from attack_cohorts import SIZE, judged, knowledge, real_images, released
from attack_controls import is_silent

from gmia_monai.attacks.attackers import make_attackers
from gmia_monai.attacks.attackers.adaptive import AdaptiveAttacker, real_side, released_side, within_budget
from gmia_monai.attacks.attackers.frozen import FrozenAttacker
from gmia_monai.attacks.attackers.owner import OwnerAttacker
from gmia_monai.attacks.base import AttackerKnowledge, Judged
from gmia_monai.attacks.budget import BudgetAttack, n_training_pairs
from gmia_monai.attacks.pool import AttackerPool
from gmia_monai.attacks.refit import RefitRecipe
from gmia_monai.data.release import Release
from gmia_monai.errors import UsageError
from gmia_monai.metrics.results import RunContext
from gmia_monai.networks import IdentityNet, save_network

CONTEXT = RunContext("x", "p")
PLAIN = {"shift_px": 0, "rotate_deg": 0.0, "zoom": 0.0, "contrast": 0.0, "erase_prob": 0.0}


@pytest.fixture(scope="module")
def arcface(tmp_path_factory):
    path = tmp_path_factory.mktemp("budget") / "arcface.safetensors"
    arguments = {"image_size": SIZE, "architecture": "small", "embedding_dim": 32}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_network(path, IdentityNet(**arguments), arguments)
    return [path]


def _attack(arcface, steps: int, seed=0) -> BudgetAttack:
    recipe = RefitRecipe(steps=steps, patients=16, lr=2e-3, validate_every=steps, **PLAIN)
    return BudgetAttack(AttackerPool(make_attackers(["adaptive_cross"], arcface, recipe=recipe)), seed, n_boot=40)


def _rolled(name: str) -> Judged:
    """Moved in a circle and inverted: what an attacker has to learn from releases."""
    real = real_images(name)
    pixels = 1.0 - np.roll(real.pixels, (SIZE // 2, SIZE // 4), axis=(2, 3))
    return Judged(real, Release("rolled", pixels, tuple((i,) for i in range(len(real)))))


def test_a_larger_budget_holds_the_smaller_ones():
    side = released_side(released(real_images("a"), "unchanged"))
    patients = [set(within_budget(side, n, seed=3).patient.tolist()) for n in (3, 6, 12, 24)]
    assert [len(p) for p in patients] == [3, 6, 12, 24]
    assert patients[0] < patients[1] < patients[2] < patients[3]
    assert within_budget(side, None, 3) is side
    assert set(within_budget(side, 3, seed=4).patient.tolist()) != patients[0]


def test_training_pairs_are_counted_as_a_loop_counts_them():
    case = released(real_images("a"), "unchanged")
    few, real = within_budget(released_side(case), 5, seed=0), real_side(case)
    pairs = [
        (i, j)
        for i, (p, x) in enumerate(zip(few.patient, few.exposure, strict=True))
        for j, (q, y) in enumerate(zip(real.patient, real.exposure, strict=True))
        if p == q and x != y
    ]
    assert n_training_pairs(few, real) == len(pairs) == 5 * 3 * 2


def test_more_releases_teach_more(arcface):
    attack = _attack(arcface, steps=60)
    known = knowledge("unchanged")
    attack.fit(AttackerKnowledge(known.training, _rolled("a"), _rolled("v"), known.frozen))
    *curve, longer, gain, more = attack.score(_rolled("t"), CONTEXT)
    assert [line.name.split(".")[2] for line in curve] == ["1_of_8", "1_of_4", "1_of_2", "1_of_1"]
    assert longer.name == "verification_auc_budget.T1.3_times_the_updates.v1"
    assert longer.extra["updates"] == 180 == 3 * curve[-1].extra["updates"]
    assert longer.extra["training_pairs"] == curve[-1].extra["training_pairs"]
    assert more.value == pytest.approx(longer.value - curve[3].value, abs=2e-6) and more.low < more.value < more.high
    assert [line.extra["patients"] for line in curve] == [3, 6, 12, 24]
    assert [line.extra["training_pairs"] for line in curve] == [18, 36, 72, 144]
    assert curve[-1].low > 0.55 and curve[-1].value > curve[0].value + 0.05
    assert gain.value == pytest.approx(curve[3].value - curve[2].value, abs=2e-6) and gain.low < gain.value < gain.high
    drawn = attack.figure_data()["budget/T1"]
    assert drawn.shape == (4, 4) and drawn[1].tolist() == [line.value for line in curve]


def test_noise_teaches_nothing_however_much_there_is(arcface):
    attack = _attack(arcface, steps=1, seed=(0, 1))
    attack.fit(knowledge("noise"))
    *curve, gain, longer = attack.score(judged("noise"), CONTEXT)
    assert len(curve) == 5 and all(is_silent(line) for line in curve)
    assert gain.low <= 0 <= gain.high and longer.low <= 0 <= longer.high
    assert curve[0].extra["attacker_seeds"] == [0, 1] and len(curve[0].extra["auc_on_choice"]) == 2


def test_parts_of_one_patient_are_left_out(arcface):
    attack = _attack(arcface, steps=1)
    known = knowledge("unchanged")
    attack.fit(
        AttackerKnowledge(known.training, released(real_images("a", 5), "unchanged"), known.choice, known.frozen)
    )
    lines = attack.score(judged("unchanged"), CONTEXT)
    assert [line.extra.get("patients") for line in lines] == [2, 3, 5, 5, None, None]


def test_the_curve_is_of_the_refitted_attacker_that_is_best_on_v2(arcface):
    recipe = RefitRecipe(steps=1, patients=16, validate_every=1, **PLAIN)
    makers = make_attackers(["adaptive_released", "adaptive_cross"], arcface, recipe=recipe)

    class Chance(AdaptiveAttacker):
        def compare_positions(self, left, right, pairs):
            return np.random.default_rng(0).random(len(pairs))

    chance = {"chance": lambda: Chance("chance", arcface, "real", recipe), "frozen": FrozenAttacker}
    for best in makers:
        attack = BudgetAttack(AttackerPool(chance | {best: makers[best]}), n_boot=20)
        attack.fit(knowledge("unchanged"))
        lines = attack.score(judged("unchanged"), CONTEXT)
        assert {line.attacker for line in lines} == {best} and lines[0].value > 0.6


def test_without_an_attacker_that_is_refitted_there_is_no_curve():
    attack = BudgetAttack(AttackerPool({"frozen": FrozenAttacker}))
    with pytest.raises(UsageError, match="GM-U311"):
        attack.score(judged("noise"), CONTEXT)
    attack.fit(knowledge("noise"))
    assert attack.score(judged("noise"), CONTEXT) == [] and attack.figure_data() == {}


def test_only_what_the_network_says_counts(arcface, monkeypatch):
    recipe = RefitRecipe(steps=4, patients=16, validate_every=4, **PLAIN)
    attack = BudgetAttack(AttackerPool(make_attackers(["owner"], arcface, recipe=recipe)), n_boot=10)
    known = replace(knowledge("unchanged"), anonymize=lambda pixels, seed: pixels)
    monkeypatch.setattr(OwnerAttacker, "score", lambda *_: pytest.fail("its frozen encoder knows no budget"))
    attack.fit(known)
    lines = attack.score(judged("unchanged"), CONTEXT)
    assert len(lines) == 7 and {line.attacker for line in lines} == {"owner"}
