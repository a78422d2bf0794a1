"""NIH ChestX-ray14 as published: ``Data_Entry_2017*.csv`` and ``images_001/images/*.png`` … or ``images/*.png``.

Wang et al., ChestX-ray8: Hospital-scale Chest X-ray Database and Benchmarks, CVPR 2017.
"""

from __future__ import annotations

from pathlib import Path

from gmia_monai.data.cohort import Cohort, ImageRecord
from gmia_monai.data.labels import parse_labels
from gmia_monai.data.sources.common import IMAGE_SUFFIXES, NIH_FINDINGS, Skipped
from gmia_monai.data.table import read_columns
from gmia_monai.data.values import parse_age, parse_sex, parse_view
from gmia_monai.errors import ManifestError

__all__ = ["matches", "read"]

_COLUMNS = ("Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age", "View Position")
_LISTS = {"train_val_list.txt": "train_val", "test_list.txt": "test"}


def matches(root: Path) -> bool:
    """Whether a ``Data_Entry*.csv`` lies in ``root``."""
    return _table(root) is not None


def read(root: Path, roles: str = "number") -> Cohort:
    """Read the data set; patients are named ``NIH00001`` and so on.

    Ages that cannot be (the 2017 table has patients of 411 years) are unknown. Images that are in the table but not on
    disk are counted, for the archives are many and often not all fetched.

    Args:
        root: folder of the table.
        roles: ``number``: by the rule of :mod:`gmia_monai.data.roles`. ``split``: by the official lists, train_val -> S
            and test -> T; ``split`` of each image carries the official list either way.

    Raises:
        ManifestError: a table that cannot be used, no images, or (``roles="split"``) an image in no official list.
    """
    table = _table(root)
    if table is None:
        raise ManifestError("GM-M003", "no Data_Entry_2017*.csv", next_step="give the folder that holds it")
    official = _official_lists(root)
    files = _image_files(root)
    skipped = Skipped("chestxray14")
    records = []
    for _, row in read_columns(table, _COLUMNS):
        name = row["Image Index"]
        path = files.get(name)
        split = official.get(name, "")
        if path is None:
            skipped.add("image file is absent")
            continue
        if roles == "split" and not split:
            skipped.add("in no official list")
            continue
        number = row["Patient ID"]
        if not number.isdigit():
            skipped.add("patient has no number")
            continue
        patient = f"NIH{int(number):05d}"
        records.append(
            ImageRecord(
                image=path,
                patient_id=patient,
                study_id=f"{patient}_{row['Follow-up #']}",
                view=parse_view(row["View Position"]),
                # the table of 2017 says Gender, the one of 2020 says Sex
                sex=parse_sex(row.get("Patient Gender") or row.get("Patient Sex") or ""),
                age=parse_age(row["Patient Age"]),
                labels=parse_labels(row["Finding Labels"]),
                folder="chestxray14",
                split={"train_val": "train"}.get(split, split) if roles == "split" else split,
                key=path.relative_to(root).as_posix(),
            )
        )
    if not records:
        raise ManifestError(
            "GM-M002", f"no images found that {table.name} names", expected="images_001/images/*.png or images/*.png"
        )
    return Cohort(tuple(records), NIH_FINDINGS, role_scheme=roles, source="chestxray14", notes=skipped.notes())


def _table(root: Path) -> Path | None:
    return next(iter(sorted(root.glob("Data_Entry*.csv"))), None)


def _official_lists(root: Path) -> dict[str, str]:
    lists = {}
    for file, split in _LISTS.items():
        if (root / file).is_file():
            lists.update(dict.fromkeys((root / file).read_text(encoding="utf-8").split(), split))
    return lists


def _image_files(root: Path) -> dict[str, Path]:
    folders = [root, root / "images", *sorted(root.glob("images_*")), *sorted(root.glob("images_*/images"))]
    return {
        path.name: path
        for folder in folders
        if folder.is_dir()
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in IMAGE_SUFFIXES
    }
