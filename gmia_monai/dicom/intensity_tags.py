"""Intensity tags: what a DICOM header says of the meaning of pixel values, parsed once, from pydicom or from MONAI."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.datadict import tag_for_keyword

from gmia_monai.errors import InputError
from gmia_monai.typing import IntArray

__all__ = ["IntensityTags", "LookUpTable"]

_KEYWORDS = (
    "PhotometricInterpretation",
    "BitsStored",
    "PixelRepresentation",
    "RescaleSlope",
    "RescaleIntercept",
    "ModalityLUTSequence",
    "VOILUTSequence",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
)


@dataclass(frozen=True)
class LookUpTable:
    """A table of PS3.3 C.11.1.1 or C.11.2.1.1.

    Attributes:
        first: value that the first entry stands for; values below it take the first entry, those past the end the
            last.
        bits: bits of an entry; entries lie in 0 to 2^bits - 1.
        entries: the table.
    """

    first: int
    bits: int
    entries: IntArray

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """The entry of each value, values rounded to integers first."""
        whole = values if np.issubdtype(values.dtype, np.integer) else np.rint(values)
        return self.entries[np.clip(whole.astype(np.int64) - self.first, 0, len(self.entries) - 1)]


@dataclass(frozen=True)
class IntensityTags:
    """Photometric sense, depth, modality transform and VOI transform of one DICOM image; nothing else of the header.

    Attributes:
        photometric: MONOCHROME1 or MONOCHROME2.
        bits_stored: 8 to 16.
        signed: stored values are two's complement.
        slope: rescale slope, 1 where absent.
        intercept: rescale intercept, 0 where absent.
        modality_lut: takes the place of slope and intercept.
        voi_lut: takes precedence over the window.
        window: centre and width (the first pair, where several are given).
        function: LINEAR, LINEAR_EXACT or SIGMOID.
    """

    photometric: str
    bits_stored: int
    signed: bool = False
    slope: float = 1.0
    intercept: float = 0.0
    modality_lut: LookUpTable | None = None
    voi_lut: LookUpTable | None = None
    window: tuple[float, float] | None = None
    function: str = "LINEAR"

    def __post_init__(self) -> None:
        if self.photometric not in ("MONOCHROME1", "MONOCHROME2"):
            raise InputError("GM-D004", "the image is not monochrome", expected="MONOCHROME1 or MONOCHROME2")
        if not 8 <= self.bits_stored <= 16:
            raise InputError("GM-D011", "bit depth out of range", got=self.bits_stored, expected="8 to 16")
        if not np.isfinite([self.slope, self.intercept]).all() or self.slope == 0:
            raise InputError("GM-D012", "rescale slope or intercept cannot be used", expected="finite, slope not 0")
        if self.function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
            raise InputError("GM-D012", "unknown VOI LUT function", expected="LINEAR, LINEAR_EXACT or SIGMOID")
        if self.window is not None:
            width = self.window[1]
            if not np.isfinite(self.window).all() or width <= 0 or (self.function == "LINEAR" and width < 1):
                raise InputError("GM-D012", "the window cannot be used", expected="width >= 1 (LINEAR) or > 0")

    @classmethod
    def from_dataset(cls, dataset: Dataset) -> IntensityTags:
        """From a data set of pydicom.

        Raises:
            InputError: GM-D004 not monochrome, GM-D011 outside 8 to 16 bits, GM-D012 values that cannot be used.
        """
        try:
            return cls._parse(dataset)
        except InputError:
            raise
        except (ArithmeticError, AttributeError, LookupError, NotImplementedError, TypeError, ValueError):
            # The text of the cause may quote header values, so it is cut off.
            raise InputError("GM-D012", "the modality or VOI transform of the header cannot be read") from None

    @classmethod
    def from_json(cls, meta: Mapping[str, Any]) -> IntensityTags:
        """From the metadata of MONAI's ``PydicomReader(prune_metadata=False)``: ``{"00280004": {"vr": …}, …}``.

        Raises:
            InputError: as `from_dataset`.
        """
        tags = [f"{tag_for_keyword(keyword):08X}" for keyword in _KEYWORDS]
        return cls.from_dataset(Dataset.from_json({tag: dict(meta[tag]) for tag in tags if tag in meta}))

    @classmethod
    def _parse(cls, dataset: Dataset) -> IntensityTags:
        signed = int(dataset.get("PixelRepresentation") or 0) == 1
        centre, width = _number(dataset.get("WindowCenter")), _number(dataset.get("WindowWidth"))
        slope, intercept = _number(dataset.get("RescaleSlope")), _number(dataset.get("RescaleIntercept"))
        return cls(
            photometric=str(dataset.get("PhotometricInterpretation", "")),
            bits_stored=int(dataset.BitsStored),
            signed=signed,
            slope=1.0 if slope is None else slope,
            intercept=0.0 if intercept is None else intercept,
            modality_lut=_table(dataset, "ModalityLUTSequence", signed),
            voi_lut=_table(dataset, "VOILUTSequence", signed),
            window=None if centre is None or width is None else (centre, width),
            function=str(dataset.get("VOILUTFunction") or "LINEAR"),
        )


def _number(value: Any) -> float | None:
    """A decimal string, or the first of several; None where it is empty."""
    if isinstance(value, (list, tuple)) or (hasattr(value, "__getitem__") and not isinstance(value, (str, bytes))):
        value = value[0] if len(value) else None
    return None if value is None or value == "" else float(value)


def _table(dataset: Dataset, keyword: str, signed: bool) -> LookUpTable | None:
    """The first table of a sequence.

    Raises:
        InputError: GM-D012 where descriptor and data do not fit together.
    """
    if not dataset.get(keyword):
        return None
    item = dataset[keyword].value[0]
    n_entries, first, bits = (int(value) for value in item.LUTDescriptor)
    n_entries = n_entries or 2**16
    if signed and first >= 2**15:
        first -= 2**16
    data = item.LUTData
    if isinstance(data, bytes):
        # OW keeps the byte order of the file; a table of bytes may be packed two to a word.
        little = getattr(dataset, "original_encoding", (None, None))[1]
        order = "<" if (sys.byteorder == "little" if little is None else little) else ">"
        packed = bits == 8 and len(data) < 2 * n_entries
        entries = np.frombuffer(data, dtype="u1" if packed else f"{order}u2").astype(np.int64)
    else:
        entries = np.atleast_1d(np.asarray(data, dtype=np.int64))
    if not 8 <= bits <= 16 or len(entries) < n_entries or entries.min() < 0 or entries.max() >= 2**bits:
        raise InputError("GM-D012", "a look-up table does not fit its descriptor", expected="8 to 16 bits an entry")
    return LookUpTable(first, bits, entries[:n_entries])
