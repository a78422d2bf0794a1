"""Pairs under the threat models, against plain loops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from attack_cohorts import real_images

from gmia_monai.data import Cohort, ImageRecord, t1_pairs
from gmia_monai.data.threats import threat_pairs
from gmia_monai.errors import UsageError
from gmia_monai.metrics.verification import roc_auc

COHORT = real_images("t").cohort


@pytest.mark.parametrize("negatives", ["random", "matched"])
@pytest.mark.parametrize("threat", ["T1", "T2", "T3"])
def test_positives_and_negatives_are_what_the_model_says(threat, negatives):
    pairs = threat_pairs(COHORT, threat, negatives, negatives_per_positive=4)
    patient = COHORT.patient_index
    positives = set(zip(pairs.first[pairs.same].tolist(), pairs.second[pairs.same].tolist(), strict=True))
    n = len(COHORT)
    mates = {(i, j) for i in range(n) for j in range(n) if patient[i] == patient[j] and i != j}
    expected = {"T1": mates, "T2": {(i, i) for i in range(n)}, "T3": {(i, j) for i, j in mates if i < j}}[threat]
    assert positives == expected and pairs.n_positives == len(expected)
    i, j = pairs.first[~pairs.same], pairs.second[~pairs.same]
    assert len(i) and (patient[i] != patient[j]).all()
    assert np.array_equal(pairs.patient_first, patient[pairs.first])
    if negatives == "matched":
        assert all(COHORT[a].sex == COHORT[b].sex for a, b in zip(i.tolist(), j.tolist(), strict=True))
    if threat == "T2" and negatives == "matched":
        assert all(COHORT[a].labels == COHORT[b].labels for a, b in zip(i.tolist(), j.tolist(), strict=True))
    for kind in (pairs.same, ~pairs.same):
        assert pairs.weight[kind].sum() == pytest.approx(1.0)


@pytest.mark.parametrize("threat", ["T1", "T3"])
def test_what_differs_between_images_of_a_person_tells_nothing(threat):
    """Two visits of a person are often of two views; matched strangers have to be so as often."""
    rng = np.random.default_rng(0)
    records = [
        ImageRecord(Path(f"/{p}_{i}"), f"p{p}", view=("AP", "PA")[int(rng.integers(2))], sex="FM"[p % 2], age=age)
        for p in range(120)
        for i, age in enumerate(rng.uniform(30, 80) + rng.uniform(0, 8, int(rng.integers(2, 5))))
    ]
    cohort = Cohort(tuple(records))
    view = np.array([r.view for r in cohort])
    auc = {}
    for negatives in ("matched", "random"):
        pairs = threat_pairs(cohort, threat, negatives)
        differ = view[pairs.first] != view[pairs.second]
        auc[negatives] = roc_auc(differ.astype(float), pairs.same, pairs.weight)
        sex = np.array([r.sex for r in cohort])
        assert (sex[pairs.first] == sex[pairs.second]).all() == (negatives == "matched")
        assert differ[pairs.same].any() and differ[~pairs.same].any()
        years = np.round(np.abs(cohort.ages[pairs.first] - cohort.ages[pairs.second]))
        auc[f"{negatives}, years"] = roc_auc(-years, pairs.same, pairs.weight)
    assert auc["matched"] == pytest.approx(0.5, abs=0.02)
    assert auc["matched, years"] == pytest.approx(0.5, abs=0.02) and auc["random, years"] > 0.55


def test_only_released_images_stand_first():
    released = np.zeros(len(COHORT), dtype=bool)
    released[::2] = True
    for threat in ("T1", "T2", "T3"):
        pairs = threat_pairs(COHORT, threat, "random", released, 4)
        assert released[pairs.first].all()
        # T1 sets a real image beside it, whatever became of that.
        assert released[pairs.second].all() == (threat != "T1")
    part = threat_pairs(COHORT, "T3", "random", released, 4)
    whole = t1_pairs(COHORT[released], "random", 4)
    assert part.n_positives == whole.n_positives and np.array_equal(part.first, np.flatnonzero(released)[whole.first])


def test_what_is_no_threat_model_is_refused():
    for arguments, code in (
        (("T4",), "GM-U304"),
        (("T1", "some"), "GM-U038"),
        (("T1", "random", np.ones(3, bool)), "GM-U305"),
    ):
        with pytest.raises(UsageError, match=code):
            threat_pairs(COHORT, *arguments)
