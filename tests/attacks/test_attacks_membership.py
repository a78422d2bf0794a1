"""Membership: the alarm of every signal on an overfitted generator, silence on noise and on shuffled membership."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from attack_cohorts import flat, real_images, released

from gmia_monai.attacks import ATTACKS
from gmia_monai.attacks.base import AttackerKnowledge, Judged, Pixels, TooLittleDataError
from gmia_monai.attacks.membership import MembershipAttack, membership_lines
from gmia_monai.attacks.shadow import AutoencoderTrainer, Shadow
from gmia_monai.attacks.training import Schedule
from gmia_monai.data.release import RealImages, Release
from gmia_monai.errors import ManifestError, UsageError
from gmia_monai.metrics.intervals import patient_bootstrap_figures
from gmia_monai.metrics.limits import wilson_interval
from gmia_monai.metrics.results import Result, RunContext
from gmia_monai.metrics.verification import SortedScores

TRAIN = AutoencoderTrainer(Schedule(steps=100, lr=3e-3, weight_decay=0.0))
PAIRED = {"loss_pixels", "loss_calibrated", "loss_frozen", "shadow"}
ALWAYS = {"supervised", *(f"nearest_{k}{s}" for k in ("", "calibrated_") for s in ("pixels", "frozen"))}
Make = Callable[[RealImages], Judged]


def principal(images: Pixels, seed: int) -> Callable[[Pixels], Pixels]:
    """A linear auto-encoder with nearly as many components as images: overfitted."""
    rows = images.reshape(len(images), -1)
    mean = rows.mean(axis=0)
    axes = np.linalg.svd(rows - mean, full_matrices=False)[2][: 3 * len(rows) // 4]

    def reconstruct(pixels: Pixels) -> Pixels:
        out = (pixels.reshape(len(pixels), -1) - mean) @ axes.T @ axes + mean
        return np.clip(out, 0, 1).reshape(pixels.shape).astype(np.float32)

    return reconstruct


def people(name: str) -> RealImages:
    return real_images(name, 80 if name == "s" else 40)


def one_to_one(system: Callable[[Pixels], Pixels]) -> Make:
    return lambda real: Judged(real, Release("x", system(real.pixels), tuple((i,) for i in range(len(real)))))


@cache
def memoriser() -> Callable[[Pixels], Pixels]:
    return principal(people("s").pixels, 0)


def by_heart(pixels: Pixels) -> Pixels:
    """Gives back the image of its training set that is nearest: an overfitted generator in the extreme."""
    known = people("s").pixels
    nearest = (flat(pixels) @ flat(known).T).argmax(axis=1)
    return known[nearest]


def drawn(real: RealImages) -> Judged:
    """Generated images that repeat training images, with some noise."""
    rng = np.random.default_rng(0)
    pixels = people("s").pixels + 0.05 * rng.standard_normal(people("s").pixels.shape)
    return Judged(real, Release("drawn", np.clip(pixels, 0, 1).astype(np.float32), ((),) * len(pixels)))


def noise(real: RealImages) -> Judged:
    return released(real, "noise", seed=len(real) + ord(real.cohort[0].patient_id[0]))


def known_of(make: Make, members: RealImages | None = None) -> AttackerKnowledge:
    own, choice = make(people("a")), make(people("v"))
    return AttackerKnowledge(people("s"), own, choice, flat, members=make(members or people("s")))


def results(make: Make, members: RealImages | None = None, **settings: object) -> dict[str, Result]:
    attack = MembershipAttack(n_boot=200, train_shadow=settings.pop("train_shadow", principal), **settings)
    attack.fit(known_of(make, members))
    return {r.name: r for r in attack.score(make(people("t")), RunContext("x", "p"))}


def aucs(found: dict[str, Result], figure: str = "membership_auc") -> dict[str, Result]:
    return {name.split(".")[1]: r for name, r in found.items() if name.startswith(f"{figure}.")}


def test_it_is_registered():
    assert ATTACKS["membership"] is MembershipAttack


def test_every_signal_rings_on_an_overfitted_auto_encoder():
    found = results(one_to_one(memoriser()))
    heard = aucs(found)
    for name in PAIRED | {"supervised", "worst"}:
        assert heard[name].low > 0.7, name
    assert aucs(found, "membership_auc_patient")["worst"].value >= heard["worst"].value - 0.05
    assert heard["worst"].extra["signal"] in heard and set(heard) == PAIRED | ALWAYS | {"worst"}


def test_the_nearest_released_image_rings_where_others_are_given_training_images():
    heard = aucs(results(one_to_one(by_heart)))
    for name in ALWAYS:
        assert heard[name].low > 0.5, name


def test_the_nearest_released_image_rings_on_generated_copies():
    found = results(drawn)
    heard = aucs(found)
    assert set(heard) == ALWAYS | {"worst"}
    for name, line in heard.items():
        assert line.low > 0.8, (name, "20 members")
        assert abs(line.extra["auc_without_release"] - 0.5) < 0.35
    assert "membership_accuracy_members_only.paper.v1" not in found


def test_a_trained_auto_encoder_is_heard_by_trained_shadows():
    target = TRAIN(people("s").pixels, 9)
    heard = aucs(results(one_to_one(target), train_shadow=TRAIN))
    assert heard["shadow"].low > 0.6 and heard["loss_calibrated"].low > 0.6


def is_silent(line: Result, chance: float = 0.5) -> bool:
    """Whether the 99.9 % interval, by the width of the 95 % one, holds chance."""
    return abs(line.value - chance) <= 3.29 / 1.96 * (line.high - line.low) / 2


def means(real: RealImages) -> Judged:
    """Averages of two patients each."""
    sources = tuple((i, (i + 3) % len(real)) for i in range(len(real)))
    return Judged(real, Release("means", np.stack([real.pixels[list(s)].mean(axis=0) for s in sources]), sources))


SILENT = {
    "noise": noise,
    "means": means,
    "unchanged": one_to_one(np.copy),
    "negative": one_to_one(lambda pixels: 1.0 - pixels),
}


@pytest.mark.parametrize("make", SILENT.values(), ids=list(SILENT))
def test_it_is_silent_on_systems_that_learned_nothing(make):
    found = results(make)
    for name, line in aucs(found).items():
        assert is_silent(line), (name, line.value, line.low, line.high)
    for name, line in aucs(found, "membership_gain").items():
        assert is_silent(line, 0.0), (name, line.value, line.low, line.high)


def test_it_is_silent_on_shuffled_membership():
    others = people("o")
    system = principal(others.pixels, 0)
    for name, line in aucs(results(one_to_one(system))).items():
        assert is_silent(line), (name, line.value, line.low, line.high)


def test_what_the_encoder_remembers_is_no_fault_of_the_release():
    known = flat(people("s").pixels)

    def remembers(pixels: Pixels) -> np.ndarray:
        code = flat(pixels)
        nearest = (code @ known.T).max(axis=1, keepdims=True)
        return np.hstack([code * (nearest < 0.999), nearest >= 0.999]).astype(np.float32)

    attack = MembershipAttack(n_boot=50, train_shadow=principal)
    attack.fit(replace(known_of(noise), frozen=remembers))
    attacked = {r.name: r for r in attack.score(noise(people("t")), RunContext("x", "p"))}
    heard = aucs(attacked)
    assert heard["nearest_frozen"].value > 0.9 and heard["nearest_frozen"].extra["auc_without_release"] > 0.9
    assert heard["worst"].extra["signal"] != "nearest_frozen"
    gain = aucs(attacked, "membership_gain")["nearest_frozen"]
    assert gain.low <= 0.0 <= gain.high or gain.value < 0.05


def test_every_auc_has_its_own_chance_beside_it():
    found = results(one_to_one(memoriser()))
    lines = [line for name, line in found.items() if name.startswith("membership_auc")]
    assert {line.attacker for line in lines} == PAIRED | ALWAYS | {"worst"} and len(lines) == 2 * len(aucs(found))
    for line in lines:
        assert 0.0 <= line.extra["auc_without_release"] <= 1.0
    worst = found["membership_auc.worst.v1"]
    for level in ("", "_patient"):
        same = found[f"membership_auc{level}.{worst.extra['signal']}.v1"].extra["auc_without_release"]
        assert found[f"membership_auc{level}.worst.v1"].extra["auc_without_release"] == same


def test_the_chance_of_patients_is_that_of_their_means():
    rng = np.random.default_rng(1)
    patients, member = np.repeat([f"p{i}" for i in range(40)], 3), np.repeat(np.arange(40) < 20, 3)
    scores, without = rng.standard_normal((2, 120)) + 0.5 * member
    found = {
        r.name: r for r in membership_lines("l", [scores], member, patients, RunContext("x", "p"), 20, {}, [without])
    }
    images = (without[member][:, None] > without[~member]).mean()
    means = without.reshape(40, 3).mean(axis=1)
    assert found["membership_auc.l.v1"].extra["auc_without_release"] == pytest.approx(images, abs=1e-6)
    of_patients = (means[:20, None] > means[20:]).mean()
    assert found["membership_auc_patient.l.v1"].extra["auc_without_release"] == pytest.approx(of_patients, abs=1e-6)


def test_a_difference_of_folders_is_not_heard_within_them():
    def two_folders(real: RealImages) -> Judged:
        # All but one member, and one non-member, come from a folder that the system spoils.
        members = real.cohort[0].patient_id.startswith("s")
        odd = np.array([(i // 3 % 8 == 0) != members for i in range(len(real))])
        records = tuple(replace(r, folder="gf"[int(o)]) for r, o in zip(real.cohort, odd, strict=True))
        spoilt = np.where(odd[:, None, None, None], 0.5 * real.pixels, 0.9 * real.pixels)
        cohort = replace(real.cohort, records=records)
        return one_to_one(np.copy)(RealImages(cohort, spoilt.astype(np.float32)))

    def make(real: RealImages) -> Judged:
        part = two_folders(real)
        return Judged(RealImages(part.real.cohort, real.pixels), part.release)

    line = aucs(results(make))["supervised"]
    assert line.value > 0.8 and abs(line.extra["auc_within_folder"] - 0.5) < 0.25


def test_figures_are_means_over_seeds_of_the_shadows(monkeypatch):
    def make(real: RealImages) -> Judged:
        return one_to_one(system)(real)

    def train(images: Pixels, seed: int) -> Callable[[Pixels], Pixels]:
        rng = np.random.default_rng(seed)
        return principal(images[rng.permutation(len(images))[: len(images) // 4]], seed)

    system = train(people("s").pixels, 9)
    known, case = known_of(make), make(people("t"))

    def table(attack: MembershipAttack) -> dict[str, Result]:
        attack.fit(known)
        return {r.name: r for r in attack.score(case, RunContext("x", "p"))}

    three = table(MembershipAttack((0, 1, 2), 50, train_shadow=train))
    train_all, single = Shadow.train_all, []
    for k in range(3):  # patients are shared out by seed 0, and all models are those of seed k
        monkeypatch.setattr(Shadow, "train_all", lambda real, _, n, seed, k=k: train_all(real, train, n, seed + k))
        single.append(table(MembershipAttack((0,), 50, train_shadow=lambda x, s, k=k: train(x, s + k))))
    for name in ("membership_auc.shadow.v1", "membership_auc_patient.shadow.v1", "membership_auc.loss_calibrated.v1"):
        values = [of_seed[name].value for of_seed in single]
        assert three[name].value == pytest.approx(np.mean(values), abs=1e-5) and len(set(values)) > 1
        assert three[name].extra["attacker_seeds"] == [0, 1, 2] and len(three[name].extra["sign"]) == 3
    name = "membership_accuracy_members_only.paper.v1"
    assert three[name].value == pytest.approx(np.mean([of_seed[name].value for of_seed in single]), abs=1e-5)
    for key in ("accuracy_on_real_members", "released_non_members_called_members"):
        assert three[name].extra[key] == pytest.approx(np.mean([t[name].extra[key] for t in single]), abs=1e-5)
    with pytest.raises(UsageError, match="GM-U316"):
        MembershipAttack(())


def test_the_papers_figure_says_nothing():
    line = results(noise)["membership_accuracy_members_only.paper.v1"]
    ringing = results(one_to_one(memoriser()))["membership_accuracy_members_only.paper.v1"]
    assert line.value == pytest.approx(line.extra["released_non_members_called_members"], abs=0.05)
    assert line.extra["accuracy_on_real_members"] > 0.9 and "non-member" in line.extra["why_it_says_nothing"]
    assert ringing.n_images == 120


def test_lines_are_those_of_a_naive_restatement():
    rng = np.random.default_rng(0)
    patients = np.repeat([f"p{i}" for i in range(1000)], 2)
    member = np.repeat(np.arange(1000) < 500, 2)
    scores = rng.standard_normal(2000) + 0.8 * member
    lines = {r.name: r for r in membership_lines("l", [scores], member, patients, RunContext("x", "p"), 20, {})}
    assert len(lines) == 4, "nothing is gained where no control is given"
    for level, values, kind in (("", scores, member), ("_patient", scores.reshape(-1, 2).mean(axis=1), member[::2])):
        pairs = values[kind][:, None] > values[~kind][None]
        assert lines[f"membership_auc{level}.l.v1"].value == pytest.approx(pairs.mean(), abs=1e-6)
        threshold = np.sort(values[~kind])[::-1][(~kind).sum() // 100]
        rate = lines[f"membership_tpr_at_fpr_1pct{level}.l.v1"]
        assert rate.value == pytest.approx((values[kind] > threshold).mean(), abs=1e-6)
        assert (rate.extra["non_member_patients"], rate.extra["non_member_patients_needed"]) == (500, 500)


@pytest.mark.parametrize("each", [1, 40])
def test_a_rate_of_false_positives_needs_patients_not_images(each):
    patients = np.repeat([f"p{i}" for i in range(599)], each)
    member = np.repeat(np.arange(599) < 100, each)
    scores = np.random.default_rng(0).standard_normal(len(member))
    lines = {r.name: r for r in membership_lines("l", [scores], member, patients, RunContext("x", "p"), 5, {})}
    for level in ("", "_patient"):
        rate = lines[f"membership_tpr_at_fpr_1pct{level}.l.v1"]
        assert rate.value is None and rate.extra["reason"] == "499 non-member patients, 500 needed"
        assert "reason" not in lines[f"membership_auc{level}.l.v1"].extra


def test_the_gain_is_paired():
    """Where release and control vary together, their difference does not; its limits are those of its resamples."""
    rng = np.random.default_rng(3)
    patients, member = np.repeat([f"p{i}" for i in range(200)], 2), np.repeat(np.arange(200) < 100, 2)
    without = rng.standard_normal(400) + 0.3 * member
    scores = [without + 0.3 * member, without + 0.301 * member]
    context = RunContext("x", "p")
    lines = {r.name: r for r in membership_lines("l", scores, member, patients, context, 200, {}, [without] * 2)}
    for level in ("", "_patient"):
        auc, gain = (lines[f"membership_{name}{level}.l.v1"] for name in ("auc", "gain"))
        assert gain.value == pytest.approx(auc.value - gain.extra["auc_without_release"], abs=2e-6)
        assert 0 < gain.low < gain.value < gain.high and gain.high - gain.low < 0.5 * (auc.high - auc.low)

    def difference(weights: np.ndarray) -> tuple[float]:
        table = [SortedScores(s, member).auc(weights) for s in (scores[0], without)]
        return (table[0] - table[1],)

    alone = {r.name: r for r in membership_lines("l", scores[:1], member, patients, context, 50, {}, [without])}
    (expected,) = patient_bootstrap_figures([difference], patients, 50, bounds=(-1.0, 1.0), n_patients=[100])
    gain = alone["membership_gain.l.v1"]
    assert (gain.value, gain.low, gain.high) == pytest.approx(expected, abs=1e-6)


def test_the_pools_of_attack_and_control_are_told_and_can_be_compared():
    found = aucs(results(drawn))
    line = found["nearest_pixels"]
    # all roles hold the one release of the generator, which counts once
    assert line.extra["pool_sizes"] == {"released": 240, "without_release": 60}
    assert line.value > 0.95 and line.extra["auc_with_equal_pools"] < line.value - 0.05, "60 hold few of the copies"
    assert (
        found["worst"].extra["auc_with_equal_pools"]
        == found[found["worst"].extra["signal"]].extra["auc_with_equal_pools"]
    )
    paired = aucs(results(one_to_one(memoriser())))["loss_pixels"]
    assert paired.extra["auc_with_equal_pools"] == paired.value, "looks at no pool"


@pytest.mark.parametrize("found", [0, 1])
def test_a_rate_of_members_at_a_bound_has_wilsons_limits_of_the_members(found):
    patients = np.array([f"p{i:04d}" for i in range(1040)])
    member = np.arange(1040) < 40
    scores = np.random.default_rng(0).standard_normal(1040) + (20.0 if found else -20.0) * member
    lines = {r.name: r for r in membership_lines("l", [scores], member, patients, RunContext("x", "p"), 20, {})}
    for level in ("", "_patient"):
        rate, auc = (lines[f"membership_{name}{level}.l.v1"] for name in ("tpr_at_fpr_1pct", "auc"))
        for line in (rate, auc):
            assert (line.value, line.low, line.high) == pytest.approx(wilson_interval(40 * found, 40), abs=1e-6)


def test_refusals_are_coded():
    make = one_to_one(memoriser())
    attack = MembershipAttack(train_shadow=principal)
    with pytest.raises(UsageError, match="GM-U311"):
        attack.score(make(people("t")), RunContext("x", "p"))
    with pytest.raises(UsageError, match="GM-U340.*anonymize images of role S"):
        attack.fit(replace(known_of(make), members=None))
    with pytest.raises(TooLittleDataError, match="GM-U341"):
        attack.fit(replace(known_of(make), members=make(people("s").take(range(18)))))
    with pytest.raises(UsageError, match="GM-U342"):
        attack.fit(replace(known_of(make), members=drawn(people("s"))))
    with pytest.raises(UsageError, match="GM-U343"):
        MembershipAttack(train_shadow=principal, n_shadows=3).fit(known_of(make))
    with pytest.raises(ManifestError, match="GM-M032"):
        replace(known_of(make), members=make(people("v")))
    attack.fit(known_of(make))
    with pytest.raises(UsageError, match="GM-U342"):
        attack.score(drawn(people("t")), RunContext("x", "p"))
    with pytest.raises(ManifestError, match="GM-M032"):
        attack.score(make(people("s")), RunContext("x", "p"))
