"""Anonymeter's three attacks: counts against loops, the alarm on unchanged and inverted images, silence on noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from attack_cohorts import judged, knowledge, real_images

from gmia_monai.attacks.anonymeter import AnonymeterAttack, distinct_guesses, isolated, linked, mean_risk, secrets
from gmia_monai.attacks.attackers.frozen import FrozenAttacker
from gmia_monai.attacks.base import AttackerKnowledge, Judged, TooLittleDataError
from gmia_monai.attacks.pool import AttackerPool
from gmia_monai.data.release import RealImages, Release
from gmia_monai.errors import UsageError
from gmia_monai.metrics.limits import Interval
from gmia_monai.metrics.results import Result, RunContext

CONTEXT = RunContext("x", "p")


def _table(system: str, case: Judged | None = None, seeds: Sequence[int] = (0, 1, 2)) -> dict[str, Result]:
    attack = AnonymeterAttack(AttackerPool({"frozen": FrozenAttacker}), seeds)
    known = knowledge("unchanged" if system == "means" else system)
    attack.fit(replace(known, choice=_means("v")) if system == "means" else known)
    lines = attack.score(case or judged(system), CONTEXT)
    return {r.name.removeprefix("anonymeter_").removesuffix(".frozen.v1"): r for r in lines}


def test_counts_are_those_of_loops():
    rng = np.random.default_rng(0)
    similarity, patient, threshold = rng.random((9, 12)), rng.integers(0, 5, 12), rng.random(9) * 0.3 + 0.7
    found = isolated(similarity, patient, threshold)
    for r in range(9):
        inside = {patient[i] for i in range(12) if similarity[r, i] > threshold[r]}
        assert found[r] == (inside.pop() if len(inside) == 1 else -1)
    record = rng.integers(0, 12, 9)
    near = linked(similarity, record, k=3)
    for r in range(9):
        assert near[r] == (record[r] in sorted(range(12), key=lambda j: -similarity[r, j])[:3])  # noqa: B023


def test_predicates_that_isolate_the_same_person_are_one_guess():
    assert distinct_guesses(np.array([3, 3, -1, 5, -1, 3])) == (2, 4)


@pytest.mark.parametrize("system", ["unchanged", "negative"])
def test_it_rings_where_identity_is_kept_on_either_side(system):
    table = _table(system)
    assert table["singling_out_risk"].low > 0.4 and table["singling_out_risk"].extra["better_than_baseline"]
    assert table["linkability_risk"].low > 0.3 and table["linkability_risk"].extra["main"]["right"] == [24] * 3
    assert table["inference_risk.finding"].value > 0.5
    assert [rate[0] for rate in table["inference_risk.finding"].extra["main"]["rate"]] == [1.0] * 3
    assert table["singling_out_risk"].extra["signs"] == [1.0 if system == "unchanged" else -1.0] * 3
    assert table["singling_out_risk"].extra["n_seeds"] == 3


def test_it_is_silent_on_noise():
    for risk in _table("noise").values():
        assert risk.low == 0.0


def test_patients_who_were_swapped_for_others_are_not_found():
    """Released images of strangers under the patients' names: nothing that is theirs is in the release."""
    real, strangers = real_images("t"), real_images("z")
    release = Release("strangers", strangers.pixels, tuple((i,) for i in range(len(real))))
    table = _table("unchanged", Judged(real, release))
    for name in ("singling_out_risk", "linkability_risk", "inference_risk.finding"):
        assert table[name].low == 0.0, name


def test_the_risk_is_the_mean_over_seeds():
    each = [_table("means", _means("t"), seeds=(seed,)) for seed in (0, 1, 2)]
    table = _table("means", _means("t"))
    for name, line in table.items():
        alone = [of_seed[name] for of_seed in each]
        assert line.value == pytest.approx(np.mean([r.value for r in alone]), abs=1e-5), name
        for i, r in enumerate(alone):
            assert line.extra["main"]["right"][i : i + 1] == r.extra["main"]["right"], name
            assert line.extra["baseline"]["rate"][i : i + 1] == r.extra["baseline"]["rate"], name
        together = mean_risk([Interval(r.value, r.low, r.high) for r in alone])
        assert (line.low, line.high) == pytest.approx(together[1:], abs=1e-5), name
    rights = {tuple(line.extra["main"]["right"]) for line in table.values()}
    assert any(len(set(right)) > 1 for right in rights), "or the seeds would make no difference"


def test_seeds_that_agree_keep_the_interval_and_others_widen_it():
    one = Interval(0.4, 0.3, 0.5)
    assert mean_risk([one]) == pytest.approx(one) and mean_risk([one] * 3) == pytest.approx(one)
    apart = mean_risk([Interval(v, v - 0.1, v + 0.1) for v in (0.3, 0.4, 0.5)])
    # Student's t of two degrees of freedom at 97.5 %, from a table, times 0.1 / sqrt(3)
    half = np.hypot(0.1, 4.302653 * 0.1 / np.sqrt(3))
    assert apart == pytest.approx((0.4, 0.4 - half, 0.4 + half), abs=1e-6)
    assert mean_risk([Interval(0.0, 0.0, 0.1), Interval(0.1, 0.0, 0.2)]).low == 0.0


def _means(name: str) -> Judged:
    """Means of images of two patients."""
    real = real_images(name)
    pairs = [(i, (i + 3) % len(real)) for i in range(0, len(real), 2)]
    pixels = np.stack([real.pixels[list(pair)].mean(axis=0) for pair in pairs])
    return Judged(real, Release("means", pixels, tuple(pairs)))


def test_a_release_of_several_sources_an_image_is_taken_too():
    attack = AnonymeterAttack(AttackerPool({"frozen": FrozenAttacker}))
    known = knowledge("unchanged")
    attack.fit(AttackerKnowledge(known.training, known.own, _means("v"), known.frozen))
    table = {r.name.split(".")[0]: r for r in attack.score(_means("t"), CONTEXT)}
    assert table["anonymeter_linkability_risk"].low > 0.0, "the mean of two people gives both away"
    assert all(10 < guesses <= 24 for guesses in table["anonymeter_singling_out_risk"].extra["main"]["guesses"])


@pytest.mark.parametrize("unknown", [0.6, 1.0])
def test_what_is_not_known_of_a_record_is_no_guess_of_the_baseline(unknown):
    """Of the known findings most are present; together with the unknown ones, those that are not would be."""
    real = real_images("t")
    patient = real.cohort.patient_index
    n = len(real.cohort.patients)
    there = np.where(np.arange(n) < unknown * n, np.nan, np.arange(n) % 4 > 0)
    labels = [None if np.isnan(there[p]) else (("Effusion", float(there[p])),) for p in patient]
    records = tuple(replace(r, labels=found) for r, found in zip(real.cohort, labels, strict=True))
    case = Judged(RealImages(replace(real.cohort, records=records), real.pixels), judged("unchanged").release)
    table = _table("unchanged", case)
    if unknown == 1.0:
        assert "inference_risk.finding" not in table, "nobody can be asked"
        return
    line = table["inference_risk.finding"]
    known = there[~np.isnan(there)]
    assert known.mean() > 0.6 and (np.nan_to_num(there) == 0).mean() > 0.5
    assert line.extra["baseline"]["right"] == [int(known.sum())] * 3
    assert line.extra["baseline"]["guesses"] == line.extra["main"]["guesses"] == [len(known)] * 3


def test_secrets_are_those_of_the_records():
    cohort = real_images("t").cohort
    found = secrets(cohort)
    assert found["finding"].tolist() == [int(dict(r.labels)["Effusion"]) for r in cohort]
    assert set(found) == {"sex", "view", "age", "finding"}


def test_what_cannot_be_asked_is_refused():
    attack = AnonymeterAttack(AttackerPool({"frozen": FrozenAttacker}))
    with pytest.raises(UsageError, match="GM-U316"):
        AnonymeterAttack(AttackerPool({"frozen": FrozenAttacker}), seeds=())
    with pytest.raises(UsageError, match="GM-U311"):
        attack.score(judged("noise"), CONTEXT)
    known = knowledge("noise")
    attack.fit(known)
    generated = [Judged(r, Release("generated", r.pixels, ((),) * len(r))) for r in map(real_images, "tv")]
    with pytest.raises(TooLittleDataError, match="GM-U356"):
        attack.score(generated[0], CONTEXT)
    with pytest.raises(TooLittleDataError, match="GM-U356"):
        attack.fit(AttackerKnowledge(known.training, known.own, generated[1], known.frozen))
