"""The embedded synthetic cohort: drawn chest radiographs of made-up patients, as PNG and DICOM, with a manifest.

For demonstrations and tests without patient data. The DICOM headers hold made-up names, so that a test can look for
them in what an anonymization wrote. All files have the same bytes for the same arguments.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

from ..errors import UsageError
from ..typing import MIN_IMAGE_SIZE, PathLike
from .phantom_anatomy import FINDINGS, Acquisition, Identity, phantom_image

__all__ = ["COLUMNS", "FINDINGS", "Acquisition", "Identity", "PhantomRecord", "generate_cohort", "phantom_image"]

COLUMNS = ("image", "patient_id", "study_id", "view", "sex", "age", "labels", "split")
FORMATS = {"png": ("png8", "png16"), "dicom": ("dx", "cr")}

_FAMILY = (
    "Quillfeather",
    "Brambleside",
    "Oystermouth",
    "Fennimoor",
    "Wrenhollow",
    "Thistlewick",
    "Umberlake",
    "Yarrowby",
)
_GIVEN = {"F": ("Zelphine", "Mirabeth", "Ottoline", "Corvina"), "M": ("Barnabix", "Leopoldus", "Ezrael", "Tancredo")}
_BITS_STORED = 12
_FIRST_YEAR = 2011
_UID_ROOT = "2.25."


@dataclass(frozen=True)
class PhantomRecord:
    """One image of the cohort and what its header says about the made-up patient."""

    patient_id: str
    patient_name: str
    study_number: int
    view: str
    sex: str
    age: int
    birth_date: str
    labels: tuple[str, ...]
    split: str
    kind: str
    seed: int

    @property
    def study_id(self) -> str:
        return f"{self.patient_id}-s{self.study_number}"

    @property
    def file_name(self) -> str:
        return f"{self.study_id}.{'png' if self.kind.startswith('png') else 'dcm'}"


def generate_cohort(
    output_dir: PathLike,
    n_patients: int = 6,
    images_per_patient: int = 3,
    size: int = 256,
    formats: Iterable[str] = ("png", "dicom"),
    seed: int = 0,
) -> Path:
    """Write a cohort of drawn radiographs and its manifest.

    Args:
        output_dir: folder to write to, made if missing; files of the same name are replaced.
        n_patients: number of patients, each with an anatomy of its own.
        images_per_patient: visits of each, a year apart; position, breath, exposure and findings differ.
        size: width in pixels; every fifth image is an eighth higher than wide, the others are square.
        formats: of ``png`` (8 and 16 bits in turn) and ``dicom`` (12 bits; DX MONOCHROME2 and CR MONOCHROME1 in turn).
        seed: draws everything; the same arguments give the same bytes.

    Returns:
        Path of ``manifest.csv`` with the columns ``COLUMNS``; ``image`` is relative to its folder, ``labels`` are
        joined by ``|``.

    Raises:
        UsageError: ``GM-U101`` for a number that is too small, ``GM-U102`` for an unknown format.
    """
    formats = tuple(formats)
    for name, value, least in (
        ("n_patients", n_patients, 1), ("images_per_patient", images_per_patient, 1), ("size", size, MIN_IMAGE_SIZE)
    ):  # fmt: skip
        if value < least:
            raise UsageError("GM-U101", f"{name} is too small", got=value, expected=f"at least {least}")
    if not formats or set(formats) - set(FORMATS):
        raise UsageError("GM-U102", "unknown image format", got=list(formats), expected=sorted(FORMATS))

    root = Path(output_dir)
    (root / "images").mkdir(parents=True, exist_ok=True)
    rows = []
    for number, (identity, record) in enumerate(_records(n_patients, images_per_patient, formats, seed)):
        height = size + size // 8 if number % 5 == 4 else size
        findings = tuple(label for label in record.labels if label in FINDINGS)
        visit = Acquisition.from_seed(record.seed, findings=findings, portable=record.view == "AP")
        pixels = phantom_image(identity, visit, (height, size))
        path = root / "images" / record.file_name
        if record.kind.startswith("png"):
            _write_png(pixels, path, bits=int(record.kind.removeprefix("png")))
        else:
            _write_dicom(pixels, path, record, inverted=record.kind == "cr")
        fields = (
            record.patient_id,
            record.study_id,
            record.view,
            record.sex,
            record.age,
            "|".join(record.labels),
            record.split,
        )
        rows.append((f"images/{record.file_name}", *fields))

    manifest = root / "manifest.csv"
    with manifest.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows)
    return manifest


def _records(
    n_patients: int, images_per_patient: int, formats: tuple[str, ...], seed: int
) -> Iterable[tuple[Identity, PhantomRecord]]:
    kinds = [kind for pair in zip(*(FORMATS[name] for name in formats), strict=True) for kind in pair]
    passing = [name for name in FINDINGS if name != "Cardiomegaly"]
    count = 0
    for patient in range(n_patients):
        rng = np.random.default_rng([seed, patient])
        identity = replace(Identity.from_seed(int(rng.integers(2**31))), female=patient % 2 == 1)
        sex = "F" if identity.female else "M"
        name = f"{_FAMILY[patient % len(_FAMILY)]}^{rng.choice(_GIVEN[sex])}"
        age, birth_day, chronic = int(rng.integers(25, 80)), int(rng.integers(1, 29)), patient % 3 == 1
        # Two of three patients train; the last ones are for validation and test, as soon as there are three of them.
        left = n_patients - patient
        split = "train" if n_patients < 3 or left > max(2, n_patients // 3) else "val" if left % 2 == 0 else "test"
        for visit in range(images_per_patient):
            labels = ["Cardiomegaly"] if chronic else []
            if count % 2:
                labels.append(passing[count // 2 % len(passing)])
            yield (
                identity,
                PhantomRecord(
                    patient_id=f"PHX{seed:03d}-{patient:04d}",
                    patient_name=name,
                    study_number=visit + 1,
                    view="AP" if rng.random() < 0.25 else "PA",
                    sex=sex,
                    age=age + visit,
                    birth_date=f"{_FIRST_YEAR - age}01{birth_day:02d}",
                    labels=tuple(sorted(labels)) or ("No Finding",),
                    split=split,
                    kind=kinds[count % len(kinds)],
                    seed=int(rng.integers(2**31)),
                ),
            )
            count += 1


def _write_png(pixels: Float[np.ndarray, "h w"], path: Path, bits: int) -> None:
    levels = np.rint(pixels * (2**bits - 1)).astype(np.uint8 if bits == 8 else np.uint16)
    Image.fromarray(levels).save(path, format="PNG")


def _uid(*parts: object) -> str:
    """A UID derived from its parts, of the form reserved for 128-bit numbers."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return _UID_ROOT + str(int.from_bytes(digest[:16], "big"))


def _write_dicom(pixels: Float[np.ndarray, "h w"], path: Path, record: PhantomRecord, inverted: bool) -> None:
    """CR or DX with identifying elements filled in; ``inverted`` stores MONOCHROME1, where large values are dark."""
    white = 2**_BITS_STORED - 1
    levels = np.rint(pixels * white).astype("<u2")
    levels = white - levels if inverted else levels
    storage = ComputedRadiographyImageStorage if inverted else DigitalXRayImageStorageForPresentation
    key = (record.study_id, record.seed)

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = storage
    meta.MediaStorageSOPInstanceUID = _uid("instance", *key)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = _uid("implementation")

    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SpecificCharacterSet = "ISO_IR 192"
    data.ImageType = ["ORIGINAL", "PRIMARY"]
    data.SOPClassUID, data.SOPInstanceUID = storage, meta.MediaStorageSOPInstanceUID
    data.StudyInstanceUID, data.SeriesInstanceUID = _uid("study", *key), _uid("series", *key)
    _identify(data, record)
    data.Modality = "CR" if inverted else "DX"
    data.BodyPartExamined, data.ViewPosition = "CHEST", record.view
    data.PatientOrientation, data.BurnedInAnnotation = ["L", "F"], "NO"
    data.SeriesNumber, data.InstanceNumber = "1", "1"
    data.SamplesPerPixel, data.BitsAllocated, data.PixelRepresentation = 1, 16, 0
    data.BitsStored, data.HighBit = _BITS_STORED, _BITS_STORED - 1
    data.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    data.PresentationLUTShape = "INVERSE" if inverted else "IDENTITY"
    data.PixelIntensityRelationship, data.PixelIntensityRelationshipSign = "LOG", -1 if inverted else 1
    data.RescaleIntercept, data.RescaleSlope, data.RescaleType = "0", "1", "US"
    data.Rows, data.Columns = levels.shape
    spacing = f"{350 / levels.shape[1]:.4f}"
    data.ImagerPixelSpacing = [spacing, spacing]
    data.PixelData = levels.tobytes()
    data.save_as(path, enforce_file_format=True)


def _identify(data: Dataset, record: PhantomRecord) -> None:
    """Fill in what identifies a person in a real file; all of it is made up."""
    day = f"{_FIRST_YEAR - 1 + record.study_number}0{2 + record.seed % 8}{10 + record.seed % 18}"
    data.PatientName, data.PatientID = record.patient_name, record.patient_id
    data.PatientBirthDate = record.birth_date
    data.PatientSex, data.PatientAge = record.sex, f"{record.age:03d}Y"
    data.PatientAddress = "7 Imaginary Quay, Nowhereport"
    data.StudyDate = data.SeriesDate = data.ContentDate = data.AcquisitionDate = day
    data.StudyTime = data.SeriesTime = data.ContentTime = "101500"
    data.StudyID, data.AccessionNumber = str(record.study_number), f"ACC{record.seed % 10**8:08d}"
    data.ReferringPhysicianName, data.InstitutionName = "Drossel^Philomena", "Imaginary Quay Hospital"
    data.Manufacturer, data.StationName = "Phantomworks", "PHX-ROOM-3"
