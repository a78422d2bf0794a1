"""The manifest: one CSV, one row an image; the same for every user's own data.

=============  ========  ========================================================================================
column         needed    content
=============  ========  ========================================================================================
``image``      yes       path of the image, relative to the manifest's folder, or absolute
``patient_id`` yes       any text; all images of a person carry the same
``study_id``   no        visit
``view``       no        ``PA``, ``AP``, ``LL``, ``RL``, ``LATERAL`` or empty
``sex``        no        ``M``, ``F``; ``O``, ``U`` or empty: not known
``age``        no        years, 0 to 120, or empty
``labels``     no        findings with ``|`` between, ``?`` before an uncertain one, ``No Finding`` for none of them;
                         empty: nobody looked
``split``      no        ``train`` (role S), ``val`` (V1), ``test`` (T), or the roles of :mod:`gmia_monai.data.roles`
                         themselves (attacks need A and V2, too); all rows or none
=============  ========  ========================================================================================
"""

from __future__ import annotations

import csv
import difflib
import math
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from gmia_monai.data.cohort import Cohort, ImageRecord
from gmia_monai.data.labels import NO_FINDING, UNCERTAIN, Labels, parse_labels
from gmia_monai.data.roles import SPLIT_TO_ROLE, choose_scheme
from gmia_monai.data.table import Problems, read_table
from gmia_monai.data.values import MAX_AGE, VIEWS
from gmia_monai.dicom.atomic import atomic_path
from gmia_monai.errors import ManifestError
from gmia_monai.typing import PathLike

__all__ = ["COLUMNS", "REQUIRED", "common_folders", "format_labels", "read_manifest", "write_manifest"]

COLUMNS = ("image", "patient_id", "study_id", "view", "sex", "age", "labels", "split")
REQUIRED = ("image", "patient_id")
_SEXES = {"M": "M", "F": "F", "O": "", "U": "", "": ""}


def read_manifest(path: PathLike, root: PathLike | None = None, fallback_root: PathLike | None = None) -> Cohort:
    """Read and check a manifest.

    Args:
        path: the CSV.
        root: folder that image paths are relative to; the manifest's own folder if not given.
        fallback_root: a second folder to look in for images that are not below ``root``.

    Returns:
        the images in the order of the rows. Roles follow ``split`` if that is given, else the number of patients that
        are named as in ChestX-ray14 (``NIH00001``), else a keyed hash of the patient. ``folder`` is the first part of
        the image's path where those are not folders of single patients (see :func:`common_folders`).

    Raises:
        ManifestError: the file cannot be used; up to 20 problems are told at once, by row (as an editor counts, the
            header is row 1) and column, without any cell's content.
    """
    path = Path(path).absolute()
    roots = [Path(r).absolute() for r in (path.parent if root is None else root, fallback_root) if r]
    rows = read_table(path)
    _, header = next(rows)
    problems = Problems(path)
    _check_header(header, problems)
    problems.raise_if_any(f"use the columns {', '.join(COLUMNS)}")

    checked = _Rows(roots, problems)
    for row, cells in rows:
        if len(cells) != len(header):
            problems.add("GM-M007", f"has {len(cells)} cells where the header has {len(header)}", row)
            continue
        checked.take(row, dict(zip(header, cells, strict=True)))
    checked.finish()
    problems.raise_if_any()
    if not checked.records:
        raise ManifestError("GM-M004", f"{path.name} has no rows below its header", next_step="add a row an image")

    patients = [record.patient_id for record in checked.records]
    folders = common_folders([record.key for record in checked.records], patients)
    records = tuple(replace(r, folder=f) for r, f in zip(checked.records, folders, strict=True))
    scheme = choose_scheme(patients, (record.split for record in records))
    return Cohort(records, role_scheme=scheme, source="manifest")


def write_manifest(cohort: Cohort, path: PathLike, root: PathLike | None = None) -> Path:
    """Write a cohort as a manifest: to a temporary file beside it, then renamed.

    ``split`` carries the role, so that a reader gets the same roles without the key or the numbering.

    Args:
        cohort: what to write.
        path: the CSV; replaced if it exists.
        root: folder that image paths are written relative to, the manifest's own if not given; images outside it are
            written as absolute paths.

    Returns:
        the path written.
    """
    path = Path(path).absolute()
    root = path.parent if root is None else Path(root).absolute()
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(_cells(record, role, root) for record, role in zip(cohort, cohort.roles, strict=True))
    return path


def format_labels(labels: Labels | None) -> str:
    """The inverse of :func:`gmia_monai.data.labels.parse_labels`; findings that are absent (0) are not written."""
    if labels is None:
        return ""
    named = [f"?{name}" if value == UNCERTAIN else name for name, value in labels if value]
    return "|".join(named) or NO_FINDING


def common_folders(keys: list[str], patients: list[str]) -> list[str]:
    """Folder of each image for forming pairs: the first part of its key, or empty where folders are of one patient.

    First parts count as folders of a collection (``nih64/``, ``hospital_a/``) if each of them holds at least two
    patients; otherwise all images are taken as one folder.
    """
    tops = [key.split("/")[0] if "/" in key.lstrip("/") and not key.startswith("/") else "" for key in keys]
    holds: dict[str, set[str]] = {}
    for top, patient in zip(tops, patients, strict=True):
        holds.setdefault(top, set()).add(patient)
    return tops if all(len(held) > 1 for held in holds.values()) else [""] * len(keys)


class _Rows:
    """Checks row after row and keeps what later rows have to agree with."""

    def __init__(self, roots: list[Path], problems: Problems) -> None:
        self.records: list[ImageRecord] = []
        self._roots = roots
        self._problems = problems
        self._row_of_image: dict[str, int] = {}
        self._split_of: dict[str, tuple[str, int]] = {}
        self._without_split: list[int] = []

    def take(self, row: int, cells: dict[str, str]) -> None:
        problem = self._problems.add
        image = self._image(row, cells["image"])
        patient = cells["patient_id"]
        if not patient:
            problem("GM-M012", "is empty", row, "patient_id")
        view, sex = cells.get("view", "").upper(), cells.get("sex", "").upper()
        if view not in VIEWS:
            problem("GM-M016", f"is none of {', '.join(v for v in VIEWS if v)} or empty", row, "view")
        if sex not in _SEXES:
            problem("GM-M017", "is none of M, F, O, U or empty", row, "sex")
        age = self._age(row, cells.get("age", ""))
        self._labels(row, cells.get("labels", ""))
        self._split(row, patient, cells.get("split", "").lower())
        if image is not None:
            self.records.append(
                ImageRecord(
                    image=image[0],
                    patient_id=patient,
                    study_id=cells.get("study_id", ""),
                    view=view,
                    sex=_SEXES.get(sex, ""),
                    age=age,
                    labels=parse_labels(cells.get("labels", "")),
                    split=cells.get("split", ""),
                    key=image[1],
                )
            )

    def finish(self) -> None:
        if self._split_of:
            for row in self._without_split:
                self._problems.add("GM-M022", "is empty, while other rows have a split", row, "split")

    def _image(self, row: int, cell: str) -> tuple[Path, str] | None:
        if not cell:
            self._problems.add("GM-M011", "is empty", row, "image")
            return None
        candidates = [Path(os.path.normpath(root / cell)) for root in self._roots]
        path = next((candidate for candidate in candidates if candidate.is_file()), None)
        if path is None:
            self._problems.add("GM-M013", "names a file that does not exist", row, "image")
            return None
        real = os.path.realpath(path)
        first = self._row_of_image.setdefault(real, row)
        if first != row:
            self._problems.add("GM-M018", f"names the same file as row {first}", row, "image")
            return None
        return path, next((path.relative_to(r).as_posix() for r in self._roots if path.is_relative_to(r)), str(path))

    def _labels(self, row: int, cell: str) -> None:
        names = [name.strip().removeprefix("?").strip() for name in cell.split("|")] if cell else []
        if not all(names):
            self._problems.add("GM-M020", "has an empty name between its marks", row, "labels")
        if len(set(names)) < len(names):
            self._problems.add("GM-M020", "names a finding twice", row, "labels")
        if NO_FINDING in names and len(names) > 1:
            self._problems.add("GM-M020", f"names {NO_FINDING} beside a finding", row, "labels")

    def _age(self, row: int, cell: str) -> float:
        if not cell:
            return math.nan
        try:
            age = float(cell)
        except ValueError:
            self._problems.add("GM-M014", "is not a number", row, "age")
            return math.nan
        if not 0 <= age <= MAX_AGE:
            self._problems.add("GM-M015", f"is outside 0 to {MAX_AGE:g} years", row, "age")
        return age

    def _split(self, row: int, patient: str, split: str) -> None:
        if not split:
            self._without_split.append(row)
        elif split not in SPLIT_TO_ROLE:
            self._problems.add("GM-M021", "is none of train, val, test, S, A, V1, V2, T, reserved", row, "split")
        elif patient:
            role = SPLIT_TO_ROLE[split]
            first, first_row = self._split_of.setdefault(patient, (role, row))
            if first != role:
                self._problems.add("GM-M019", f"puts the patient of row {first_row} into a second split", row, "split")


def _check_header(header: list[str], problems: Problems) -> None:
    if not set(header) & set(COLUMNS):
        hint = "cells are divided by ;" if len(header) == 1 and ";" in header[0] else "the header may be missing"
        problems.add("GM-M008", f"no known column; {hint}", 1)
        return
    for number, name in enumerate(header, start=1):
        if name not in COLUMNS:
            # not the name itself: in a file without a header it would be a patient's
            close = difflib.get_close_matches(name.lower(), COLUMNS, n=1, cutoff=0.5)
            problems.add("GM-M008", "is not known" + (f"; did you mean {close[0]}?" if close else ""), 1, str(number))
    for name in sorted({name for name in header if name in COLUMNS and header.count(name) > 1}):
        problems.add("GM-M009", "is given twice", 1, name)
    for name in REQUIRED:
        if name not in header:
            problems.add("GM-M010", "is missing", 1, name)


def _cells(record: ImageRecord, role: str, root: Path) -> Iterator[str]:
    image = record.image.relative_to(root) if record.image.is_relative_to(root) else record.image
    age = "" if math.isnan(record.age) else f"{record.age:.10g}"
    yield from (image.as_posix(), record.patient_id, record.study_id, record.view, record.sex, age)
    yield from (format_labels(record.labels), role)
