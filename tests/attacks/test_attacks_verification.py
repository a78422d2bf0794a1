"""Verification rings on unchanged and on inverted images, and is silent on noise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from attack_cohorts import flat, judged, knowledge, real_images, released
from attack_controls import is_silent, shuffled
from calibration_error import expected_calibration_error

from gmia_monai.attacks import AttackerKnowledge
from gmia_monai.attacks.attackers import make_attackers
from gmia_monai.attacks.attackers.frozen import FrozenAttacker
from gmia_monai.attacks.attackers.metadata import MetadataAttacker, pair_facts
from gmia_monai.attacks.base import Judged, TooLittleDataError
from gmia_monai.attacks.pool import AttackerPool
from gmia_monai.attacks.verification import VerificationAttack
from gmia_monai.data.release import RealImages
from gmia_monai.data.threats import threat_pairs
from gmia_monai.errors import ManifestError, UsageError
from gmia_monai.metrics.differences import draws_of, share_draws
from gmia_monai.metrics.intervals import intervals_over_seeds, pair_bootstrap_found
from gmia_monai.metrics.replicates import ReplicateLog
from gmia_monai.metrics.results import RunContext
from gmia_monai.metrics.verification import SortedScores, roc_auc

CONTEXT = RunContext("x", "cxr64")


def _table(system: str, n_boot: int = 100) -> dict:
    attack = VerificationAttack(
        AttackerPool({"frozen": FrozenAttacker, "metadata": MetadataAttacker}), seeds=(0, 1), n_boot=n_boot
    )
    attack.fit(knowledge(system))
    return {(r.name, r.negatives): r for r in attack.score(judged(system), CONTEXT)}


def test_it_rings_on_unchanged_images():
    table = _table("unchanged")
    for threat in ("T1", "T2", "T3"):
        worst = table[f"verification_auc.{threat}.worst.v1", "random"]
        assert worst.value > 0.99 and worst.extra["attacker"] == "frozen"
        assert table[f"equal_error_rate.{threat}.frozen.v1", "random"].value < 0.05
    assert table["verification_auc.T1.frozen.v1", "random"].extra["attacker_seeds"] == [0, 1]


def test_identity_at_the_far_side_rings_as_loud():
    table = _table("negative")
    auc = table["verification_auc.T1.frozen.v1", "matched"]
    assert auc.extra["signs"] == [-1.0, -1.0] and auc.value > 0.99
    assert table["verification_auc_two_sided.T1.frozen.v1", "matched"].value > 0.99
    # Two inverted images are as alike as the images were.
    assert table["verification_auc.T3.frozen.v1", "matched"].value > 0.99


def _silent_lines(case: Judged) -> list:
    """AUCs of a release that tells nothing, by attackers who learned from unchanged images."""
    pool = AttackerPool(make_attackers(["frozen", "averaging", "fusion"]))
    attack = VerificationAttack(pool, seeds=(0,), n_boot=400)
    attack.fit(knowledge("unchanged"))
    names = ("verification_auc.", "verification_auc_two_sided.")
    return [r for r in attack.score(case, CONTEXT) if r.name.startswith(names)]


def test_it_is_silent_on_noise():
    lines = _silent_lines(judged("noise"))
    assert len(lines) == 2 * 3 * (2 * 3 + 1) and {r.attacker for r in lines} > {"worst", "fusion", "averaging"}
    loud = [(r.name, r.negatives, r.value, r.low, r.high) for r in lines if not is_silent(r)]
    assert not loud


def test_it_is_silent_on_shuffled_patients():
    lines = _silent_lines(shuffled(judged("unchanged")))
    loud = [(r.name, r.negatives, r.value) for r in lines if ".T3." not in r.name and not is_silent(r)]
    assert not loud
    # Released images of one person are still of one person.
    assert all(r.value > 0.9 for r in lines if ".T3." in r.name)


def test_the_figure_is_the_plain_auc_of_its_pairs():
    table = _table("unchanged")
    case = judged("unchanged")
    pairs = threat_pairs(case.real.cohort, "T1", "matched")
    e = flat(case.real.pixels)
    scores = (e[pairs.first] * e[pairs.second]).sum(1)
    assert table["verification_auc.T1.frozen.v1", "matched"].value == pytest.approx(
        roc_auc(scores, pairs.same, pairs.weight), abs=1e-5
    )


def test_a_shared_patient_is_refused():
    attack = VerificationAttack(AttackerPool({"frozen": FrozenAttacker}), seeds=(0,), n_boot=5)
    attack.fit(knowledge("unchanged"))
    for name in ("s", "a", "v"):
        n = 16 if name == "s" else 24
        with pytest.raises(ManifestError, match="GM-M03"):
            attack.score(released(real_images(name, n), "unchanged"), CONTEXT)
    own = released(real_images("a"), "unchanged")
    with pytest.raises(ManifestError, match="GM-M032"):
        AttackerKnowledge(real_images("s", 16), own, own)


def test_what_cannot_be_scored_is_refused():
    with pytest.raises(UsageError, match="GM-U316"):
        AttackerPool({})
    pool = AttackerPool({"frozen": FrozenAttacker})
    with pytest.raises(UsageError, match="GM-U311"):
        VerificationAttack(pool).score(judged("noise"), CONTEXT)
    with pytest.raises(UsageError, match="GM-U312"):
        VerificationAttack(pool).fit(knowledge("noise", frozen=None))


def test_what_was_fitted_on_v2_is_not_praised_there():
    """Attackers that know nothing: the likelihood ratio of none of them finds more on V2 than chance."""

    class Blind(FrozenAttacker):
        def fit(self, known, seed):
            self.use(lambda pixels: np.random.default_rng([seed, len(pixels)]).standard_normal((len(pixels), 3)))

    seeds = tuple(range(12))
    attack = VerificationAttack(AttackerPool({"blind": Blind}), seeds, threats=("T1",), n_boot=2)
    attack.fit(knowledge("noise"))
    for negatives in ("matched", "random"):
        chosen = [attack._chosen["blind", seed, "T1", negatives] for seed in seeds]
        assert np.mean([c.auc_two_sided for c in chosen]) < 0.52
        pairs = threat_pairs(knowledge("noise").choice.real.cohort, "T1", negatives)
        praised = []
        for seed, c in zip(seeds, chosen, strict=True):
            scores = attack._fitted["blind", seed].score(knowledge("noise").choice, pairs, "T1")
            praised.append(roc_auc(c.ratio(scores), pairs.same, pairs.weight))
        assert np.mean(praised) > 0.52, "as it would look on the pairs that it was fitted on"


def test_a_threat_model_without_pairs_is_left_out_alone():
    def alone(case: Judged) -> Judged:
        """Nobody else is as old as anybody here, so that no stranger matches; but under T1, some do."""
        ages = [20.0 + 0.01 * (i % 3) + 6 * (i // 3) for i in range(len(case.real))]
        records = tuple(replace(r, age=a) for r, a in zip(case.real.cohort.records, ages, strict=True))
        return Judged(RealImages(replace(case.real.cohort, records=records), case.real.pixels), case.release)

    attack = VerificationAttack(AttackerPool({"frozen": FrozenAttacker}), seeds=(0,), n_boot=5)
    with pytest.raises(UsageError, match="GM-U317"):
        attack.fit(replace(knowledge("unchanged"), choice=alone(knowledge("unchanged").choice)))
    attack.fit(knowledge("unchanged"))
    with pytest.raises(UsageError, match="GM-U317"):
        attack.score(alone(judged("unchanged")), CONTEXT)

    def one_each(case: Judged) -> Judged:
        return released(case.real.take(np.arange(0, len(case.real), 3)), "unchanged")

    table = [r.name for r in attack.score(one_each(judged("unchanged")), CONTEXT)]
    assert "verification_auc.T2.frozen.v1" in table
    assert not [name for name in table if ".T1." in name or ".T3." in name], "nobody has two images"


def test_metadata_know_which_negatives_they_stand_against():
    attacker, case = MetadataAttacker(), judged("noise")
    attacker.fit(knowledge("noise"), 0)
    told = {}
    for negatives in ("matched", "random"):
        pairs = threat_pairs(case.real.cohort, "T1", negatives)
        told[negatives] = roc_auc(attacker.score(case, pairs, "T1"), pairs.same, pairs.weight)
        facts = pair_facts(case.real.cohort, pairs)
        expected = attacker._models[negatives].decision_function(facts)
        assert attacker.score(case, pairs, "T1") == pytest.approx(expected)
    assert told["random"] > 0.8 > told["matched"], "sex and age tell strangers apart unless they are matched"


def test_the_floor_is_no_candidate_of_the_headline():
    pool = AttackerPool(make_attackers(["metadata", "frozen"]))
    attack = VerificationAttack(pool, seeds=(0,), threats=("T1",), n_boot=5)
    attack.fit(knowledge("noise"))
    worst = [r for r in attack.score(judged("noise"), RunContext("noise", "test")) if "worst.v1" in r.name]
    # Sex and age find more than noise does.
    assert {r.extra["attacker"] for r in worst} == {"frozen"}


def test_without_an_attacker_of_pixels_there_is_no_headline():
    attack = VerificationAttack(AttackerPool({"metadata": MetadataAttacker}), seeds=(0,), threats=("T1",), n_boot=5)
    attack.fit(knowledge("unchanged"))
    names = {r.name for r in attack.score(judged("unchanged"), CONTEXT)}
    assert "verification_auc.T1.metadata.v1" in names and not [name for name in names if "worst" in name]


def test_metadata_of_patients_with_one_image_each_teach_nothing():
    known = knowledge("unchanged")
    single = known.training.take(np.arange(0, len(known.training), 3))
    with pytest.raises(TooLittleDataError, match="GM-U317"):
        MetadataAttacker().fit(replace(known, training=single), 0)


# -- resamples --------------------------------------------------------------------------------------------------------
def _kept(case: Judged, system: str = "unchanged", n_boot: int = 15) -> tuple[ReplicateLog, dict]:
    attack = VerificationAttack(AttackerPool({"frozen": FrozenAttacker}), seeds=(0, 1), n_boot=n_boot)
    attack.fit(knowledge(system))
    log = ReplicateLog()
    lines = attack.score(case, replace(CONTEXT, keep=log.add))
    return log, {(r.name, r.negatives): r for r in lines}


def test_the_headline_leaves_its_resamples_with_the_draws_of_the_whole_cohort():
    case = judged("negative")
    log, table = _kept(case, "negative")
    worst = [table[f"verification_auc.{threat}.worst.v1", "matched"] for threat in ("T1", "T2", "T3")]
    assert len(log.kept) == 3 and log.of(table["verification_auc.T1.worst.v1", "random"]) is None
    pairs = threat_pairs(case.real.cohort, "T1", "matched")
    e, r = flat(case.release.pixels), flat(case.real.pixels)
    scores = -(e[pairs.first] * r[pairs.second]).sum(1)
    at = (pairs.same, pairs.patient_first, pairs.patient_second, pairs.weight, 15, 0)
    naive = pair_bootstrap_found(
        [lambda w: (roc_auc(scores, pairs.same, w),)], *at, n_cohort=len(case.real.cohort.patients)
    )
    kept = log.of(worst[0])
    assert kept is not None and worst[0].extra["variant"] == "signed" and kept.seeds == (0, 1)
    np.testing.assert_allclose(kept.found, np.repeat(naive[..., 0], 2, axis=1), atol=1e-12)
    assert kept.draws == draws_of(case.real.cohort.patients, 0) and kept.n_patients == worst[0].n_patients
    assert len({log.of(line).draws for line in worst}) == 1


def test_a_release_that_leaves_patients_out_shares_the_draws():
    case = judged("unchanged")
    first = case.real.cohort.patient_index < 2
    part = Judged(case.real, case.release.take(np.flatnonzero(~first)))
    (whole, of_whole), (some, of_some) = _kept(case), _kept(part)
    name = ("verification_auc.T1.worst.v1", "matched")
    assert of_some[name].n_patients == of_whole[name].n_patients - 2
    one, other = whole.of(of_whole[name]), some.of(of_some[name])
    assert one is not None and other is not None and share_draws(one, other)


def test_figures_are_those_of_plain_curves_resample_by_resample():
    """Sums over places among the positives, as fast as they are, round to the lines of sums over all pairs."""
    case = judged("noise")
    attack = VerificationAttack(AttackerPool({"frozen": FrozenAttacker}), seeds=(0,), threats=("T1",), n_boot=12)
    attack.fit(knowledge("noise"))
    table = {(r.name, r.negatives): r for r in attack.score(case, CONTEXT)}
    for negatives in ("matched", "random"):
        pairs, [scores] = attack.scores["frozen", "T1", negatives]
        chosen = attack._chosen["frozen", 0, "T1", negatives]
        curves = [SortedScores(s, pairs.same) for s in (chosen.sign * scores, chosen.ratio(scores))]
        probability = chosen.ratio.probability(scores)

        def plain(w, pairs=pairs, curves=curves, probability=probability):
            error = expected_calibration_error(probability, pairs.same, w)
            return [curves[0].auc(w), curves[1].auc(w), curves[0].eer(w), error]

        at = (pairs.same, pairs.patient_first, pairs.patient_second, pairs.weight, 12, 0)
        found = pair_bootstrap_found([plain], *at, n_cohort=len(case.real.cohort.patients))
        names = ("verification_auc", "verification_auc_two_sided", "equal_error_rate", "calibration_error")
        for name, expected in zip(names, intervals_over_seeds(found, pairs.n_positive_patients), strict=True):
            line = table[f"{name}.T1.frozen.v1", negatives]
            assert (line.value, line.low, line.high) == pytest.approx(expected, abs=1e-6), name
