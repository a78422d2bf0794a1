"""Work units: a fixed number of images in the order of their keyed handles, the atom of resuming and of determinism.

The same unit with the same settings and seed gives the same bytes. A finished unit leaves a record named by a digest of
its images and settings, so that a second run finds what is done, and a changed setting or image is done again.
"""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gmia_monai.data.manifest import read_manifest
from gmia_monai.dicom.atomic import atomic_path
from gmia_monai.dicom.pseudonyms import create_key, default_key_path, handle, links_path, load_key
from gmia_monai.errors import ManifestError, UsageError
from gmia_monai.typing import PathLike

__all__ = ["AnonymizationRun", "Source", "find_sources"]

_log = logging.getLogger(__name__)
_SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm", ".dicom", ".nii", ".nii.gz")
_KINDS = ", ".join(_SUFFIXES)
RECORDS = ".units"


@dataclass(frozen=True)
class Source:
    """One image to anonymize. Its ``repr`` shows the handle only.

    Attributes:
        handle: keyed hash that names the output.
        path: the file.
        name: path relative to the input, with ``/``.
        patient_id: from a manifest; empty if not known.
        study_id: from a manifest; empty if not known.
        stamp: keyed hash of the file's size and time of change, by which a changed image is done again.
    """

    handle: str
    path: Path = field(repr=False)
    name: str = field(repr=False)
    patient_id: str = field(default="", repr=False)
    study_id: str = field(default="", repr=False)
    stamp: str = field(default="", repr=False)


def _is_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _stamp(key: bytes, path: Path) -> str:
    facts = path.stat()
    # Keyed, since whoever holds a file could otherwise test whether it is behind a record.
    return handle(key, f"stamp:{facts.st_size}:{facts.st_mtime_ns}")


def find_sources(input_path: PathLike, key: bytes) -> list[Source]:
    """The images of a folder or manifest, ordered by handle.

    Args:
        input_path: folder (searched through; PNG, JPEG, NIfTI, and DICOM whatever its name), one image, or a manifest
            CSV.
        key: project key.

    Raises:
        UsageError: ``GM-U070`` no such path.
        ManifestError: ``GM-M002`` no images there, or what the manifest refuses.
    """
    found, n_others = _list_images(input_path)
    if n_others:
        _log.warning("%d files of other kinds are left alone (%s are read)", n_others, _KINDS)
    sources = [
        Source(handle(key, f"image:{name}"), path, name, pid, sid, _stamp(key, path)) for path, name, pid, sid in found
    ]
    return sorted(sources, key=lambda s: s.handle)


def _list_images(input_path: PathLike) -> tuple[list[tuple[Path, str, str, str]], int]:
    """Path, name, patient and study of each image, and how many other files there are; see :func:`find_sources`."""
    root = Path(input_path).expanduser()
    n_others = 0
    if root.is_file() and root.suffix.lower() == ".csv":
        found = [(r.image, r.key or r.image.name, r.patient_id, r.study_id) for r in read_manifest(root)]
    elif root.is_file():
        found = [(root, root.name, "", "")]
    elif root.is_dir():
        files = [p for p in sorted(root.rglob("*")) if p.is_file() and not p.name.startswith(".")]
        found = [
            (p, p.relative_to(root).as_posix(), "", "")
            for p in files
            if p.name.lower().endswith(_SUFFIXES) or _is_dicom(p)
        ]
        n_others = len(files) - len(found)
    else:
        raise UsageError("GM-U070", "the input is not there", expected="a folder, an image or a manifest (.csv)")
    if not found:
        raise ManifestError("GM-M002", "no images found in the input", expected=_KINDS, next_step="check --input")
    return found, n_others


class AnonymizationRun:
    """Plans, records and finishes the anonymization of a folder in the research plane.

    The key and the links file (mode 0600) stand beside the output folder, never in it; nothing in the output names a
    source.

    Args:
        input_path: see :func:`find_sources`.
        output_dir: folder for ``images/``, ``table.csv`` and the records of finished units.
        settings: whatever decides the result: settings of the optimisation, hashes of weights, seed, image size.
        unit_size: images a unit.
        seed: seed of the run; each image gets its own, derived from seed and handle.
        key_file: project key; made (and said) where absent. Default: ``<output_dir>.key``.

    Raises:
        UsageError: ``GM-U070`` … ``GM-U076``, or what the key refuses.
        ManifestError: no images, or a bad manifest.
    """

    def __init__(
        self,
        input_path: PathLike,
        output_dir: PathLike,
        settings: Mapping[str, Any],
        unit_size: int = 16,
        seed: int = 0,
        key_file: PathLike | None = None,
    ) -> None:
        if not input_path or not output_dir:
            raise UsageError("GM-U071", "input and output are needed", next_step="give --input and --output_dir")
        if unit_size < 1:
            raise UsageError("GM-U072", "a unit needs at least one image", got=unit_size)
        self.output_dir = Path(output_dir)
        inside = Path(input_path).expanduser().resolve()
        if self.output_dir.resolve() == inside or inside in self.output_dir.resolve().parents and inside.is_dir():
            raise UsageError(
                "GM-U073", "the output stands inside the input", next_step="choose an output_dir outside the input"
            )
        if (self.output_dir / "ledger.jsonl").exists():
            raise UsageError(
                "GM-U076", "the output is a release, and what is made here has passed no gate",
                next_step="choose another output_dir",
            )  # fmt: skip
        self.key_file = Path(key_file) if key_file else default_key_path(output_dir)
        if self.output_dir.resolve() in self.key_file.resolve().parents:
            raise UsageError(
                "GM-U074", "the key stands inside the output", next_step="choose a key_file outside output_dir"
            )
        if not self.key_file.exists():
            _list_images(input_path)  # refuses an input without images before a key is made for nothing
            create_key(self.key_file)
            _log.warning("no project key: a new one was made at %s; keep it, and keep it secret", self.key_file)
        self.key = load_key(self.key_file)
        self.seed = seed
        self.fingerprint = hashlib.sha256(
            json.dumps({"settings": settings, "seed": seed}, sort_keys=True, default=str).encode()
        ).hexdigest()
        self.sources = find_sources(input_path, self.key)
        self.units = [self.sources[i : i + unit_size] for i in range(0, len(self.sources), unit_size)]
        self._refuse_others()
        self._write_links()

    # -- units ---------------------------------------------------------------------------------------------------------
    def record_path(self, unit: list[Source]) -> Path:
        """Where the record of a finished unit stands."""
        text = "\n".join([self.fingerprint, *(f"{s.handle} {s.stamp}" for s in unit)])
        return self.output_dir / RECORDS / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"

    def read_record(self, unit: list[Source]) -> list[dict[str, Any]] | None:
        """Rows of a finished unit; None where it is not finished, or a file of it is gone."""
        try:
            rows = json.loads(self.record_path(unit).read_text())
        except (OSError, ValueError):
            return None
        present = all(not row["file"] or (self.output_dir / row["file"]).is_file() for row in rows)
        return rows if present else None

    def finish_unit(self, unit: list[Source], rows: list[dict[str, Any]]) -> None:
        """Records a unit; call it when all its files are written."""
        with atomic_path(self.record_path(unit)) as temporary:
            temporary.write_text(json.dumps(rows))

    def forget_others(self) -> None:
        """Removes the records of other settings or images, whose files this run is about to write over."""
        own = {self.record_path(unit) for unit in self.units}
        for path in (self.output_dir / RECORDS).glob("*.json"):
            if path not in own:
                path.unlink()

    def pending(self) -> list[int]:
        """Numbers of the units that are not finished."""
        return [i for i, unit in enumerate(self.units) if self.read_record(unit) is None]

    def image_seed(self, source: Source) -> int:
        """Seed of one image: a function of the run's seed and the handle."""
        return int.from_bytes(hashlib.sha256(f"{self.seed}:{source.handle}".encode()).digest()[:6], "big")

    # -- tables --------------------------------------------------------------------------------------------------------
    def rows(self) -> Iterator[dict[str, Any]]:
        """Rows of all finished units, ordered by handle."""
        for unit in self.units:
            yield from self.read_record(unit) or []

    def write_table(self, columns: list[str]) -> Path:
        """Writes ``table.csv`` from the records."""
        path = self.output_dir / "table.csv"
        with atomic_path(path) as temporary, temporary.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(self.rows())
        return path

    def _refuse_others(self) -> None:
        """Anonymized images of another input would lose their rows in the table and in the links file."""
        path = links_path(self.output_dir)
        if not path.is_file():
            return
        with path.open(newline="") as stream:
            earlier = {row["handle"] for row in csv.DictReader(stream)}
        others = earlier - {source.handle for source in self.sources}
        left = sum(any((self.output_dir / "images").glob(f"{handle}.*")) for handle in others)
        if left:
            raise UsageError(
                "GM-U075",
                f"the output holds {left} anonymized images that are not of this input",
                expected="an input with all earlier images, or a new folder",
                next_step="choose another output_dir, or remove the folder and its links file",
            )

    def _write_links(self) -> None:
        with atomic_path(links_path(self.output_dir)) as temporary:
            descriptor = os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600)
            with os.fdopen(descriptor, "w", newline="") as stream:
                writer = csv.writer(stream)
                writer.writerow(["handle", "image", "patient_id", "study_id"])
                writer.writerows([s.handle, s.name, s.patient_id, s.study_id] for s in self.sources)
