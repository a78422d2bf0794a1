"""Inversion undoes what can be undone, beats the release there, and gets nothing out of noise."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from attack_cohorts import SIZE, flat, judged, knowledge, released
from attack_controls import is_silent, shuffled
from torch import Tensor, nn

from gmia_monai.attacks.attackers.base import EmbeddingAttacker
from gmia_monai.attacks.attackers.embedder import NetworkEmbedder
from gmia_monai.attacks.attackers.frozen import FrozenAttacker
from gmia_monai.attacks.attackers.metadata import MetadataAttacker
from gmia_monai.attacks.base import AttackerKnowledge, Judged, TooLittleDataError
from gmia_monai.attacks.inversion import InversionAttack
from gmia_monai.attacks.pool import AttackerPool
from gmia_monai.attacks.training import Schedule
from gmia_monai.errors import UsageError
from gmia_monai.metrics.results import Result, RunContext

FAST = Schedule(steps=120, lr=4e-3, weight_decay=0.0, validate_every=60)
CONTEXT = RunContext("x", "p")


def half_negative(case: Judged) -> Judged:
    """Inverts the upper half of each released image: for one who looks at the whole, the halves cancel out."""
    pixels = case.release.pixels.copy()
    pixels[:, :, : SIZE // 2] = 1.0 - pixels[:, :, : SIZE // 2]
    return Judged(case.real, case.release.with_pixels(pixels, "half negative"))


def _known(system: str) -> AttackerKnowledge:
    if system != "half_negative":
        return knowledge(system)
    known = knowledge("unchanged")
    return replace(known, own=half_negative(known.own), choice=half_negative(known.choice))


@cache
def _fitted(system: str) -> InversionAttack:
    attack = InversionAttack(AttackerPool({"frozen": FrozenAttacker}), n_boot=200, schedule=FAST, batch_size=8)
    attack.fit(_known(system))
    return attack


def _table(system: str, case: Judged) -> dict[str, Result]:
    return {r.name: r for r in _fitted(system).score(case, CONTEXT)}


@pytest.mark.parametrize("threat", ["T1", "T2"])
def test_it_beats_a_release_that_hides_the_person_from_the_judge_alone(threat):
    table = _table("half_negative", half_negative(judged("unchanged")))
    found, release, gain = (table[f"inversion_{figure}.{threat}.v1"] for figure in ("auc", "auc_release", "gain"))
    assert found.value > 0.99 and found.low > 0.85 and is_silent(release)  # 24 of 24 patients
    assert gain.value == pytest.approx(found.value - release.value, abs=1e-5)
    assert gain.low > 0.2 and gain.extra["beats_release"] is True
    assert gain.extra["signs"] == [[found.extra["sign"][0], release.extra["sign"][0]]]


def test_the_gain_is_paired():
    """Where the output is all right, only the release varies, and so does the gain, by as much."""
    table = _table("half_negative", half_negative(judged("unchanged")))
    release, gain = table["inversion_auc_release.T1.v1"], table["inversion_gain.T1.v1"]
    assert (gain.low, gain.high) == (
        pytest.approx(1 - release.high, abs=0.02),
        pytest.approx(1 - release.low, abs=0.02),
    )


def test_a_negative_is_turned_back_and_read_from_its_far_side():
    table = _table("negative", judged("negative"))
    found, release = table["inversion_auc.T1.v1"], table["inversion_auc_release.T1.v1"]
    assert found.value > 0.95 and found.extra["sign"] == [1.0]
    assert release.value > 0.95 and release.extra["sign"] == [-1.0]
    assert table["inversion_psnr.v1"].value > 15 and table["inversion_psnr.v1"].low < table["inversion_psnr.v1"].high
    assert table["inversion_gain.T1.v1"].extra["beats_release"] is False, "nothing is left to gain"


def test_it_rings_on_unchanged_images():
    table = _table("unchanged", judged("unchanged"))
    for threat in ("T1", "T2"):
        assert table[f"inversion_auc.{threat}.v1"].low > 0.85
        assert table[f"inversion_auc_release.{threat}.v1"].low > 0.85
        assert table[f"inversion_gain.{threat}.v1"].extra["beats_release"] is False


def test_where_the_judge_tells_all_the_network_that_looks_most_like_the_real_image_is_kept():
    """A darker release: who it is can be told of it at once, and the error of pixels falls as the network learns."""

    def darker(case: Judged) -> Judged:
        return Judged(case.real, case.release.with_pixels(0.85 * case.release.pixels, "darker"))

    known = knowledge("unchanged")
    attack = InversionAttack(AttackerPool({"frozen": FrozenAttacker}), n_boot=10, schedule=FAST, batch_size=8)
    attack.fit(replace(known, own=darker(known.own), choice=darker(known.choice)))
    table = {r.name: r for r in attack.score(darker(judged("unchanged")), CONTEXT)}
    assert table["inversion_auc_release.T2.v1"].value > 0.99, "nothing is left to gain for the judge"
    error = np.square(0.15 * judged("unchanged").real.pixels).mean(axis=(1, 2, 3))
    before = float((-10 * np.log10(error)).mean())
    assert table["inversion_psnr.v1"].value > before + 3


def test_signs_are_those_of_v2():
    """A release that is inverted in T alone: the sign of V2 reads it the wrong way round."""
    table = _table("unchanged", judged("negative"))
    assert table["inversion_auc_release.T2.v1"].value < 0.1
    assert table["inversion_auc_release.T2.v1"].extra["sign"] == [1.0]


@pytest.mark.parametrize(
    ("system", "case"),
    [("noise", judged("noise")), ("unchanged", shuffled(judged("unchanged")))],
    ids=["noise", "shuffled patients"],
)
def test_it_is_silent_where_nothing_is_of_the_patient(system, case):
    table = _table(system, case)
    for threat in ("T1", "T2"):
        assert is_silent(table[f"inversion_auc.{threat}.v1"])
        assert is_silent(table[f"inversion_auc_release.{threat}.v1"])
        gain = table[f"inversion_gain.{threat}.v1"]
        # nothing was learned: the release itself was kept
        assert (gain.low == gain.value == gain.high == 0.0) or is_silent(gain, 0.0)
        assert table[f"inversion_gain.{threat}.v1"].extra["beats_release"] is False


class _Encoder(nn.Module):
    """Remembers whether gradients went through it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(SIZE * SIZE, 4)
        self.learned_from = False

    def forward(self, image: Tensor) -> Tensor:
        self.learned_from |= image.requires_grad
        return self.linear(image.flatten(1))


class _Attacker(EmbeddingAttacker):
    def __init__(self, name: str, network: _Encoder) -> None:
        super().__init__(name)
        self.network = network

    def fit(self, knowledge: AttackerKnowledge, seed: int) -> None:
        self.use(NetworkEmbedder(self.network))


@pytest.mark.parametrize(
    ("names", "judge", "in_loss"),
    [
        (("frozen", "arcface", "snn"), "snn", "arcface"),
        (("frozen", "arcface"), "arcface", "frozen"),
        (("frozen", "snn"), "snn", "frozen"),
        (("snn", "arcface"), "snn", "arcface"),
        (("arcface",), "arcface", None),
        (("snn",), "snn", None),
    ],
)
def test_the_judge_is_never_in_the_loss(names, judge, in_loss):
    torch.manual_seed(0)
    networks = {name: _Encoder() for name in names}
    pool = AttackerPool({name: lambda n=name: _Attacker(n, networks[n]) for name in names})
    attack = InversionAttack(pool, n_boot=20, schedule=Schedule(steps=2, validate_every=2), batch_size=2)
    attack.fit(knowledge("negative"))
    assert [name for name, network in networks.items() if network.learned_from] == ([in_loss] if in_loss else [])
    for line in attack.score(judged("negative"), CONTEXT):
        if line.name != "inversion_psnr.v1":
            best = line.name.startswith("inversion_auc_release_best")
            assert line.attacker in names if best else line.attacker == judge
            assert line.extra["network_in_loss"] == in_loss and line.extra["loss_seed"] == [1 if in_loss else None]


@pytest.mark.parametrize(("seeds", "in_loss"), [((0, 1, 2), [1, 2, 0]), ((4,), [5]), ((3, 3, 7), [7, 7, 3])])
def test_the_network_in_the_loss_is_of_another_seed_than_the_judge(seeds, in_loss):
    """As the Siamese network of a seed was made from the ArcFace one of that seed."""
    torch.manual_seed(0)
    networks = {(name, seed): _Encoder() for name in ("snn", "arcface") for seed in {*seeds, *in_loss}}

    class OfSeed(_Attacker):
        def fit(self, knowledge: AttackerKnowledge, seed: int) -> None:
            self.network = networks[self.name, seed]
            super().fit(knowledge, seed)

    pool = AttackerPool({name: lambda n=name: OfSeed(n, _Encoder()) for name in ("snn", "arcface")})
    attack = InversionAttack(pool, seeds, n_boot=20, schedule=Schedule(steps=2, validate_every=2), batch_size=2)
    attack.fit(knowledge("negative"))
    assert {key for key, network in networks.items() if network.learned_from} == {("arcface", k) for k in in_loss}
    lines = [line for line in attack.score(judged("negative"), CONTEXT) if line.name != "inversion_psnr.v1"]
    assert lines and all(line.extra["loss_seed"] == in_loss for line in lines)


class _Seeing(EmbeddingAttacker):
    """Looks at the lower half of images alone, which :func:`half_negative` leaves as it is, or at nothing."""

    def fit(self, knowledge: AttackerKnowledge, seed: int) -> None:
        lower = (lambda x: flat(x[:, :, SIZE // 2 :])) if self.name == "arcface" else (lambda x: flat(0 * x))
        self.use(lower)


def test_the_release_is_scored_by_who_tells_most_of_it_too():
    """A judge that is blind to the release would make any output a success."""
    pool = AttackerPool(
        {"frozen": FrozenAttacker, "arcface": lambda: _Seeing("arcface"), "snn": lambda: _Seeing("snn")}
    )
    attack = InversionAttack(pool, (0, 1), 100, Schedule(steps=2, validate_every=2), 2)
    attack.fit(_known("half_negative"))
    case = half_negative(judged("unchanged"))
    table = {r.name: r for r in attack.score(case, CONTEXT)}
    for threat in ("T1", "T2"):
        best, gain = table[f"inversion_auc_release_best.{threat}.v1"], table[f"inversion_gain.{threat}.v1"]
        assert best.attacker == "arcface" == gain.extra["best_on_release"] and gain.attacker == "snn"
        assert best.low > 0.85 and best.extra["sign"] == [1.0, 1.0] and best.extra["auc_on_choice"] > 0.95
        assert table[f"inversion_auc_release.{threat}.v1"].value == 0.5
        value, low, high = gain.extra["gain_over_best"]
        assert value == pytest.approx(table[f"inversion_auc.{threat}.v1"].value - best.value, abs=2e-6)
        assert low <= value <= high < 0 and gain.extra["beats_best_on_release"] is False


def test_an_output_may_beat_the_release_at_its_best():
    table = _table("half_negative", half_negative(judged("unchanged")))
    gain = table["inversion_gain.T1.v1"]
    assert gain.extra["beats_best_on_release"] is True, "there is no one but the judge"
    assert gain.extra["gain_over_best"] == [gain.value, gain.low, gain.high]
    best, release = table["inversion_auc_release_best.T1.v1"], table["inversion_auc_release.T1.v1"]
    assert (best.value, best.low, best.high) == (release.value, release.low, release.high)


def test_figures_are_means_over_seeds():
    def table(seeds: tuple[int, ...]) -> dict[str, Result]:
        attack = InversionAttack(
            AttackerPool({"frozen": FrozenAttacker}), seeds, 30, Schedule(steps=12, lr=4e-3, validate_every=12), 8
        )
        attack.fit(_known("half_negative"))
        return {r.name: r for r in attack.score(half_negative(judged("unchanged")), CONTEXT)}

    three, single = table((0, 1, 2)), [table((seed,)) for seed in range(3)]
    for name, line in three.items():
        values = [of_seed[name].value for of_seed in single]
        assert line.value == pytest.approx(np.mean(values), abs=1e-5) and line.extra["attacker_seeds"] == [0, 1, 2]
        assert "auc_release" in name or len(set(values)) == 3, "the seeds are those of the networks"
    with pytest.raises(UsageError, match="GM-U316"):
        InversionAttack(AttackerPool({"frozen": FrozenAttacker}), ())


def test_a_judge_is_needed():
    with pytest.raises(UsageError, match="GM-U326"):
        InversionAttack(AttackerPool({"metadata": MetadataAttacker})).fit(knowledge("noise"))
    with pytest.raises(UsageError, match="GM-U311"):
        InversionAttack(AttackerPool({"frozen": FrozenAttacker})).score(judged("noise"), CONTEXT)


def test_patients_with_one_image_each_are_too_little():
    case = judged("unchanged")
    single = released(case.real.take(np.arange(0, len(case.real), 3)), "unchanged")
    with pytest.raises(TooLittleDataError, match="GM-U317"):
        _fitted("half_negative").score(single, CONTEXT)
