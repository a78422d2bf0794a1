"""Linkability: figures of verdicts, the alarm, and what the published protocol hides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from attack_cohorts import IMAGES_EACH, flat, judged, knowledge, released
from scipy.stats import norm
from sklearn.metrics import accuracy_score, f1_score, recall_score

from gmia_monai.attacks.attackers.frozen import FrozenAttacker
from gmia_monai.attacks.attackers.metadata import MetadataAttacker
from gmia_monai.attacks.base import AttackerKnowledge, Judged, TooLittleDataError
from gmia_monai.attacks.linkability import LinkabilityAttack, verdict_figures
from gmia_monai.attacks.pool import AttackerPool
from gmia_monai.data.cohort import Cohort
from gmia_monai.data.release import RealImages
from gmia_monai.data.threats import threat_pairs
from gmia_monai.errors import UsageError
from gmia_monai.metrics.intervals import pair_bootstrap
from gmia_monai.metrics.results import RunContext
from gmia_monai.metrics.verification import best_threshold_f1

CHANCE_99_9 = norm.isf(0.0005) / norm.isf(0.025)
"""Half-width of a 99.9 % interval over that of a 95 % one."""
PLAIN = {"frozen": FrozenAttacker, "metadata": MetadataAttacker}


def _table(
    known: AttackerKnowledge, case: Judged, n_boot: int = 30, seeds: tuple[int, ...] = (0,), makers: dict = PLAIN
) -> dict:
    attack = LinkabilityAttack(AttackerPool(makers), seeds, n_boot)
    attack.fit(known)
    return {r.name: r for r in attack.score(case, RunContext("x", "cxr64"))}


def _silent(line) -> bool:
    """Whether the 99.9 % interval of an accuracy on balanced pairs, from its 95 % one, holds chance."""
    return abs(line.value - 0.5) <= CHANCE_99_9 * (line.high - line.low) / 2


def test_figures_of_verdicts_are_those_of_sklearn():
    rng = np.random.default_rng(0)
    accepted, same, weights = rng.random(200) < 0.4, rng.random(200) < 0.5, rng.random(200)
    found = verdict_figures(accepted, same, weights)
    assert found["f1"] == pytest.approx(f1_score(same, accepted, sample_weight=weights))
    assert found["accuracy"] == pytest.approx(accuracy_score(same, accepted, sample_weight=weights))
    assert found["tar"] == pytest.approx(recall_score(same, accepted, sample_weight=weights))
    assert found["far"] == pytest.approx(1 - recall_score(~same, ~accepted, sample_weight=weights))
    assert found["frr"] == pytest.approx(1 - found["tar"])


def test_it_rings_on_unchanged_images():
    table = _table(knowledge("unchanged"), judged("unchanged"))
    for side in ("inner", "outer"):
        assert table[f"linkability_f1.{side}.frozen.v1"].value > 0.98
        assert table[f"linkability_far.{side}.frozen.v1"].value < 0.05
        assert table[f"linkability_tar.{side}.frozen.v1"].negatives == "balanced"


def test_the_published_outer_figures_are_one_number():
    table = _table(knowledge("negative"), judged("negative"))
    tar = table["paper_linkability_tar.outer.frozen.v1"].value
    # Identity is at the far side: the published verdict accepts no pair and calls that private ...
    assert tar == 0.0 and table["paper_linkability_accuracy.outer.frozen.v1"].value == tar
    frr = table["paper_linkability_frr.outer.frozen.v1"]
    assert frr.value == 1.0 and frr.extra["published_as"] == "FAR" and frr.negatives is None
    # ... but who reads it the other way round has them all, and two released images still give the person away.
    assert table["linkability_f1.outer.frozen.v1"].value > 0.98
    assert table["linkability_f1.outer.frozen.v1"].extra["sign"] == -1.0
    assert table["linkability_f1.inner.frozen.v1"].value > 0.98


def _renamed(case: Judged, seed: int) -> Judged:
    """The same images under the names of random patients."""
    records = case.real.cohort.records
    ids = np.random.default_rng(seed).permutation([r.patient_id for r in records])
    renamed = tuple(replace(r, patient_id=str(name)) for r, name in zip(records, ids, strict=True))
    return Judged(RealImages(Cohort(renamed, findings=("Effusion",)), case.real.pixels), case.release)


def _moved(case: Judged, seed: int) -> Judged:
    """The released images of random sources."""
    order = np.random.default_rng(seed).permutation(len(case.release))
    return Judged(case.real, case.release.with_pixels(case.release.pixels[order]))


@pytest.mark.parametrize(
    ("system", "shuffle", "sides"),
    [
        ("noise", lambda case, seed: case, ("inner", "outer")),
        ("unchanged", _moved, ("inner", "outer")),
        # Under other names a released image and its source are still one image: nothing changes outside.
        ("unchanged", _renamed, ("inner",)),
    ],
)
def test_it_is_silent_on_noise_and_on_shuffled_patients(system, shuffle, sides):
    known = knowledge(system)
    known = replace(known, choice=shuffle(known.choice, 0))
    table = _table(known, shuffle(judged(system), 1), n_boot=300)
    for side in sides:
        line = table[f"linkability_accuracy.{side}.frozen.v1"]
        assert _silent(line), (side, line)


class _Noisy(FrozenAttacker):
    """Another projection with each seed."""

    def fit(self, knowledge: AttackerKnowledge, seed: int) -> None:
        basis = np.random.default_rng(seed).normal(size=(32 * 32, 3)).astype(np.float32)
        self.use(lambda pixels: flat(pixels) @ basis)


def test_each_seed_has_its_threshold_of_v2_and_figures_are_means():
    seeds = (0, 1, 2)
    known, case = knowledge("unchanged"), judged("unchanged")
    table = _table(known, case, seeds=seeds, makers={"noisy": _Noisy})
    single = [_table(known, case, seeds=(seed,), makers={"noisy": _Noisy}) for seed in seeds]
    for figure in ("f1", "far"):
        name = f"linkability_{figure}.inner.noisy.v1"
        assert len({t[name].value for t in single}) > 1
        assert table[name].value == pytest.approx(np.mean([t[name].value for t in single]), abs=1e-5)
        assert table[name].extra["thresholds"] == [t[name].extra["thresholds"][0] for t in single]
        assert table[name].extra["n_seeds"] == 3


def test_an_attacker_without_chance_has_the_interval_of_one_seed():
    three = _table(knowledge("unchanged"), judged("noise"), seeds=(0, 1, 2))["linkability_far.inner.frozen.v1"]
    scores = {}
    for name, case in (("choice", knowledge("unchanged").choice), ("judged", judged("noise"))):
        pairs = threat_pairs(case.real.cohort, "T3", "random")
        e = flat(case.release.pixels)
        scores[name] = (e[pairs.first] * e[pairs.second]).sum(1).astype(float), pairs
    of_choice, pairs = scores["choice"]
    threshold = best_threshold_f1(of_choice, pairs.same, pairs.weight).threshold
    assert three.extra["thresholds"] == pytest.approx([threshold] * 3, abs=1e-5)
    of_judged, pairs = scores["judged"]
    found = pair_bootstrap(
        lambda w: float(w[~pairs.same & (of_judged >= threshold)].sum() / w[~pairs.same].sum()),
        pairs.same,
        pairs.patient_first,
        pairs.patient_second,
        pairs.weight,
        30,
    )
    assert (three.value, three.low, three.high) == pytest.approx(tuple(found), abs=1e-5)


def _single(case: Judged) -> Judged:
    """One image a patient."""
    return released(case.real.take(np.arange(0, len(case.real), IMAGES_EACH)), "unchanged")


def test_without_two_images_of_a_patient_the_outer_side_is_scored_alone(caplog):
    known, case = knowledge("unchanged"), judged("unchanged")
    for of, at in ((known, _single(case)), (replace(known, choice=_single(known.choice)), case)):
        table = _table(of, at)
        assert table["linkability_f1.outer.frozen.v1"].value > 0.98
        assert not [name for name in table if ".inner." in name]
    assert caplog.text.count("linkability, inner, is left out: no pairs for threat model T3") == 2
    # the published verdict takes the threshold of two images of a patient of V2
    assert not [name for name in table if name.startswith("paper_")]
    assert "paper_linkability_tar.outer.frozen.v1" in _table(known, _single(case))
    one = released(case.real.take(np.arange(1)), "unchanged")
    with pytest.raises(TooLittleDataError, match="GM-U317"):
        _table(known, one)


def test_no_seed_is_refused():
    with pytest.raises(UsageError, match="GM-U316"):
        LinkabilityAttack(AttackerPool(PLAIN), ())
