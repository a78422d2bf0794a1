"""Decode: the bytes of one file to grey levels and facts of its header, with limits before memory is taken.

Meant to run in a child process that can be killed (:mod:`gmia_monai.dicom.decoder`): decoders are native code, and the
files come from anywhere. No error quotes a value of the file.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, UInt16
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian

from gmia_monai.dicom.codestream import check_codestream
from gmia_monai.dicom.grey import grey_channel, nifti_range
from gmia_monai.dicom.intensity import dicom_to_unit, from_unit, integer_to_unit, values_to_unit
from gmia_monai.dicom.intensity_tags import IntensityTags
from gmia_monai.dicom.limits import check_dataset, check_image, check_size
from gmia_monai.dicom.silence import header_silence
from gmia_monai.dicom.source_header import SourceHeader, read_source_header
from gmia_monai.errors import InputError

__all__ = ["Decoded", "decode_bytes", "decoding"]

Format = Literal["dicom", "png", "jpeg", "nifti"]
_MAX_RATIO = 20  # of what a deflated file may grow by
_MAX_ELEMENTS = 20_000
_MAX_DEPTH = 16
_GZIP, _JPEG, _PNG = b"\x1f\x8b", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True, eq=False)
class Decoded:
    """One grey image.

    Attributes:
        levels: 0 to 65535, MONOCHROME2 sense.
        format: of the file.
        photometric: of the file.
        bits: stored in the file; 16 for NIfTI with more.
        header: facts of a DICOM header; None for other formats, which say nothing of themselves.
        elements: tags of all elements of a DICOM header, nested ones too; their values are not among them.
    """

    levels: UInt16[np.ndarray, "h w"] = field(repr=False)
    format: Format
    photometric: str
    bits: int
    header: SourceHeader | None = None
    elements: tuple[int, ...] = field(default=(), repr=False)

    def about(self) -> dict[str, Any]:
        """Everything but the levels, as plain values."""
        facts = {name: value for name, value in asdict(self).items() if name not in ("levels", "header")}
        header = None if self.header is None else self.header.to_json()
        return facts | {"header": header, "rows": self.levels.shape[0], "columns": self.levels.shape[1]}

    @classmethod
    def from_about(cls, about: dict[str, Any], raw: bytes) -> Decoded:
        """From :meth:`about` and the bytes of the levels.

        Raises:
            ValueError: where the two do not fit.
        """
        levels = np.frombuffer(raw, dtype="<u2").reshape(about["rows"], about["columns"])
        header = None if about["header"] is None else SourceHeader.from_json(about["header"])
        return cls(levels, about["format"], about["photometric"], about["bits"], header, tuple(about["elements"]))


def decode_bytes(raw: bytes) -> Decoded:
    """The image of one file.

    Raises:
        InputError: ``GM-D002`` a format that is not read, ``GM-D003`` damaged, ``GM-D004`` colour, ``GM-D005`` several
            frames, ``GM-D006`` to ``GM-D012`` as :func:`gmia_monai.dicom.limits.check_dataset` and
            :class:`gmia_monai.dicom.intensity_tags.IntensityTags`, ``GM-D020`` to ``GM-D022`` as
            :func:`gmia_monai.dicom.source_header.read_source_header`, ``GM-D023`` grows beyond all measure when it is
            unpacked.
    """
    with decoding():
        if raw[128:132] == b"DICM" or raw[:4] in (b"\x02\0\0\0", b"\x08\0\x05\0", b"\x08\0\x08\0"):
            return _dicom(raw)
        if raw.startswith(_PNG) or raw.startswith(_JPEG):
            return _picture(raw)
        if raw.startswith(_GZIP) or raw[344:348] in (b"n+1\0", b"ni1\0"):
            return _nifti(raw)
        raise InputError("GM-D002", "the format of the file is not read", expected="DICOM, PNG, JPEG or NIfTI")


@contextmanager
def decoding() -> Iterator[None]:
    """Any failure of a decoder becomes one coded error; its own text may quote the header and is cut off."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except PermissionError:
        raise InputError("GM-D001", "the file may not be opened", next_step="check its permissions") from None
    except Image.DecompressionBombError:
        raise InputError("GM-D010", "the image is too large") from None
    except BaseException as error:  # noqa: BLE001 decoders of damaged files raise anything
        # A panic in a decoder written in Rust (pylibjpeg-rle) is no Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise InputError(
            "GM-D003", "the file cannot be decoded", next_step="check that it is complete and of the named format"
        ) from None


def _decoded(
    unit: Float[np.ndarray, "h w"],
    kind: Format,
    photometric: str,
    bits: int,
    header: SourceHeader | None,
    elements: tuple[int, ...] = (),
) -> Decoded:
    check_image(unit)
    return Decoded(from_unit(unit, 16), kind, photometric, bits, header, elements)


def _dicom(raw: bytes) -> Decoded:
    with header_silence():
        _check_growth(raw)
        dataset = dcmread(io.BytesIO(raw), force=True)
        elements = _elements(dataset)
        header = read_source_header(dataset)
        check_dataset(dataset)
        check_codestream(dataset)
        tags = IntensityTags.from_dataset(dataset)
        unit = dicom_to_unit(dataset.pixel_array, tags)
    return _decoded(unit, "dicom", tags.photometric, tags.bits_stored, header, elements)


def _check_growth(raw: bytes) -> None:
    """Refuses a deflated file that would grow too much: pydicom unpacks it without a limit.

    Raises:
        InputError: ``GM-D003`` for a deflated file without the length of its meta header (PS3.10 7.1), ``GM-D023``.
    """
    if str(DeflatedExplicitVRLittleEndian).encode() not in raw[:4096]:
        return
    if raw[128:138] != b"DICM\x02\0\0\0UL":
        raise InputError("GM-D003", "the file cannot be decoded")
    start, limit = 144 + int.from_bytes(raw[140:144], "little"), max(_MAX_RATIO * len(raw), 1 << 20)
    if len(zlib.decompressobj(-zlib.MAX_WBITS).decompress(raw[start:], limit + 1)) > limit:
        raise InputError("GM-D023", "the file grows beyond all measure when it is unpacked")


def _elements(dataset: Dataset) -> tuple[int, ...]:
    """Tags of all elements, each once; data sets with more elements, or deeper ones, than an image has are refused.

    Raises:
        InputError: ``GM-D024``.
    """
    count, level, found = 0, [dataset], {int(element.tag) for element in dataset.file_meta}
    for _ in range(_MAX_DEPTH):
        below: list[Dataset] = []
        for one in level:
            count += len(one)
            if count > _MAX_ELEMENTS:
                raise InputError("GM-D024", "the header has too many elements", expected=f"at most {_MAX_ELEMENTS}")
            for element in one:
                found.add(int(element.tag))
                if element.VR == "SQ":
                    below += list(element.value)
        if not below:
            return tuple(sorted(found))
        level = below
    raise InputError("GM-D024", "the header is nested too deeply", expected=f"at most {_MAX_DEPTH} levels")


def _picture(raw: bytes) -> Decoded:
    picture: Image.Image = Image.open(io.BytesIO(raw), formats=("PNG", "JPEG"))
    check_size(picture.height, picture.width)
    if getattr(picture, "n_frames", 1) != 1:
        raise InputError("GM-D005", "the file holds several frames", expected=1)
    if picture.mode == "1":
        raise InputError("GM-D011", "bit depth out of range", got=1, expected="8 to 16")
    kind: Format = "png" if raw.startswith(_PNG) else "jpeg"
    if picture.mode == "P":
        picture = picture.convert("RGBA")
    pixels = grey_channel(np.asarray(picture), picture.mode)
    bits = 8 if pixels.dtype == np.uint8 else 16
    return _decoded(integer_to_unit(pixels, bits), kind, "MONOCHROME2", bits, None)


def _nifti(raw: bytes) -> Decoded:
    from nibabel import Nifti1Image

    if raw.startswith(_GZIP):
        limit = max(_MAX_RATIO * len(raw), 1 << 20)
        with gzip.GzipFile(fileobj=io.BytesIO(raw)) as stream:
            raw = stream.read(limit + 1)
        if len(raw) > limit:
            raise InputError("GM-D023", "the file grows beyond all measure when it is unpacked")
    volume = Nifti1Image.from_bytes(raw)
    shape = volume.shape
    if len(shape) < 2 or any(n != 1 for n in shape[2:]):
        raise InputError("GM-D005", "the file holds several slices", got=f"{len(shape)}-D", expected="one slice")
    check_size(shape[1], shape[0])
    values = np.asarray(volume.dataobj)
    if values.dtype.names or np.iscomplexobj(values):
        raise InputError("GM-D004", "the image is not monochrome", expected="real grey values")
    values = np.ascontiguousarray(values.reshape(shape[:2]).T)  # NIfTI counts columns first
    check_image(values)
    bits = 8 if values.dtype == np.uint8 else 16
    return _decoded(values_to_unit(values, *nifti_range(values)), "nifti", "MONOCHROME2", bits, None)
