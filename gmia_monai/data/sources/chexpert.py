"""CheXpert as published: ``train.csv``, ``valid.csv`` and ``train/patient00001/study1/view1_frontal.jpg``.

Irvin et al., CheXpert: A Large Chest Radiograph Dataset with Uncertainty Labels and Expert Comparison, AAAI 2019.
"""

from __future__ import annotations

import math
from pathlib import Path

from gmia_monai.data.cohort import Cohort, ImageRecord
from gmia_monai.data.sources.common import CHEXPERT_FINDINGS, Skipped, chexpert_labels
from gmia_monai.data.table import read_columns, read_table
from gmia_monai.data.values import parse_age, parse_sex
from gmia_monai.errors import ManifestError

__all__ = ["matches", "read"]

_TABLES = {"train.csv": "train", "valid.csv": "val"}
_COLUMNS = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *CHEXPERT_FINDINGS)
_VIEWS = ("PA", "AP")


def matches(root: Path) -> bool:
    """Whether a table in ``root`` has the columns of CheXpert."""
    for name in _TABLES:
        try:
            if (root / name).is_file() and {"Path", "Frontal/Lateral"} <= set(next(read_table(root / name))[1]):
                return True
        except ManifestError:
            continue
    return False


def read(root: Path, roles: str = "hash") -> Cohort:
    """Read the frontal images (AP and PA) of the tables that are there.

    Args:
        root: folder with the tables; paths in them start with the name of the data set, which may be this folder or
            one below it.
        roles: ``hash``: by a keyed hash of the patient. ``split``: train.csv -> S, valid.csv -> V1 (there is no test
            set in the download); ``split`` of each image carries the table either way.

    Raises:
        ManifestError: a table that cannot be used, or no images.
    """
    skipped = Skipped("chexpert")
    records = []
    for name, split in _TABLES.items():
        if not (root / name).is_file():
            continue
        for number, row in read_columns(root / name, _COLUMNS):
            if row["Frontal/Lateral"] != "Frontal" or row["AP/PA"] not in _VIEWS:
                skipped.add("not a frontal AP or PA view")
                continue
            parts = Path(row["Path"]).parts
            if len(parts) < 4:
                skipped.add("path without patient and study")
                continue
            # .../patient00001/study1/view1_frontal.jpg; patients of the two tables are numbered through
            key = Path(*parts[1:])
            path = next((p for p in (root / key, root / row["Path"]) if p.is_file()), None)
            if path is None:
                skipped.add("image file is absent")
                continue
            age = parse_age(row["Age"])
            records.append(
                ImageRecord(
                    image=path,
                    patient_id=parts[-3],
                    study_id=f"{parts[-3]}_{parts[-2]}",
                    view=row["AP/PA"],
                    sex=parse_sex(row["Sex"]),
                    # adults only: 0 stands for unknown
                    age=age if age > 0 else math.nan,
                    labels=chexpert_labels(row, number),
                    folder="chexpert",
                    split=split,
                    key=key.as_posix(),
                )
            )
    if not records:
        raise ManifestError(
            "GM-M002", "no images found that train.csv or valid.csv name", expected="train/patient*/study*/view*.jpg"
        )
    return Cohort(tuple(records), CHEXPERT_FINDINGS, role_scheme=roles, source="chexpert", notes=skipped.notes())
