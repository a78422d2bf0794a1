from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from gmia_monai.data import Cohort, ImageRecord, load_cohort, t1_pairs
from gmia_monai.errors import UsageError


def _cohort(n: int = 120, seed: int = 0) -> Cohort:
    rng = np.random.default_rng(seed)
    records = []
    for i in range(n):
        patient = int(rng.integers(n // 4))
        records.append(
            ImageRecord(
                Path(f"/{i}.png"),
                f"p{patient}",
                view=str(rng.choice(["PA", "AP"])),
                sex="MF"[patient % 2],
                age=math.nan if patient % 9 == 0 else float(20 + patient + rng.integers(3)),
                labels=(("Mass", 1.0),) if rng.random() < 0.5 else (),
                folder=str(rng.choice(["a", "b"])),
            )
        )
    return Cohort(tuple(records))


def _may_be_negative(x: ImageRecord, y: ImageRecord, matched: bool, findings: bool) -> bool:
    if x.patient_id == y.patient_id or x.folder != y.folder:
        return False
    if findings and x.labels != y.labels:
        return False
    if not matched:
        return True
    close = abs(x.age - y.age) <= 5 or (math.isnan(x.age) and math.isnan(y.age))
    return x.sex == y.sex and x.view == y.view and close


def test_positives_are_all_pairs_of_a_patient_in_a_folder():
    cohort = _cohort()
    naive = {
        (i, j)
        for i in range(len(cohort))
        for j in range(i + 1, len(cohort))
        if cohort[i].patient_id == cohort[j].patient_id and cohort[i].folder == cohort[j].folder
    }
    pairs = t1_pairs(cohort)
    assert set(zip(pairs.first[pairs.same].tolist(), pairs.second[pairs.same].tolist(), strict=True)) == naive
    assert pairs.n_positives == len(naive) > 50


@pytest.mark.parametrize("negatives", ["random", "matched"])
@pytest.mark.parametrize("findings", [False, True])
@pytest.mark.parametrize("per_positive", [1, 3, 1000])
def test_negatives_against_a_double_loop(negatives, findings, per_positive):
    cohort = _cohort()
    pairs = t1_pairs(cohort, negatives, per_positive, match_findings=findings, seed=5)
    exists = {
        i: {j for j, y in enumerate(cohort) if _may_be_negative(x, y, negatives == "matched", findings)}
        for i, x in enumerate(cohort)
    }
    partners, drawn = defaultdict(set), defaultdict(list)
    for pair, into in ((pairs.same, partners), (~pairs.same, drawn)):
        for i, j in zip(pairs.first[pair].tolist(), pairs.second[pair].tolist(), strict=True):
            if into is partners:
                partners[i].add(j)
                partners[j].add(i)
            else:
                drawn[i].append(j)
    for i, others in drawn.items():
        assert len(set(others)) == len(others), "without replacement"
        stand_ins = set().union(*(exists[partner] for partner in partners[i]))
        assert set(others) <= stand_ins, "they are like an image of the same patient, not like this one"
    assert pairs.n_wanted == pairs.n_positives * per_positive
    if per_positive == 1000:
        assert pairs.n_short == pairs.n_positives and pairs.n_negatives < pairs.n_wanted
    if per_positive == 1 and negatives == "random" and not findings:
        assert pairs.n_short == 0 and pairs.n_negatives == pairs.n_wanted


def test_weights_give_each_patient_the_same():
    cohort = _cohort()
    pairs = t1_pairs(cohort, "random")
    per_patient = Counter()
    for patient, weight in zip(pairs.patient_first[pairs.same], pairs.weight[pairs.same], strict=True):
        per_patient[int(patient)] += weight
    np.testing.assert_allclose(list(per_patient.values()), 1 / len(per_patient), rtol=1e-3)
    assert pairs.n_positive_patients == len(per_patient)
    np.testing.assert_allclose(pairs.weight[~pairs.same].sum(), 1)
    assert pairs.weight_moved < 1e-3


def test_patients_belong_to_the_images():
    cohort = _cohort()
    pairs = t1_pairs(cohort)
    np.testing.assert_array_equal(pairs.patient_first, cohort.patient_index[pairs.first])
    np.testing.assert_array_equal(pairs.patient_second, cohort.patient_index[pairs.second])
    np.testing.assert_array_equal(pairs.same, pairs.patient_first == pairs.patient_second)
    assert (pairs.first != pairs.second).all()


def test_limit_of_positives_and_seed():
    cohort = _cohort()
    pairs = t1_pairs(cohort, max_positives_per_patient=2, seed=1)
    count = Counter(pairs.patient_first[pairs.same].tolist())
    full = Counter(t1_pairs(cohort).patient_first[t1_pairs(cohort).same].tolist())
    assert count == {patient: min(n, 2) for patient, n in full.items()}
    same_seed, other_seed = (t1_pairs(cohort, max_positives_per_patient=2, seed=seed) for seed in (1, 2))
    np.testing.assert_array_equal(pairs.first, same_seed.first)
    np.testing.assert_array_equal(pairs.second, same_seed.second)
    assert not np.array_equal(pairs.second, other_seed.second)


def test_draws_are_fair():
    # one positive, four possible others: each must come equally often, wherever it stands by age
    ages = [40.0, 40.0, 36.0, 39.0, 42.0, 45.0, 46.0]
    patients = ["p", "p", "a", "b", "c", "d", "too old"]
    cohort = Cohort(
        tuple(ImageRecord(Path(f"/{i}.png"), p, age=a) for i, (p, a) in enumerate(zip(patients, ages, strict=True)))
    )
    count = Counter(t1_pairs(cohort, "matched", 1, seed=seed, balanced=False).second[1] for seed in range(2000))
    assert set(count) == {2, 3, 4, 5}
    assert all(abs(n - 500) < 100 for n in count.values())


def test_nothing_to_pair():
    pairs = t1_pairs(_cohort()[[]])
    assert len(pairs) == 0 and pairs.n_positive_patients == 0
    alone = t1_pairs(Cohort((ImageRecord(Path("/1.png"), "a"), ImageRecord(Path("/2.png"), "b"))))
    assert alone.n_positives == alone.n_negatives == 0
    one = t1_pairs(Cohort((ImageRecord(Path("/1.png"), "a"), ImageRecord(Path("/2.png"), "a"))))
    assert (one.n_positives, one.n_negatives, one.n_short) == (1, 0, 1)


@pytest.mark.parametrize(
    "wrong", [{"negatives": "hard"}, {"negatives_per_positive": -1}, {"max_positives_per_patient": 0}]
)
def test_wrong_arguments(wrong):
    with pytest.raises(UsageError, match="GM-U038"):
        t1_pairs(_cohort(), **wrong)


@pytest.mark.parametrize("negatives", ["random", "matched"])
def test_real_test_role_in_a_few_seconds(cxr_dir, negatives):
    cohort = load_cohort(dataset_dir=cxr_dir).role("T")
    start = time.perf_counter()
    pairs = t1_pairs(cohort, negatives)
    assert time.perf_counter() - start < 5
    assert pairs.n_positives == 11612
    # of the 309 with two images, one has them in two folders; two are matched by nobody who has a positive
    assert pairs.n_positive_patients == (308 if negatives == "random" else 306)
    assert pairs.weight_moved < 0.05
    folders = np.array([r.folder for r in cohort])
    assert (folders[pairs.first] == folders[pairs.second]).all()
