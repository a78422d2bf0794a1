"""Data sets of the training configs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import CacheDataset, Dataset, PersistentDataset
from monai.transforms import Compose, Lambdad

from gmia_monai.data.cohort import Cohort, ImageRecord
from gmia_monai.engines import (
    disjoint_roles,
    identity_datalist,
    make_dataset,
    scored_findings,
    select_findings,
)
from gmia_monai.errors import ManifestError, UsageError


def _cohort(spec: str) -> Cohort:
    """``"a:train a:train b:val"``: images of patients with their split."""
    records = []
    for i, word in enumerate(spec.split()):
        patient, split = word.split(":")
        records.append(ImageRecord(Path(f"/x/{i}.png"), patient, labels=(("Effusion", float(i % 2)),), split=split))
    return Cohort(tuple(records), role_scheme="split")


ITEMS = [{"image": float(i), "label": i, "patient": 0, "patient_id": "secret", "key": "k"} for i in range(3)]


def _double(x: float) -> float:
    return 2 * x


def _treble(x: float) -> float:
    return 3 * x


DOUBLE = Compose([Lambdad("image", _double)])


@pytest.mark.parametrize("cache, kind", [("memory", CacheDataset), ("disk", PersistentDataset), ("none", Dataset)])
def test_every_cache_gives_the_transformed_items_without_identifiers(tmp_path, cache, kind):
    dataset = make_dataset(ITEMS, DOUBLE, cache, str(tmp_path / "cache"))
    assert type(dataset) is kind
    assert [dataset[i]["image"] for i in range(3)] == [0.0, 2.0, 4.0]
    assert dataset[1].keys() == {"image", "label", "patient"}
    assert (tmp_path / "cache").exists() == (cache == "disk")


def test_the_disk_cache_of_another_transform_is_not_used(tmp_path):
    folder = str(tmp_path / "cache")
    assert make_dataset(ITEMS, DOUBLE, "disk", folder)[1]["image"] == 2.0
    assert make_dataset(ITEMS, Compose([Lambdad("image", _treble)]), "disk", folder)[1]["image"] == 3.0


def test_caches_that_cannot_be_are_refused():
    for arguments, code in (((ITEMS, DOUBLE, "tape"), "GM-U040"), ((ITEMS, DOUBLE, "disk"), "GM-U045"),
                            (([], DOUBLE), "GM-U041")):  # fmt: skip
        with pytest.raises(UsageError, match=code):
            make_dataset(*arguments)


def test_roles_are_disjoint_or_refused():
    roles = disjoint_roles(_cohort("a:train b:val c:test a:train"))
    assert {name: len(part) for name, part in roles.items()} == {"S": 2, "V1": 1}
    with pytest.raises(ManifestError, match="GM-M034"):
        disjoint_roles(_cohort("a:train b:val a:val"))
    with pytest.raises(ManifestError, match="GM-M035"):
        disjoint_roles(_cohort("a:train b:test"))
    same = Path("/x/same.png")
    shared = Cohort((ImageRecord(same, "a", split="train"), ImageRecord(same, "b", split="val")), role_scheme="split")
    with pytest.raises(ManifestError, match="GM-M033"):
        disjoint_roles(shared)


def test_identity_labels_are_dense_over_patients_with_enough_images():
    items = identity_datalist(_cohort("a:train b:train c:train a:train c:train"), min_images=2)
    assert [item["patient_id"] for item in items] == ["a", "c", "a", "c"]
    assert [item["label"] for item in items] == [0, 1, 0, 1]


def test_findings_are_scored_from_their_positives_and_negatives():
    nan = np.nan
    labels = [[1, 1, 1, 0], [1, 1, 0, 0], [0, 1, nan, 0], [0, 1, nan, 1]]
    items = [{"label": np.array(row, dtype=np.float32)} for row in labels]
    assert scored_findings(items, 1) == [0, 2, 3]
    assert scored_findings(items, 2) == [0]
    with pytest.raises(UsageError, match="GM-U044"):
        scored_findings(items, 3)


def test_select_findings_keeps_columns_of_both():
    output = [{"pred": torch.arange(4.0), "label": np.arange(4.0) + 10}]
    (pred,), (label,) = select_findings([2, 0])(output)
    assert pred.tolist() == [2.0, 0.0] and label.tolist() == [12.0, 10.0]
