"""MIMIC-CXR-JPG 2.0.0 as published: three tables (``.csv.gz``) and ``files/p10/p10000032/s50414267/<dicom_id>.jpg``.

Johnson et al., MIMIC-CXR-JPG, a large publicly available database of labeled chest radiographs, 2019.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from gmia_monai.data.cohort import Cohort, ImageRecord
from gmia_monai.data.sources.common import CHEXPERT_FINDINGS, Skipped, chexpert_labels
from gmia_monai.data.table import read_columns
from gmia_monai.errors import ManifestError, UsageError

__all__ = ["matches", "read"]

_PREFIX = "mimic-cxr-2.0.0-"
_VIEWS = ("PA", "AP")


def matches(root: Path) -> bool:
    """Whether the metadata table, gzipped or not, lies in ``root``."""
    return _table(root, "metadata") is not None


def read(root: Path, min_images_per_patient: int = 1, roles: str = "hash") -> Cohort:
    """Read the frontal images (PA and AP).

    Age and sex are not part of MIMIC-CXR-JPG and stay unknown. Studies that the labeler has no row for have no labels.

    Args:
        root: folder with the tables and ``files/``.
        min_images_per_patient: leave out patients with fewer frontal images on disk; GMIA takes 20.
        roles: ``hash``: by a keyed hash of the patient. ``split``: by the official split, train -> S, validate -> V1,
            test -> T; ``split`` of each image carries the official one either way.

    Raises:
        UsageError: ``GM-U034`` if ``min_images_per_patient`` is not positive.
        ManifestError: a table is missing or cannot be used, or no image is left.
    """
    if min_images_per_patient < 1:
        raise UsageError("GM-U034", "min_images_per_patient must be positive", got=min_images_per_patient)
    tables = {}
    for name in ("metadata", "split", "chexpert"):
        table = _table(root, name)
        if table is None:
            raise ManifestError(
                "GM-M003", f"{_PREFIX}{name}.csv.gz is absent", next_step="fetch the three tables of MIMIC-CXR-JPG"
            )
        tables[name] = table
    split_of = {row["dicom_id"]: row["split"] for _, row in read_columns(tables["split"], ("dicom_id", "split"))}
    labelled = read_columns(tables["chexpert"], ("subject_id", "study_id", *CHEXPERT_FINDINGS))
    labels_of = {row["study_id"]: chexpert_labels(row, number) for number, row in labelled}
    skipped = Skipped("mimic_cxr_jpg")
    records = []
    for _, row in read_columns(tables["metadata"], ("dicom_id", "subject_id", "study_id", "ViewPosition")):
        if row["ViewPosition"] not in _VIEWS:
            skipped.add("not a frontal view")
            continue
        subject, study, dicom = row["subject_id"], row["study_id"], row["dicom_id"]
        key = f"files/p{subject[:2]}/p{subject}/s{study}/{dicom}.jpg"
        if not (root / key).is_file():
            skipped.add("image file is absent")
            continue
        if roles == "split" and dicom not in split_of:
            skipped.add("in no official split")
            continue
        records.append(
            ImageRecord(
                image=root / key,
                patient_id=subject,
                study_id=study,
                view=row["ViewPosition"],
                labels=labels_of.get(study),
                folder="mimic_cxr_jpg",
                split=split_of.get(dicom, ""),
                key=key,
            )
        )
    count = Counter(record.patient_id for record in records)
    kept = tuple(record for record in records if count[record.patient_id] >= min_images_per_patient)
    if len(kept) < len(records):
        skipped.add(f"patient has fewer than {min_images_per_patient} images", len(records) - len(kept))
    if not kept:
        raise ManifestError(
            "GM-M002",
            "no images found that the metadata table names",
            got=f"{len(records)} frontal images before the filter of {min_images_per_patient} a patient",
            expected="files/p1*/p*/s*/*.jpg",
        )
    return Cohort(kept, CHEXPERT_FINDINGS, role_scheme=roles, source="mimic_cxr_jpg", notes=skipped.notes())


def _table(root: Path, name: str) -> Path | None:
    paths = (root / f"{_PREFIX}{name}.csv.gz", root / f"{_PREFIX}{name}.csv")
    return next((path for path in paths if path.is_file()), None)
