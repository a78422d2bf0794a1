"""A release with toy parts: every patient gets a new face from his name, or what a test asks for instead."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian

from gmia_monai.errors import GmiaError
from gmia_monai.release.gate import Bounds, Gate
from gmia_monai.release.parts import Parts
from gmia_monai.release.places import places_of
from gmia_monai.release.policy import Policy
from gmia_monai.release.runner import Outcome, Runner
from gmia_monai.release.workers import Alone, Several
from gmia_monai.release.workshop import Workshop

KEY = bytes(range(32))
SIZE = 32
LIMITS = {
    "identity": Bounds(-0.6, 0.6),
    "utility_drift": Bounds(high=0.9),
    "contrast": Bounds(low=0.05),
    "upscale": Bounds(high=50.0),
    "text": Bounds(high=0.0),
    "header": Bounds(high=0.0),
    "copy": Bounds(high=0.99),
    "pixels": Bounds(high=0.0),
}


def face(name: str, size: int = SIZE) -> np.ndarray:
    """A smooth image that belongs to a name."""
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little"))
    y, x = np.mgrid[:size, :size] / size
    waves = [a * np.cos(2 * np.pi * (u * x + v * y) + p) for u, v, a, p in rng.uniform(0.3, 3.0, (6, 4))]
    total = np.sum(waves, axis=0)
    return (0.1 + 0.8 * (total - total.min()) / np.ptp(total)).astype(np.float32)


@dataclass(frozen=True)
class Redraw:
    """Draws a face for each image; ``instead`` changes what comes out."""

    instead: Callable[[np.ndarray], np.ndarray] | None = None
    image_size: int = SIZE
    description: str = "drawn anew by a toy"
    weights: Mapping[str, str] = field(default_factory=lambda: {"toy": "1" * 64})

    def __call__(
        self, images: np.ndarray, known: Sequence[Mapping[str, Any]], handles: Sequence[str],
        patients: Sequence[str], seed: int,
    ) -> np.ndarray:  # fmt: skip
        """Faces of the handles."""
        if self.instead is not None:
            return np.stack([self.instead(image) for image in images])
        return np.stack([face(f"{seed} {handle}") for handle in handles])


class Watch:
    """Sees the image itself."""

    weights = {"watch": "2" * 64}

    def embed(self, images: np.ndarray) -> np.ndarray:
        """Pixels without their mean."""
        flat = images.reshape(len(images), -1).astype(np.float64)
        flat = flat - flat.mean(axis=1, keepdims=True)
        return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-9)

    def compare(self, one: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Cosines."""
        return others @ one

    def findings(self, images: np.ndarray) -> np.ndarray:
        """Means of the quarters."""
        return images.reshape(len(images), 2, SIZE // 2, 2, SIZE // 2).mean(axis=(2, 4)).reshape(len(images), 4)

    def strangeness(self, images: np.ndarray) -> np.ndarray:
        """Images without contrast are strange."""
        return np.where(images.std(axis=(1, 2)) < 0.02, 2.0, 0.5)

    def nearest_copy(self, images: np.ndarray) -> np.ndarray:
        """It learned from nobody."""
        return np.zeros(len(images))


def no_text(image: np.ndarray) -> list[str]:
    """There is none."""
    return []


def toy_parts(gate: Gate | None = None, **redraw: Any) -> Parts:
    """All parts of a release; ``redraw`` goes to :class:`Redraw`."""
    return Parts(Redraw(**redraw), Watch(), no_text, gate or Gate(LIMITS), "3" * 64)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def dicom_file(patient: str, number: int, rows: int = 72, cols: int = 64, **facts: Any) -> bytes:
    """A CR file of a patient."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    code = int.from_bytes(hashlib.sha256(patient.encode()).digest()[:4], "big")
    dataset.SOPClassUID, dataset.SOPInstanceUID = ComputedRadiographyImageStorage, f"1.2.{code}.3.{number}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"1.2.{code}.1.{number}", f"1.2.{code}.2.{number}"
    dataset.PatientID, dataset.PatientName, dataset.PatientSex, dataset.PatientAge = (
        patient,
        "Doe^" + patient,
        "F",
        "050Y",
    )
    dataset.StudyDate, dataset.ViewPosition, dataset.BodyPartExamined = "20200430", "PA", "CHEST"
    square = np.kron(face(patient), np.ones((cols // SIZE, cols // SIZE), np.float32))
    image = np.pad(square, (((rows - cols) // 2, rows - cols - (rows - cols) // 2), (0, 0)), mode="edge")
    noise = np.random.default_rng(code + number).normal(0, 0.02, image.shape)
    levels = np.clip((image + noise) * 4095, 0, 4095).astype(np.uint16)
    for keyword, value in facts.items():
        setattr(dataset, keyword, value)
    dataset.set_pixel_data(levels, "MONOCHROME1", 12, generate_instance_uid=False)
    dataset.WindowCenter, dataset.WindowWidth = "2048", "4096"
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def write_input(folder: Path, patients: int = 4, images: int = 3) -> Path:
    """A folder of studies."""
    for p in range(patients):
        (folder / f"patient {p}").mkdir(parents=True, exist_ok=True)
        for i in range(images):
            (folder / f"patient {p}" / f"image{i}.dcm").write_bytes(dicom_file(f"P{p}", i))
    return folder


def open_workshop(
    source: Path, output: Path, policy: Policy | None = None, parts: Parts | None = None, key: bytes = KEY
) -> Workshop:
    """A workshop with toy parts."""
    return Workshop(key, policy or Policy(), places_of(source, output), parts or toy_parts(), 7, "0.1.0")


def release(source: Path, output: Path, workers: int = 1, **more: Any) -> Outcome:
    """Runs a release to its end."""
    workshop = open_workshop(source, output, **more)
    try:
        if workers == 1:
            return Runner(workshop, Alone(workshop)).run()
        with Several(partial(open_workshop, source, output, **more), workers) as several:
            return Runner(workshop, several).run()
    finally:
        workshop.close()


def _fail_at(kind: str, number: int) -> None:
    """Lets the ``number``-th of all writing calls of this process kill it (``before``, ``after``), or find the disk
    full (``full``), as every later one does."""
    calls = 0

    def wrapped(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            nonlocal calls
            calls += 1
            if kind == "full" and calls >= number:
                raise OSError(errno.ENOSPC, "No space left on device")
            if kind == "before" and calls == number:
                os.kill(os.getpid(), signal.SIGKILL)
            found = real(*arguments, **more)
            if kind == "after" and calls == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return found

        return call

    for name in ("write", "fsync", "replace", "rename", "ftruncate", "unlink"):
        setattr(os, name, wrapped(getattr(os, name)))


if __name__ == "__main__":
    source, output, workers, *fail = sys.argv[1:]
    if fail:
        _fail_at(fail[0], int(fail[1]))
    try:
        release(Path(source), Path(output), int(workers))
    except GmiaError as error:
        sys.exit(int(error.exit_code))
