"""Source header: the few facts of a radiograph's header that a release needs, parsed and bounded.

Nothing of the header goes on as text: codes are among a few known ones, numbers are numbers within limits, dates are
dates. Identifiers are kept for hashing alone, and are shown by no ``repr``.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import Any

from pydicom import Dataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    SecondaryCaptureImageStorage,
)

from gmia_monai.dicom.dates import parse_date
from gmia_monai.errors import InputError

__all__ = ["BODY_PARTS", "SOP_CLASSES", "SourceHeader", "read_source_header"]

SOP_CLASSES = {
    str(ComputedRadiographyImageStorage): "CR",
    str(DigitalXRayImageStorageForPresentation): "DX",
    str(SecondaryCaptureImageStorage): "SC",
}
# Terms of PS3.16 Annex L, and what devices write, for the chest; anything else is another body part.
BODY_PARTS = frozenset({"CHEST", "THORAX", "LUNG", "PORTCHEST", "CHESTPA", "CHESTAP", "TORAX"})
_VIEWS = {"PA": "PA", "AP": "AP", "LL": "LL", "RL": "RL", "LATERAL": "LL", "LAT": "LL"}
_DIRECTION = re.compile(r"[ALRPHF]{1,3}")
_MAX_TEXT = 1024


@dataclass(frozen=True)
class SourceHeader:
    """Facts of one header.

    Attributes:
        kind: ``CR``, ``DX`` or ``SC``.
        patient, study, series, instance, accession: identifiers, for hashing alone.
        sex: ``M``, ``F``, ``O`` or empty.
        age_years: whole years; None where neither age nor birth date can be read.
        dates: of ``StudyDate``, ``SeriesDate``, ``AcquisitionDate`` and ``ContentDate``, those that can be read.
        view: ``PA``, ``AP``, ``LL``, ``RL``, ``other`` or empty.
        body_part: ``CHEST``, ``other`` or empty.
        burned_in: what the header says of text in the pixels: ``YES``, ``NO`` or empty.
        orientation: directions of rows and columns, as ``("L", "F")``; empty where it is not known.
        spacing_mm: rows and columns at the detector, else of the pixels; None where it is not known.
        series_number, instance_number: 0 where they are not known.
    """

    kind: str
    patient: str = field(repr=False)
    study: str = field(repr=False)
    series: str = field(repr=False)
    instance: str = field(repr=False)
    accession: str = field(default="", repr=False)
    sex: str = ""
    age_years: int | None = None
    dates: dict[str, str] = field(default_factory=dict, repr=False)
    view: str = ""
    body_part: str = ""
    burned_in: str = ""
    orientation: tuple[str, ...] = ()
    spacing_mm: tuple[float, float] | None = None
    series_number: int = 0
    instance_number: int = 0

    def to_json(self) -> dict[str, Any]:
        """Plain values, for another process."""
        return asdict(self)

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> SourceHeader:
        """From :meth:`to_json`."""
        spacing = found["spacing_mm"]
        return cls(
            **found
            | {"orientation": tuple(found["orientation"]), "spacing_mm": None if spacing is None else tuple(spacing)}
        )


def read_source_header(dataset: Dataset) -> SourceHeader:
    """Reads the header of one image.

    Raises:
        InputError: ``GM-D020`` for an object of another kind, ``GM-D021`` where an identifier is missing without which
            series cannot be kept together, ``GM-D022`` for a DX without pixel spacing.
    """
    kind = SOP_CLASSES.get(_text(dataset, "SOPClassUID"))
    if kind is None:
        raise InputError("GM-D020", "not a radiograph", expected="CR, DX for presentation, or secondary capture")
    study, series, instance = (_text(dataset, f"{level}InstanceUID") for level in ("Study", "Series", "SOP"))
    patient = _text(dataset, "PatientID") or _text(dataset, "PatientName")
    if not (patient and study and series and instance):
        raise InputError("GM-D021", "the header names no patient, study, series or instance")
    spacing = _spacing(dataset)
    if kind == "DX" and spacing is None:
        raise InputError("GM-D022", "the header lacks the pixel spacing that its class has to have")
    dates = {name: _text(dataset, name) for name in ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate")}
    dates = {name: text for name, text in dates.items() if parse_date(text) is not None}
    sex = _text(dataset, "PatientSex").upper()
    burned_in = _text(dataset, "BurnedInAnnotation").upper()
    return SourceHeader(
        kind=kind,
        patient=patient,
        study=study,
        series=series,
        instance=instance,
        accession=_text(dataset, "AccessionNumber"),
        sex=sex if sex in ("M", "F", "O") else "",
        age_years=_age(dataset, dates),
        dates=dates,
        view=_view(dataset),
        body_part=_body_part(dataset),
        burned_in=burned_in if burned_in in ("YES", "NO") else "",
        orientation=_orientation(dataset),
        spacing_mm=spacing,
        series_number=_whole(dataset, "SeriesNumber"),
        instance_number=_whole(dataset, "InstanceNumber"),
    )


def _text(dataset: Dataset, keyword: str) -> str:
    """An element as text without blanks around it; empty where it cannot be read."""
    try:
        found = dataset.get(keyword)
        return "" if found is None else str(found).strip(" \0\t\r\n")[:_MAX_TEXT]
    except Exception:  # noqa: BLE001 - decoding of a damaged value; its text may not get out
        return ""


def _whole(dataset: Dataset, keyword: str) -> int:
    text = _text(dataset, keyword)
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else 0


def _age(dataset: Dataset, dates: dict[str, str]) -> int | None:
    text = _text(dataset, "PatientAge").upper()
    if re.fullmatch(r"[0-9]{1,3}[DWMY]", text):
        number = int(text[:-1])
        return {"D": number // 365, "W": number // 52, "M": number // 12, "Y": number}[text[-1]]
    born = parse_date(_text(dataset, "PatientBirthDate"))
    taken = next((parse_date(dates[name]) for name in dates), None)
    if born is None or taken is None or taken < born:
        return None
    return taken.year - born.year - ((taken.month, taken.day) < (born.month, born.day))


def _view(dataset: Dataset) -> str:
    text = _text(dataset, "ViewPosition").upper()
    return "" if not text else _VIEWS.get(text, "other")


def _body_part(dataset: Dataset) -> str:
    text = re.sub(r"[^A-Z]", "", _text(dataset, "BodyPartExamined").upper())
    return "" if not text else "CHEST" if text in BODY_PARTS else "other"


def _orientation(dataset: Dataset) -> tuple[str, ...]:
    try:
        parts = tuple(str(part).strip() for part in dataset.get("PatientOrientation") or ())
    except Exception:  # noqa: BLE001 - as above
        return ()
    return parts if len(parts) == 2 and all(_DIRECTION.fullmatch(part) for part in parts) else ()


def _spacing(dataset: Dataset) -> tuple[float, float] | None:
    for keyword in ("ImagerPixelSpacing", "PixelSpacing"):
        try:
            rows, cols = (float(number) for number in dataset.get(keyword) or ())
        except Exception:  # noqa: BLE001 - as above
            continue
        if 0.01 <= rows <= 10 and 0.01 <= cols <= 10:
            return rows, cols
    return None
