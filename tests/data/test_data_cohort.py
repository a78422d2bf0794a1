from __future__ import annotations

import hashlib
import math
import pickle
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gmia_monai.data import Cohort, ImageRecord, load_cohort
from gmia_monai.errors import ManifestError, UsageError


def _cohort() -> Cohort:
    rows = [("p2", "a"), ("p1", "a"), ("p2", "b"), ("p3", "a"), ("p2", "a"), ("p2", "b"), ("p2", "b")]
    labels = [(("Mass", 1.0),), (), None, (("Mass", -1.0), ("Edema", 1.0)), (("Mass", 1.0),), (("Mass", 0.0),), ()]
    records = [
        ImageRecord(
            Path(f"/x/{folder}/{i}.png"), patient, folder=folder, labels=label, age=50.0 + i, key=f"{folder}/{i}.png"
        )
        for i, ((patient, folder), label) in enumerate(zip(rows, labels, strict=True))
    ]
    return Cohort(tuple(records))


def test_columns():
    cohort = _cohort()
    assert len(cohort) == 7
    assert cohort.patients == ("p2", "p1", "p3")
    assert cohort.patient_index.tolist() == [0, 1, 0, 2, 0, 0, 0]
    assert cohort.folders == ("a", "b")
    assert cohort.findings == ("Edema", "Mass")
    assert cohort.ages.tolist() == [50, 51, 52, 53, 54, 55, 56]


def test_the_hash_of_the_records_is_of_what_attacks_read():
    cohort = _cohort()
    assert cohort.records_hash == _cohort().records_hash
    changes = [{"patient_id": "p9"}, {"study_id": "s"}, {"folder": "c"}, {"sex": "F"}, {"age": 1.0}, {"view": "AP"}]
    changes += [{"labels": (("Mass", 0.0),)}]
    others = [replace(cohort, records=(replace(cohort[0], **change), *cohort.records[1:])) for change in changes]
    others.append(replace(cohort, role_key=b"another"))
    assert len({cohort.records_hash, *(other.records_hash for other in others)}) == 9
    moved = replace(cohort, records=(replace(cohort[0], image=Path("/y/0.png")), *cohort.records[1:]))
    assert moved.records_hash == cohort.records_hash


def test_indexing_gives_a_record_or_a_cohort():
    cohort = _cohort()
    assert cohort[3].patient_id == "p3" and cohort[-1] is cohort.records[6]
    assert [r.key for r in cohort[1:3]] == ["a/1.png", "b/2.png"]
    assert [r.key for r in cohort[np.array([5, 0])]] == ["b/5.png", "a/0.png"]
    part = cohort[cohort.patient_index == 2]
    assert isinstance(part, Cohort) and len(part) == 1
    assert part.patient_index.tolist() == [0], "dense again within the part"
    assert part.findings == cohort.findings, "label vectors stay aligned"
    assert len(cohort[[]]) == 0 and cohort[[]].patient_index.shape == (0,)
    with pytest.raises(IndexError):
        cohort[np.array([True])]
    with pytest.raises(IndexError):
        cohort[7]


def test_repr_and_pickle_keep_identifiers_apart():
    cohort = _cohort()
    cohort.patient_index  # noqa: B018 - fills the cache that is pickled with it
    assert "p2" not in repr(cohort) + repr(cohort[0]) and "images=7" in repr(cohort)
    assert pickle.loads(pickle.dumps(cohort)).records == cohort.records


def test_core_takes_the_smallest_hashes():
    cohort = _cohort()
    core = cohort.core(2)
    of_p2 = [r.key for r in cohort if r.patient_id == "p2"]
    smallest = sorted(of_p2, key=lambda key: hashlib.sha256(key.encode()).hexdigest())[:2]
    assert {r.key for r in core if r.patient_id == "p2"} == set(smallest)
    assert Counter(r.patient_id for r in core) == {"p2": 2, "p1": 1, "p3": 1}
    keys = [r.key for r in cohort]
    assert [keys.index(r.key) for r in core] == sorted(keys.index(r.key) for r in core), "order is kept"
    shuffled = cohort[np.array([6, 3, 0, 2, 5, 1, 4])]
    assert {r.key for r in shuffled.core(2)} == {r.key for r in core}, "whatever the order of the list"


def test_datalist():
    items = _cohort().datalist(("Mass",), uncertain="ones")
    assert items[3]["label"].tolist() == [1.0] and items[3]["label"].dtype == np.float32
    assert items[0]["image"] == str(Path("/x/a/0.png"))
    assert [item["patient"] for item in items] == [0, 1, 0, 2, 0, 0, 0]
    assert set(items[0]) == {
        "image", "label", "patient", "patient_id", "study_id", "view", "sex", "age", "folder", "key",
    }  # fmt: skip
    assert np.isnan(items[2]["label"]).all(), "nobody looked"


def test_findings_with_at_least():
    assert _cohort().findings_with_at_least(1) == ("Edema", "Mass")
    assert _cohort().findings_with_at_least(2) == ("Mass",), "neither uncertain nor absent count"


def test_key_defaults_to_folder_and_name():
    record = ImageRecord(Path("/x/y/z.png"), "p", folder="f")
    assert record.key == "f/z.png" and math.isnan(record.age)


def test_role_refuses():
    with pytest.raises(UsageError, match="GM-U031"):
        _cohort().role("X")
    with pytest.raises(ManifestError, match="GM-M035"):
        _cohort().role("S", min_patients=4)
    with pytest.raises(UsageError, match="GM-U030"):
        Cohort((), role_scheme="luck")


def test_a_patient_in_two_splits_is_refused():
    records = tuple(ImageRecord(Path(f"/{i}.png"), "p", split=split) for i, split in enumerate(("train", "test")))
    with pytest.raises(ManifestError, match="GM-M034"):
        Cohort(records, role_scheme="split").role("S")


# patients / images / patients with two or more / images of the core list, as the protocol states them
_PROTOCOL = {
    "S": (2004, 6847, 877, 3925),
    "A": (684, 2370, 297, 1343),
    "V1": (337, 1114, 153, 685),
    "V2": (334, 1239, 155, 688),
    "T": (675, 2124, 309, 1326),
    "reserved": (0, 0, 0, 0),
}


@pytest.mark.parametrize("role", _PROTOCOL)
def test_counts_of_the_protocol_on_the_real_data(cxr_dir, role):
    part = load_cohort(dataset_dir=cxr_dir).role(role)
    several = sum(n > 1 for n in Counter(part.patient_index.tolist()).values())
    assert (len(part.patients), len(part), several, len(part.core())) == _PROTOCOL[role]


def test_several_roles_together():
    records = [ImageRecord(Path(f"/{p}.png"), f"NIH{p:05d}") for p in range(14)]
    cohort = Cohort(tuple(records), role_scheme="number")
    together = cohort.role("S+A")
    assert set(together.patients) == set(cohort.role("S").patients) | set(cohort.role("A").patients)
    assert len(together) == 8
    with pytest.raises(UsageError, match="GM-U031"):
        cohort.role("S+B")


def test_a_sample_holds_whole_patients_and_every_shorter_sample():
    records = [ImageRecord(Path(f"{p}_{i}.png"), f"p{p}") for p in range(12) for i in range(1 + p % 3)]
    cohort = Cohort(tuple(records))
    longer = cohort.sample(15)
    assert len(longer) == 15 and [r.key for r in longer] == [r.key for r in records if r in longer.records]
    counts, whole = Counter(r.patient_id for r in longer), Counter(r.patient_id for r in records)
    assert sum(counts[p] != whole[p] for p in counts) <= 1, "all patients but the last come whole"
    for n in range(15):
        assert {r.key for r in cohort.sample(n)} <= {r.key for r in longer}
    first = min(cohort.patients, key=lambda p: hashlib.sha256(p.encode()).digest())
    assert cohort.sample(1)[0].patient_id == first
    assert len(cohort.sample(len(cohort))) == len(cohort)
    with pytest.raises(UsageError, match="GM-U306"):
        cohort.sample(len(cohort) + 1)
