"""Presence: the alarm at either end of the similarity, silence, releases of every kind, and attackers together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from attack_cohorts import IMAGES_EACH, flat, judged, knowledge, real_images, released
from scipy.stats import norm

from gmia_monai.attacks.attackers.frozen import FrozenAttacker
from gmia_monai.attacks.base import AttackerKnowledge, Judged, TooLittleDataError
from gmia_monai.attacks.pool import AttackerPool
from gmia_monai.attacks.presence import PresenceAttack, presence_scores
from gmia_monai.attacks.presence_cases import presence_case
from gmia_monai.data.cohort import Cohort
from gmia_monai.data.release import RealImages, Release
from gmia_monai.errors import UsageError
from gmia_monai.metrics.differences import paired_difference, share_draws
from gmia_monai.metrics.intervals import patient_bootstrap_figures
from gmia_monai.metrics.limits import wilson_interval
from gmia_monai.metrics.results import RunContext
from gmia_monai.metrics.verification import roc_auc

CHANCE_99_9 = norm.isf(0.0005) / norm.isf(0.025)
"""Half-width of a 99.9 % interval over that of a 95 % one."""


def _table(known: AttackerKnowledge, case: Judged, n_boot: int = 60, seeds: tuple[int, ...] = (0,)) -> dict:
    attack = PresenceAttack(AttackerPool({"frozen": FrozenAttacker}), seeds, n_boot)
    attack.fit(known)
    return {r.name: r for r in attack.score(case, RunContext("x", "p"))}


def _worst(known: AttackerKnowledge, case: Judged, n_boot: int = 60):
    return _table(known, case, n_boot)["presence_auc.worst.v1"]


def _silent(line) -> bool:
    """Whether the 99.9 % interval of an AUC, from its 95 % one, holds chance."""
    return abs(line.value - 0.5) <= CHANCE_99_9 * (line.high - line.low) / 2


def _averages(name: str, k: int = 3, share: float = 0.5) -> Judged:
    """Means of one image of each of k patients, of the first of the patients alone."""
    real = real_images(name)
    patients = int(len(real.cohort.patients) * share)
    sources = [
        tuple(IMAGES_EACH * p + i for p in range(first, first + k))
        for first in range(0, patients - k + 1, k)
        for i in range(IMAGES_EACH)
    ]
    return Judged(real, Release("means", np.stack([real.pixels[list(s)].mean(0) for s in sources]), tuple(sources)))


def _generated(real: RealImages, pixels: np.ndarray) -> Judged:
    return Judged(real, Release("drawn", pixels, ((),) * len(pixels)))


def _noise(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((n, *real_images("t").pixels.shape[1:]), dtype=np.float32)


def _drawn(pixels: np.ndarray, **more) -> tuple[AttackerKnowledge, Judged]:
    """What is known of a generator that learned from patients ``m``, and one release of it for all roles."""
    members = _generated(real_images("m"), pixels)
    roles = [_generated(real_images(name), pixels) for name in "avt"]
    return AttackerKnowledge(real_images("s", 16), *roles[:2], flat, **{"members": members, **more}), roles[2]


def _shuffled(case: Judged, seed: int) -> Judged:
    """The same images under the names of random patients."""
    records = case.real.cohort.records
    ids = np.random.default_rng(seed).permutation([r.patient_id for r in records])
    renamed = tuple(replace(r, patient_id=str(name)) for r, name in zip(records, ids, strict=True))
    return Judged(RealImages(Cohort(renamed, findings=case.real.cohort.findings), case.real.pixels), case.release)


@pytest.mark.parametrize(("system", "direction"), [("unchanged", 1.0), ("negative", -1.0)])
def test_it_rings_at_the_end_where_identity_is(system, direction):
    table = _table(knowledge(system), judged(system))
    loud = table["presence_auc.worst.v1"]
    assert loud.value > 0.95 and loud.low > 0.7
    assert loud.extra["members"] + loud.extra["non_members"] == 24
    for statistic in ("largest", "standardised"):
        line = table[f"presence_auc.{statistic}.frozen.v1"]
        assert line.value > 0.9 and line.extra["direction"] == direction and line.extra["sign"] == 1.0


def test_it_is_silent_on_noise_and_on_shuffled_patients():
    for known, case in (
        (knowledge("noise"), judged("noise")),
        (knowledge("unchanged"), _shuffled(judged("unchanged"), 0)),
        (knowledge("negative"), _shuffled(judged("negative"), 1)),
    ):
        table = _table(known, case, n_boot=300)
        lines = [line for name, line in table.items() if name.startswith("presence_auc")]
        assert len(lines) == 4 and all(_silent(line) for line in lines), lines


def test_scores_are_those_of_a_double_loop():
    rng = np.random.default_rng(0)
    similarity, own = rng.normal(size=(7, 9)), rng.random((7, 9)) < 0.15
    found = presence_scores(similarity, own)
    for p in range(9):
        rows = [r for r in range(7) if not own[r, p]]
        assert found["largest"][p] == max(similarity[r, p] for r in rows)
        beyond = []
        for r in rows:
            ranked = sorted((similarity[r, q] for q in range(9) if not own[r, q]), reverse=True)
            beyond.append(similarity[r, p] - np.mean(ranked[1:4]))
        assert found["standardised"][p] == pytest.approx(max(beyond))


def test_images_that_only_one_or_nobody_may_look_at_tell_nothing():
    own = np.ones((3, 4), dtype=bool)
    own[0], own[1, 2] = False, False  # all look at the first, one at the second, nobody at the third
    similarity = np.array([[0.1, 0.2, 0.3, 0.4], [0.9] * 4, [0.9] * 4])
    found = presence_scores(similarity, own)
    assert found["largest"].tolist() == [0.1, 0.2, 0.9, 0.4]
    assert found["standardised"] == pytest.approx([-0.1, 0.0, 0.1, 0.2])


# -- k sources ---------------------------------------------------------------------------------------------------------
def test_it_judges_releases_of_k_sources():
    known = AttackerKnowledge(real_images("s", 16), _averages("a"), _averages("v"), flat)
    found = _worst(known, _averages("t"))
    assert found.value > 0.9 and found.extra["members"] == 12
    assert presence_case(_averages("t")).own.any()


def test_of_a_whole_cohort_of_averages_patients_are_left_out_with_their_groups():
    whole = [_averages(name, share=1.0) for name in "avt"]
    case = presence_case(whole[2])
    assert case.member.sum() == 12 and len(case.member) == 24 and len(case.images) == 12
    kept = {p for i in case.images for p in whole[2].release.source_patients(whole[2].real.cohort)[i]}
    names = whole[2].real.cohort.patients
    assert [names.index(p) in kept for p in case.patients] == case.member.tolist()
    assert _worst(AttackerKnowledge(real_images("s", 16), *whole[:2], flat), whole[2]).value > 0.9


# -- generated ---------------------------------------------------------------------------------------------------------
def test_copies_of_training_images_ring():
    known, case = _drawn(np.concatenate([real_images("m").pixels, _noise(20, 0)]))
    found = _worst(known, case)
    assert found.value > 0.95 and found.low > 0.7 and found.extra["direction"] == 1.0
    assert found.extra["members"] == 12 and found.extra["non_members"] == 24
    assert 0.2 < found.extra["auc_of_unreleased"] < 0.8, "images of others tell members and non-members not apart"


def test_unrelated_images_are_silent():
    for pixels in (_noise(60, 1), real_images("z").pixels):
        lines = [line for name, line in _table(*_drawn(pixels), n_boot=300).items() if "_auc." in name]
        assert len(lines) == 4 and all(_silent(line) for line in lines)


def test_an_attacker_who_knows_the_training_patients_does_not_ring_for_that():
    """Its embedding pulls all that it was trained on to one side, where it also puts noise."""
    trained = real_images("m").pixels.reshape(-1, real_images("m").pixels[0].size)

    def embed(pixels: np.ndarray) -> np.ndarray:
        rows = pixels.reshape(len(pixels), -1)
        known = (rows[:, None] == trained[None]).all(axis=2).any(axis=1)
        odd = (pixels.std(axis=(1, 2, 3)) > 0.27).astype(np.float32)  # uniform noise has 0.29
        e = np.concatenate([flat(pixels), (1.0 * known + odd)[:, None]], axis=1)
        return (e / np.linalg.norm(e, axis=1, keepdims=True)).astype(np.float32)

    known, case = _drawn(_noise(60, 2))
    plain = embed(_noise(60, 2)) @ embed(np.concatenate([real_images("m").pixels, case.real.pixels])).T
    n = len(real_images("m"))
    assert roc_auc(plain.max(axis=0).astype(float), np.arange(plain.shape[1]) < n) > 0.9, "it would ring for that"
    lines = [r for name, r in _table(replace(known, frozen=embed), case, n_boot=300).items() if "_auc." in name]
    assert all(_silent(line) for line in lines)


def test_those_who_choose_are_not_those_who_are_scored():
    known, case = _drawn(real_images("m").pixels)
    attack = PresenceAttack(AttackerPool({"frozen": FrozenAttacker}), (0,), 10)
    attack.fit(known)
    halves = [set(half.cohort.patients) for half in attack._members]
    assert not halves[0] & halves[1] and sorted(map(len, halves)) == [12, 12]
    asked = presence_case(case, attack._members[1])
    assert {p for p, m in zip(asked.patients, asked.member, strict=True) if m} == halves[1]


def test_a_generated_release_of_unknown_training_is_refused():
    known, case = _drawn(_noise(5, 3), members=None)
    with pytest.raises(TooLittleDataError, match="GM-U324"):
        presence_case(case)
    with pytest.raises(TooLittleDataError, match="GM-U324"):
        _table(known, case)


# -- seeds -------------------------------------------------------------------------------------------------------------
class _Noisy(FrozenAttacker):
    """Another projection with each seed."""

    def fit(self, knowledge: AttackerKnowledge, seed: int) -> None:
        basis = np.random.default_rng(seed).normal(size=(32 * 32, 4)).astype(np.float32)
        self.use(lambda pixels: flat(pixels) @ basis)


def test_figures_are_means_over_seeds():
    known, case = knowledge("unchanged"), judged("unchanged")
    tables = []
    for seeds in ((0,), (1,), (2,), (0, 1, 2)):
        attack = PresenceAttack(AttackerPool({"noisy": _Noisy}), seeds, 100)
        attack.fit(known)
        tables.append({r.name: r for r in attack.score(case, RunContext("x", "p"))})
    name = "presence_auc.largest.noisy.v1"
    single = [table[name].value for table in tables[:3]]
    assert len(set(single)) > 1
    assert tables[3][name].value == pytest.approx(np.mean(single), abs=1e-5)
    assert tables[3][name].extra["n_seeds"] == 3 and tables[0][name].extra["n_seeds"] == 1


def test_an_attacker_without_chance_has_the_interval_of_one_seed():
    known, case = knowledge("unchanged"), judged("noise")
    one, three = (_table(known, case, 50, seeds)["presence_auc.largest.frozen.v1"] for seeds in ((0,), (0, 1, 2)))
    assert (one.value, one.low, one.high) == (three.value, three.low, three.high)
    asked = presence_case(case)
    scores = presence_scores(flat(case.release.pixels[asked.images]) @ flat(asked.held).T.astype(float), asked.own)
    found = lambda w: roc_auc(scores["largest"], asked.member, w)  # noqa: E731
    [expected] = patient_bootstrap_figures([lambda w: [found(w)]], np.arange(24), 50, n_patients=[12])
    assert one.value == pytest.approx(expected.value, abs=1e-5) and one.low == pytest.approx(expected.low, abs=1e-5)


def test_what_cannot_be_asked_is_refused():
    pool = AttackerPool({"frozen": FrozenAttacker})
    with pytest.raises(UsageError, match="GM-U316"):
        PresenceAttack(pool, ())
    with pytest.raises(UsageError, match="GM-U311"):
        PresenceAttack(pool).score(judged("noise"), RunContext("x", "p"))
    real = real_images("t")
    with pytest.raises(TooLittleDataError, match="GM-U324"):
        presence_case(released(real.take(np.arange(3)), "unchanged"))


# -- several attackers -------------------------------------------------------------------------------------------------
class _Half(FrozenAttacker):
    """Sees one half of an image, and that dimly."""

    columns = slice(0, 16)

    def fit(self, knowledge: AttackerKnowledge, seed: int) -> None:
        def embed(pixels: np.ndarray) -> np.ndarray:
            e = pixels[..., self.columns].reshape(len(pixels), -1) - 0.5
            rng = np.random.default_rng([int(1e4 * pixels.sum()), self.columns.start])
            return e + 0.55 * rng.standard_normal(e.shape).astype(np.float32)

        self.use(embed)


class _OtherHalf(_Half):
    columns = slice(16, 32)


def _large(name: str) -> Judged:
    return released(real_images(name, 120, noise=0.2), "unchanged")


def test_all_attackers_together_find_more_than_each():
    known = AttackerKnowledge(real_images("s", 16), _large("a"), _large("v"), flat)
    attack = PresenceAttack(AttackerPool({"one": _Half, "other": _OtherHalf}), (0,), 60)
    attack.fit(known)
    table = {r.name: r for r in attack.score(_large("t"), RunContext("x", "p"))}
    alone = [r.value for name, r in table.items() if name.startswith("presence_auc") and r.attacker in ("one", "other")]
    fused, worst = table["presence_auc.fusion.v1"], table["presence_auc.worst.v1"]
    assert len(alone) == 4 and fused.value > max(alone) + 0.02
    assert fused.attacker == "fusion" and fused.extra["n_statistics"] == 6
    pairs = table["presence_auc.largest.fused_pairs.v1"]
    assert pairs.attacker == "fused_pairs" and pairs.value > max(alone) + 0.02, "evidence is joined pair by pair"
    assert worst.extra["attacker"] in ("fusion", "fused_pairs") and worst.value > max(alone) + 0.02


def test_evidence_of_pairs_is_that_of_the_image_held_and_of_each_released_one():
    known, judged_case = AttackerKnowledge(real_images("s", 16), _large("a"), _large("v"), flat), _large("t")
    attack = PresenceAttack(AttackerPool({"one": _Half, "other": _OtherHalf}), (0,), 10)
    attack.fit(known)
    case = presence_case(judged_case)
    [table] = attack._statistics(judged_case, case)
    odds = attack._searches[0].scores(judged_case, "real_in_released")
    largest = table[:, attack._columns.index(("fused_pairs", "largest")), 0]
    for p, at in enumerate(case.held_at.tolist()):
        np.testing.assert_array_equal(judged_case.real.pixels[at], case.held[p])
        seen = [odds[at, i] for row, i in enumerate(case.images.tolist()) if not case.own[row, p]]
        assert largest[p] == pytest.approx(max(seen))


def test_one_attacker_alone_has_no_one_to_be_joined_with():
    table = _table(knowledge("unchanged"), judged("unchanged"))
    assert not [name for name in table if "fused_pairs" in name]


def test_attackers_that_know_nothing_do_not_win_together_on_v2():
    """Weighed and read on the same patients they would seem to know something."""
    makers = {f"blind{k}": type(f"Blind{k}", (_Blind,), {"number": k}) for k in range(8)}
    known = knowledge("unchanged")
    attack = PresenceAttack(AttackerPool(makers), (0,), 10)
    attack.fit(known)
    case = presence_case(known.choice)
    [table] = attack._statistics(known.choice, case)
    assert roc_auc(attack._fused[0].all(table), case.member) > 0.8
    assert attack._fused_auc < 0.75
    lines = {r.name: r for r in attack.score(judged("unchanged"), RunContext("x", "p"))}
    assert lines["presence_auc.fusion.v1"].extra["auc_on_choice"] == pytest.approx(attack._fused_auc, abs=1e-6)


class _Blind(FrozenAttacker):
    number = 0

    def fit(self, knowledge: AttackerKnowledge, seed: int) -> None:
        number = self.number
        self.use(
            lambda pixels: np.stack(
                [
                    np.random.default_rng([number, int(1e4 * image.sum())]).standard_normal(4).astype(np.float32)
                    for image in pixels
                ]
            )
        )


def test_what_is_kept_of_the_worst_makes_differences_of_systems():
    kept = []
    for system in ("unchanged", "noise"):
        attack = PresenceAttack(AttackerPool({"frozen": FrozenAttacker}), (0, 1), 40)
        attack.fit(knowledge(system))
        attack.score(judged(system), RunContext("x", "p", keep=lambda line, found: kept.append((line, found))))
    (first, one), (second, other) = kept
    assert first.name == second.name == "presence_auc.worst.v1"
    assert one.value == pytest.approx(first.value, abs=1e-5) and one.found.shape == (41, 2)
    assert share_draws(one, other) and paired_difference(one, other).low > 0


def test_limits_rest_on_the_class_with_few_patients():
    """With few members among many patients the figures are known badly, however many strangers there are."""
    rng = np.random.default_rng(0)
    attack = PresenceAttack(AttackerPool({"frozen": FrozenAttacker}), (0,), 200)
    member = np.arange(2010) < 10
    scores = np.where(member, 10.0, rng.standard_normal(2010))
    asked = replace(presence_case(judged("noise")), patients=tuple(map(str, range(2010))), member=member)
    found, kept = attack._intervals([scores], asked, RunContext("x", "p"))
    assert kept.n_patients == 10
    rate = found["presence_tpr_at_fpr_1pct"]
    assert rate.value == 1.0 and rate.low == pytest.approx(wilson_interval(10, 10).low, abs=1e-3)
    # an AUC rests on the smaller class, whichever it is
    assert found["presence_auc"].low == pytest.approx(wilson_interval(10, 10).low, abs=1e-3)
    turned = attack._intervals([-scores], replace(asked, member=~member), RunContext("x", "p"))[0]["presence_auc"]
    assert turned.value == 1.0 and turned.low == pytest.approx(found["presence_auc"].low)
