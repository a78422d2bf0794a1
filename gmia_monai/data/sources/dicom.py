"""A tree of DICOM files: patient, study, view, sex and age from the headers; pixels are not read."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pydicom
from pydicom.errors import InvalidDicomError

from gmia_monai.data.cohort import Cohort, ImageRecord
from gmia_monai.data.sources.common import Skipped, walk_files
from gmia_monai.data.sources.folder import find_manifest
from gmia_monai.data.values import parse_age, parse_sex, parse_view
from gmia_monai.dicom.silence import header_silence
from gmia_monai.errors import ManifestError, UsageError

__all__ = ["matches", "read"]

_TAGS = ("PatientID", "StudyInstanceUID", "ViewPosition", "PatientSex", "PatientAge", "Rows", "Columns")
_SUFFIXES = (".dcm", ".dicom")
_LOOK_AT = 50


def matches(root: Path) -> bool:
    """Whether there is a ``.dcm`` below ``root``, or a DICOM preamble among the first files, and no manifest."""
    if find_manifest(root) is not None:
        return False
    files = (path for path in root.rglob("*") if path.is_file())
    return any(path.suffix.lower() in _SUFFIXES for path in root.rglob("*")) or any(
        _has_preamble(path) for path in islice(files, _LOOK_AT)
    )


def read(root: Path, missing_patient: str = "skip") -> Cohort:
    """Read the headers of all files below ``root``.

    Files that are not DICOM or hold no image (no Rows and Columns) are counted and left out.

    Args:
        root: top of the tree.
        missing_patient: what to do with an image without PatientID. ``skip``; ``own``: it is a patient of its own,
            which is right for anonymizing and wrong for measuring, since two images of one person may get two roles.

    Raises:
        UsageError: ``GM-U035`` if ``missing_patient`` is neither.
        ManifestError: ``GM-M002`` if no image is left.
    """
    if missing_patient not in ("skip", "own"):
        raise UsageError("GM-U035", "unknown missing_patient", got=missing_patient, expected=("skip", "own"))
    skipped = Skipped("dicom")
    records = []
    for path in walk_files(root):
        key = path.relative_to(root).as_posix()
        header = _header(path)
        if header is None:
            skipped.add("not a readable DICOM file")
        elif not (header["Rows"] and header["Columns"]):
            skipped.add("DICOM without an image")
        elif not header["PatientID"] and missing_patient == "skip":
            skipped.add("DICOM without PatientID")
        else:
            records.append(
                ImageRecord(
                    image=path,
                    patient_id=header["PatientID"] or f"without PatientID: {key}",
                    study_id=header["StudyInstanceUID"],
                    view=parse_view(header["ViewPosition"]),
                    sex=parse_sex(header["PatientSex"]),
                    age=parse_age(header["PatientAge"]),
                    folder="dicom",
                    key=key,
                )
            )
    notes = skipped.notes()
    if not records:
        raise ManifestError("GM-M002", "no images found", got="; ".join(notes) or "no files", expected="DICOM images")
    return Cohort(tuple(records), role_scheme="hash", source="dicom", notes=notes)


def _has_preamble(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            file.seek(128)
            return file.read(4) == b"DICM"
    except OSError:
        return False


def _header(path: Path) -> dict[str, str] | None:
    try:
        with header_silence():  # pydicom's warnings quote values
            data = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS))
            return {tag: str(data.get(tag) or "").strip() for tag in _TAGS}
    except (InvalidDicomError, OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, NotImplementedError):
        return None  # a broken header is one kind of unreadable file; the caller counts it
