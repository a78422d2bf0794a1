"""Parts of patients: each is asked by what has not seen it, and luck is not taken for skill."""

from __future__ import annotations

import numpy as np
from attack_cohorts import real_images

from gmia_monai.attacks.folds import CrossFitted
from gmia_monai.attacks.likelihood import LikelihoodRatio
from gmia_monai.data.threats import threat_pairs
from gmia_monai.metrics.verification import roc_auc

PAIRS = threat_pairs(real_images("t").cohort, "T1", "matched")
SIDES = PAIRS.patient_first, PAIRS.patient_second


def test_no_pair_is_learned_from_by_what_is_asked_about_either_patient():
    learned: list[np.ndarray] = []

    def fit(learnt):
        learned.append(learnt)
        number = len(learned) - 1
        return lambda patients: np.full(len(patients), float(number))

    fitted = CrossFitted(fit, PAIRS.same, *SIDES)
    assert len(learned) == 6 and learned[0].all()
    asked = fitted.left_out(PAIRS.patient_first, PAIRS.patient_first)
    assert sorted(set(asked.tolist())) == [1.0, 2.0, 3.0, 4.0, 5.0]
    of_patient = dict(zip(PAIRS.patient_first.tolist(), asked.tolist(), strict=True))
    assert sorted(np.bincount([int(k) for k in of_patient.values()])[1:].tolist()) == [4, 5, 5, 5, 5]
    for patient, number in of_patient.items():
        learnt = learned[int(number)]
        assert learnt.any() and not np.isin(patient, [side[learnt] for side in SIDES])


def test_those_who_are_not_of_v2_are_scored_by_all_of_it():
    """A model that knows its rows by heart, and says of each how many it knew."""
    patient = np.repeat(np.arange(20), 2)
    seen: list[np.ndarray] = []

    def learn(rows: np.ndarray):
        seen.append(rows)
        return lambda asked: np.isin(asked, np.flatnonzero(rows)).astype(np.float64)

    fitted = CrossFitted(learn, np.arange(40) % 2 == 0, patient)
    rows = np.arange(40)
    assert fitted.all(rows).all() and not fitted.left_out(rows, patient).any()
    assert len(seen) == 6 and seen[0].all() and all(of_fold.sum() == 32 for of_fold in seen[1:])
    for of_fold in seen[1:]:
        assert all(len(set(of_fold[patient == p])) == 1 for p in range(20)), "patients are left out whole"
    strangers = np.full(40, 99)
    assert fitted.left_out(rows, strangers).all(), "those who are not of V2 are scored by all of it"


def test_what_was_learned_by_heart_is_worth_nothing():
    """A fit that remembers the answer of each pair: all right on what it has seen, and no more."""
    key = np.random.default_rng(0).random(PAIRS.same.shape)

    def fit(learnt):
        answers = dict(zip(key[learnt].tolist(), PAIRS.same[learnt].astype(float).tolist(), strict=True))
        return lambda scores: np.array([answers.get(k, 0.5) for k in scores.tolist()])

    fitted = CrossFitted(fit, PAIRS.same, *SIDES)
    assert roc_auc(fitted.all(key), PAIRS.same, PAIRS.weight) > 0.999
    assert roc_auc(fitted.left_out(key, PAIRS.patient_first), PAIRS.same, PAIRS.weight) == 0.5


def test_a_part_whose_absence_leaves_no_weight_is_asked_by_all():
    """All weight of the positives lies with two patients: without either there is too little to learn from."""
    patient, positive = np.repeat(np.arange(20), 2), np.arange(40) % 2 == 0
    weights = np.where(positive & (patient >= 2), 0.0, 1.0)
    scores = np.random.default_rng(0).normal(size=40)

    def learn(rows):
        return LikelihoodRatio(scores[rows], positive[rows], weights[rows])

    fitted = CrossFitted(learn, positive, patient)
    left_out = fitted.left_out(scores, patient)
    assert np.isfinite(left_out).all()
    assert np.array_equal(left_out[:4], fitted.all(scores)[:4]) and not np.array_equal(left_out, fitted.all(scores))
