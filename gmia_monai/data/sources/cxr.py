"""The development folder: ``metadata.csv`` and folders of ChestX-ray14 images at 64, 128 and 256 pixels."""

from __future__ import annotations

from pathlib import Path

from gmia_monai.data.cohort import Cohort, ImageRecord
from gmia_monai.data.labels import parse_labels
from gmia_monai.data.sources.common import NIH_FINDINGS, Skipped
from gmia_monai.data.table import read_columns
from gmia_monai.data.values import parse_age, parse_sex, parse_view
from gmia_monai.errors import ManifestError, UsageError

__all__ = ["folders_for_size", "matches", "read"]

_TABLE = "metadata.csv"
_COLUMNS = ("image", "patient_id", "study_or_followup", "view", "age", "sex", "labels", "nih_split")


def matches(root: Path) -> bool:
    """Whether ``root`` holds the table and one of the folders."""
    return (root / _TABLE).is_file() and any((root / name).is_dir() for name in ("nih64", "nih128", "nih256"))


def folders_for_size(image_size: int) -> tuple[str, ...]:
    """Folders whose images are at least ``image_size`` pixels wide: no image is enlarged while a larger one exists."""
    if image_size <= 64:
        return ("nih128", "nih64")
    return ("nih128",) if image_size <= 128 else ("nih256",)


def read(root: Path, image_size: int = 64) -> Cohort:
    """Read the folder; patients get their roles by number.

    Args:
        root: folder with ``metadata.csv``.
        image_size: side in pixels that the images will be used at; chooses the folders.

    Raises:
        UsageError: ``GM-U033`` if ``image_size`` is not positive.
        ManifestError: ``GM-M002`` if no image of the chosen folders is there.
    """
    if image_size < 1:
        raise UsageError("GM-U033", "image_size must be positive", got=image_size)
    folders = folders_for_size(image_size)
    there = {f"{name}/{path.name}" for name in folders if (root / name).is_dir() for path in (root / name).iterdir()}
    skipped = Skipped("cxr")
    records = []
    for _, row in read_columns(root / _TABLE, _COLUMNS):
        key = row["image"]
        folder = key.split("/")[0]
        if folder not in folders:
            continue
        if key not in there:
            skipped.add("image file is absent")
            continue
        records.append(
            ImageRecord(
                image=root / key,
                patient_id=row["patient_id"],
                study_id=f"{row['patient_id']}_{row['study_or_followup']}",
                view=parse_view(row["view"]),
                sex=parse_sex(row["sex"]),
                age=parse_age(row["age"]),
                labels=parse_labels(row["labels"]),
                folder=folder,
                split=row["nih_split"],
                key=key,
            )
        )
    if not records:
        raise ManifestError(
            "GM-M002",
            f"no images found for {image_size} px",
            expected=f"images of {_TABLE} in {' or '.join(folders)}",
            next_step="use a smaller image_size, or fetch the folder",
        )
    return Cohort(tuple(records), NIH_FINDINGS, role_scheme="number", source="cxr", notes=skipped.notes())
