from __future__ import annotations

import hashlib
import hmac
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest

from gmia_monai.data import Cohort, ImageRecord, check_disjoint, load_cohort, role_of_number
from gmia_monai.data.roles import choose_scheme, role_of_patient, role_of_split
from gmia_monai.errors import ManifestError, UsageError


def test_rule_by_hand():
    roles = ["S", "S", "A", "reserved", "S", "T", "V1", "S", "S", "A", "reserved", "S", "T", "V2", "S"]
    assert [role_of_number(p) for p in range(15)] == roles


def test_hash_is_keyed_and_spreads():
    number = int.from_bytes(hmac.new(b"k", b"ann", hashlib.sha256).digest()[:8], "big")
    assert role_of_patient("ann", "hash", key=b"k") == role_of_number(number)
    patients = [f"patient {i}" for i in range(7000)]
    roles = [role_of_patient(p, "hash") for p in patients]
    count = Counter(roles)
    for role, sevenths in {"S": 3, "A": 1, "V1": 0.5, "V2": 0.5, "T": 1, "reserved": 1}.items():
        assert abs(count[role] - 1000 * sevenths) < 150
    assert [role_of_patient(p, "hash", key=b"another") for p in patients] != roles


def test_split_names():
    assert [role_of_split(s) for s in ("train", "VAL", "validate", "test", "A", "v2")] == [
        "S",
        "V1",
        "V1",
        "T",
        "A",
        "V2",
    ]
    with pytest.raises(ManifestError, match="GM-M030") as error:
        role_of_split("Jane Doe")
    assert "Jane" not in str(error.value)


def test_scheme():
    assert choose_scheme(["NIH00001", "NIH00002"]) == "number"
    assert choose_scheme(["NIH00001", "2"]) == "hash"
    assert choose_scheme(["NIH00001"], ["train"]) == "split"
    assert choose_scheme([]) == "hash"


def test_numbers_are_needed_for_the_scheme_number():
    assert role_of_patient("NIH00012", "number") == "T"
    with pytest.raises(ManifestError, match="GM-M031"):
        role_of_patient("Jane", "number")
    with pytest.raises(UsageError, match="GM-U030"):
        role_of_patient("Jane", "luck")


def _cohort(*pairs: tuple[str, str]) -> Cohort:
    return Cohort(tuple(ImageRecord(Path(image), patient) for image, patient in pairs))


def test_overlap_is_refused(tmp_path):
    a, b = _cohort(("/1.png", "ann"), ("/2.png", "bob")), _cohort(("/3.png", "cy"))
    check_disjoint({"S": a, "T": b})
    with pytest.raises(ManifestError, match="GM-M032.*S and T share patients.*1 shared") as error:
        check_disjoint({"S": a, "V1": b, "T": _cohort(("/4.png", "bob"))})
    assert "bob" not in str(error.value)
    (tmp_path / "1.png").touch()
    (tmp_path / "link.png").symlink_to(tmp_path / "1.png")
    with pytest.raises(ManifestError, match="GM-M033"):
        check_disjoint({"S": _cohort((tmp_path / "1.png", "a")), "T": _cohort((tmp_path / "link.png", "b"))})


def test_copies_under_another_name_are_refused(tmp_path):
    ends = bytes(1 << 13)  # uncompressed images with a black border end alike and are no copies
    for name, content in (("1", b"a"), ("2", b"b"), ("3", b"a")):
        (tmp_path / name).write_bytes(content + ends)
    one, two, copy = (_cohort((tmp_path / name, name)) for name in "123")
    check_disjoint({"S": one, "T": two})
    with pytest.raises(ManifestError, match="GM-M037.*1 shared"):
        check_disjoint({"S": one, "V1": two, "T": copy})


def test_roles_of_the_real_data_are_disjoint_and_complete(cxr_dir):
    cohort = load_cohort(dataset_dir=cxr_dir)
    parts = {role: cohort.role(role) for role in ("S", "A", "V1", "V2", "T")}
    check_disjoint(parts)
    assert sum(len(part) for part in parts.values()) == len(cohort)
    assert all(not set(x.patients) & set(y.patients) for x, y in combinations(parts.values(), 2))
    assert cohort.role_scheme == "number"
