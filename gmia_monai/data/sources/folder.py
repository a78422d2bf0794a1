"""A folder of images: with a manifest inside, or bare."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from gmia_monai.data.cohort import Cohort, ImageRecord
from gmia_monai.data.manifest import REQUIRED, common_folders, read_manifest
from gmia_monai.data.sources.common import IMAGE_SUFFIXES, walk_files
from gmia_monai.data.table import read_table
from gmia_monai.errors import ManifestError

__all__ = ["find_manifest", "matches", "read"]

_log = logging.getLogger(__name__)
_MANIFEST = "manifest.csv"


def matches(root: Path) -> bool:
    """Whether a manifest or any PNG, JPEG or NIfTI lies in ``root`` or below."""
    return find_manifest(root) is not None or any(_is_image(path) for path in root.rglob("*"))


def find_manifest(root: Path) -> Path | None:
    """``manifest.csv``, or the only CSV directly in ``root`` if it has the columns of a manifest."""
    if (root / _MANIFEST).is_file():
        return root / _MANIFEST
    tables = sorted(root.glob("*.csv"))
    if len(tables) != 1:
        return None
    try:
        _, header = next(read_table(tables[0]))
    except ManifestError:
        return None
    return tables[0] if set(REQUIRED) & set(header) else None


def read(root: Path) -> Cohort:
    """Read the manifest if there is one, else take every PNG, JPEG and NIfTI below ``root``.

    Without a manifest nothing is known of the images but their patients, and those by a guess that is logged as a
    warning: the first folder on the path names the patient; images that lie in no folder are each a patient of their
    own. Then two images of one person may land in two roles: give a manifest for anything that is measured.

    Raises:
        ManifestError: the manifest cannot be used, or there are no images.
    """
    manifest = find_manifest(root)
    if manifest is not None:
        return replace(read_manifest(manifest, root), source="folder")
    files = [path for path in walk_files(root) if _is_image(path)]
    if not files:
        raise ManifestError("GM-M002", "no images found", expected=", ".join(sorted(IMAGE_SUFFIXES)))
    top = _shared_top(root, files)
    patients = [_patient(path.relative_to(top)) for path in files]
    alone = sum(path.parent == top for path in files)
    notes = []
    if alone < len(files):
        notes.append(f"{len(files) - alone} images: the first folder on the path is taken as the patient")
    if alone:
        notes.append(f"{alone} images lie in no patient's folder: each is taken as a patient of its own")
    for note in notes:
        _log.warning("folder: %s; give a manifest to say otherwise", note)
    records = tuple(
        ImageRecord(image=path, patient_id=patient, key=path.relative_to(root).as_posix())
        for path, patient in zip(files, patients, strict=True)
    )
    folders = common_folders([record.key for record in records], patients)
    records = tuple(replace(record, folder=folder) for record, folder in zip(records, folders, strict=True))
    return Cohort(records, role_scheme="hash", source="folder", notes=tuple(notes))


def _is_image(path: Path) -> bool:
    name = path.name.lower()
    return not name.startswith(".") and (path.suffix.lower() in IMAGE_SUFFIXES or name.endswith(".nii.gz"))


def _shared_top(root: Path, files: list[Path]) -> Path:
    """The deepest folder that holds all files: a lone ``images/`` is not a patient."""
    top = root
    while True:
        below = {path.relative_to(top).parts[0] for path in files if path.parent != top}
        if len(below) != 1 or any(path.parent == top for path in files):
            return top
        (only,) = below
        top = top / only


def _patient(relative: Path) -> str:
    return relative.parts[0]
