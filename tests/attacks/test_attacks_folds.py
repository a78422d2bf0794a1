"""Parts of patients: each is asked by what has not seen it, and luck is not taken for skill."""

from __future__ import annotations

import numpy as np
from attack_cohorts import real_images

from gmia_monai.attacks.folds import left_out, patient_parts
from gmia_monai.data.threats import threat_pairs
from gmia_monai.metrics.verification import roc_auc

PAIRS = threat_pairs(real_images("t").cohort, "T1", "matched")


def test_parts_are_of_patients_whichever_place_they_stand_in():
    first, second = patient_parts(PAIRS)
    part = dict(zip(PAIRS.patient_first.tolist(), first.tolist(), strict=True))
    assert all(part[p] == k for p, k in zip(PAIRS.patient_second.tolist(), second.tolist(), strict=True))
    assert np.bincount(list(part.values())).tolist() == [5, 5, 5, 5, 4]


def test_nobody_is_asked_by_what_has_seen_them():
    asked = []

    def fit(learnt):
        seen = set(PAIRS.patient_first[learnt].tolist()) | set(PAIRS.patient_second[learnt].tolist())

        def say(patients):
            asked.extend(patients.tolist())
            assert not seen & set(patients.tolist())
            return patients.astype(float)

        return say

    said = left_out(fit, PAIRS.patient_first, PAIRS)
    assert sorted(asked) == sorted(PAIRS.patient_first.tolist()) and np.array_equal(said, PAIRS.patient_first)


def test_what_was_learned_by_heart_is_worth_nothing():
    """A fit that remembers the answer of each patient: all right on what it has seen, and no more."""
    rng = np.random.default_rng(0)
    key = rng.random(PAIRS.same.shape)

    def fit(learnt):
        answers = dict(zip(key[learnt].tolist(), PAIRS.same[learnt].astype(float).tolist(), strict=True))
        return lambda scores: np.array([answers.get(k, 0.5) for k in scores.tolist()])

    everything = np.ones(len(PAIRS), dtype=bool)
    assert roc_auc(fit(everything)(key), PAIRS.same, PAIRS.weight) > 0.999
    assert roc_auc(left_out(fit, key, PAIRS), PAIRS.same, PAIRS.weight) == 0.5
