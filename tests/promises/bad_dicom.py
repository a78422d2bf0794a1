"""Bad files, made when they are needed, and the code that each of them has to get."""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

from pydicom import Dataset, dcmread, dcmwrite
from pydicom.encaps import encapsulate, generate_frames
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)
from toy_release import dicom_file

__all__ = ["BOMBS", "FAMILIES", "in_syntax"]


def _saved(dataset: Dataset, **how: Any) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, **({"enforce_file_format": True} | how))
    return buffer.getvalue()


def _toy(**facts: Any) -> Dataset:
    return dcmread(io.BytesIO(dicom_file("P1", 1, **facts)))


def in_syntax(syntax: str) -> bytes:
    """A good file in a transfer syntax."""
    dataset = _toy()
    if syntax in (RLELossless, JPEG2000Lossless):
        dataset.compress(syntax)
        return _saved(dataset)
    dataset.file_meta.TransferSyntaxUID = syntax
    if syntax == ExplicitVRBigEndian:
        dataset.PixelData = dataset.pixel_array.astype(">u2").tobytes()
        buffer = io.BytesIO()
        order = {"implicit_vr": False, "little_endian": False, "force_encoding": True}
        dcmwrite(buffer, dataset, **order)
        return buffer.getvalue()
    return _saved(dataset)


# -- families ---------------------------------------------------------------------------------------------------------
def _class(uid: str) -> Callable[[], bytes]:
    return lambda: _saved(_toy(SOPClassUID=uid))


def _frames(n: int, real: bool) -> bytes:
    dataset = _toy()
    dataset.NumberOfFrames = n
    if real:
        dataset.PixelData = dataset.PixelData * n
    return _saved(dataset)


def _pixels(change: Callable[[bytes], bytes]) -> bytes:
    dataset = _toy()
    dataset.PixelData = change(dataset.PixelData)
    return _saved(dataset)


def _with(change: Callable[[Dataset], object]) -> bytes:
    dataset = _toy()
    change(dataset)
    return _saved(dataset)


def _rows_as_long() -> bytes:
    raw = _saved(_toy())
    i = raw.index(b"\x28\x00\x10\x00US\x02\x00")
    return raw[: i + 4] + b"UL\x04\x00" + struct.pack("<I", 72) + raw[i + 10 :]


def _deep(levels: int) -> bytes:
    inner = Dataset()
    inner.CodeValue = "1"
    for _ in range(levels):
        outer = Dataset()
        outer.ConceptNameCodeSequence = Sequence([inner])
        inner = outer
    return _with(lambda dataset: setattr(dataset, "ReferencedSeriesSequence", Sequence([inner])))


def _many_elements() -> bytes:
    dataset = _toy()
    for block in range(0x10, 0x70):
        maker = dataset.private_block(0x0909, f"M{block}", create=True)
        for i in range(230):
            maker.add_new(i, "US", 1)
    return _saved(dataset)


def _rgb(photometric: str) -> bytes:
    dataset = _toy()
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, photometric, 0
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelData = 7, bytes(72 * 64 * 3)
    return _saved(dataset)


def _truncated_jpeg2000() -> bytes:
    dataset = _toy()
    dataset.compress(JPEG2000Lossless)
    [frame] = generate_frames(dataset.PixelData, number_of_frames=1)
    dataset.PixelData = encapsulate([frame[: len(frame) // 2]])
    return _saved(dataset)


def _mismatched() -> bytes:
    dataset = _toy()
    dataset.compress(RLELossless)
    raw = _saved(dataset)
    return raw.replace(b"1.2.840.10008.1.2.5\0", b"1.2.840.10008.1.2.1\0")


def _no_preamble() -> bytes:
    return _saved(_toy())[132:]


def _without(*keywords: str) -> Callable[[], bytes]:
    def make() -> bytes:
        dataset = _toy()
        for keyword in keywords:
            del dataset[keyword]
        return _saved(dataset, enforce_file_format="SOPInstanceUID" not in keywords)

    return make


def _rescaled(slope: str) -> bytes:
    dataset = _toy()
    dataset.RescaleSlope, dataset.RescaleIntercept = "1", "0"
    raw = _saved(dataset)
    i = raw.index(b"\x28\x00\x53\x10DS")
    return raw[: i + 8] + slope.encode()[:2].ljust(2) + raw[i + 10 :]


FAMILIES: dict[str, tuple[Callable[[], bytes], str]] = {
    "CT": (_class("1.2.840.10008.5.1.4.1.1.2"), "GM-D020"),
    "MR": (_class("1.2.840.10008.5.1.4.1.1.4"), "GM-D020"),
    "ultrasound": (_class("1.2.840.10008.5.1.4.1.1.6.1"), "GM-D020"),
    "mammography": (_class("1.2.840.10008.5.1.4.1.1.1.2"), "GM-D020"),
    "DX for processing": (_class("1.2.840.10008.5.1.4.1.1.1.1.1"), "GM-D020"),
    "angiography": (_class("1.2.840.10008.5.1.4.1.1.12.1"), "GM-D020"),
    "nuclear medicine": (_class("1.2.840.10008.5.1.4.1.1.20"), "GM-D020"),
    "PDF": (_class("1.2.840.10008.5.1.4.1.1.104.1"), "GM-D020"),
    "segmentation": (_class("1.2.840.10008.5.1.4.1.1.66.4"), "GM-D020"),
    "secondary capture": (_class("1.2.840.10008.5.1.4.1.1.7"), "GM-D031"),
    "DX without spacing": (_class("1.2.840.10008.5.1.4.1.1.1.1"), "GM-D022"),
    "two frames": (lambda: _frames(2, True), "GM-D005"),
    "frames that are not there": (lambda: _frames(24, False), "GM-D005"),
    "65535 frames that are not there": (lambda: _frames(65535, False), "GM-D005"),
    "RGB": (lambda: _rgb("RGB"), "GM-D004"),
    "YBR": (lambda: _rgb("YBR_FULL"), "GM-D004"),
    "palette": (lambda: _with(lambda d: setattr(d, "PhotometricInterpretation", "PALETTE COLOR")), "GM-D004"),
    "no rows": (lambda: _with(lambda d: setattr(d, "Rows", 0)), "GM-D006"),
    "65535 rows": (lambda: _with(lambda d: setattr(d, "Rows", 65535)), "GM-D003"),
    "65535 rows and columns": (
        lambda: _with(lambda d: (setattr(d, "Rows", 65535), setattr(d, "Columns", 65535))),
        "GM-D010",
    ),
    "more bits stored than allocated": (lambda: _with(lambda d: setattr(d, "BitsStored", 20)), "GM-D011"),
    "one byte of pixels less": (lambda: _pixels(lambda raw: raw[:-2]), "GM-D003"),
    "half of the pixels": (lambda: _pixels(lambda raw: raw[: len(raw) // 4 * 2]), "GM-D003"),
    "constant": (lambda: _pixels(lambda raw: bytes(len(raw))), "GM-D007"),
    "truncated JPEG 2000": (_truncated_jpeg2000, "GM-D003"),
    "another transfer syntax than it says": (_mismatched, "GM-D003"),
    "nested 200 deep": (lambda: _deep(200), "GM-D024"),
    "22080 elements": (_many_elements, "GM-D024"),
    "no instance UID": (_without("SOPInstanceUID"), "GM-D021"),
    "no study UID": (_without("StudyInstanceUID"), "GM-D021"),
    "no patient": (_without("PatientID", "PatientName"), "GM-D021"),
    "no pixels": (_without("PixelData"), "GM-D009"),
    "lateral": (lambda: _saved(_toy(ViewPosition="LL")), "GM-D033"),
    "no view": (lambda: _saved(_toy(ViewPosition="")), "GM-H001"),
    "child": (lambda: _saved(_toy(PatientAge="009Y")), "GM-D034"),
    "no age": (lambda: _saved(_toy(PatientAge="", PatientBirthDate="")), "GM-H002"),
    "hand": (lambda: _saved(_toy(BodyPartExamined="HAND")), "GM-D032"),
    "burned in by its own word": (lambda: _saved(_toy(BurnedInAnnotation="YES")), "GM-H007"),
    "big endian": (lambda: in_syntax(ExplicitVRBigEndian), ""),
    "implicit": (lambda: in_syntax(ImplicitVRLittleEndian), ""),
    "deflated": (lambda: in_syntax(DeflatedExplicitVRLittleEndian), ""),
    "RLE": (lambda: in_syntax(RLELossless), ""),
    "JPEG 2000": (lambda: in_syntax(JPEG2000Lossless), ""),
    "rows as a long number": (_rows_as_long, ""),
    "PDF file": (lambda: b"%PDF-1.7\n" + bytes(200), "GM-D002"),
    "ELF": (lambda: b"\x7fELF" + bytes(200), "GM-D002"),
    "empty": (lambda: b"", "GM-D002"),
    "one byte": (lambda: b"\0", "GM-D002"),
    "text": (lambda: b"Doe, Jane\n" * 30, "GM-D002"),
}


# -- bombs ------------------------------------------------------------------------------------------------------------
def _deflated(times: int) -> bytes:
    dataset = _toy()
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.ImageComments = "a" * 10
    raw = _saved(dataset)
    end = 144 + struct.unpack("<I", raw[140:144])[0]
    body = zlib.decompress(raw[end:], -zlib.MAX_WBITS)
    big = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return raw[:end] + big.compress(body + bytes(times * len(raw))) + big.flush()


def _png_of(rows: int, cols: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", cols, rows, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def _nifti_of(n: int) -> bytes:
    header = bytearray(352)
    header[:4], header[40:48] = struct.pack("<i", 348), struct.pack("<4h", 2, n, n, 1)
    header[70:74], header[108:112], header[344:348] = struct.pack("<2h", 2, 8), struct.pack("<f", 352.0), b"n+1\0"
    return gzip.compress(bytes(header) + bytes(60_000_000), 9)


def _size_lie() -> bytes:
    dataset = _toy()
    dataset.compress(JPEG2000Lossless)
    return _saved(dataset).replace(struct.pack(">II", 64, 72), struct.pack(">II", 60000, 60000), 1)


BOMBS: dict[str, Callable[[], bytes]] = {
    "deflated 200:1": lambda: _deflated(200),
    "deflated 1000:1": lambda: _deflated(1000),
    "PNG of 65000 x 65000": lambda: _png_of(65000, 65000),
    "PNG of 2 x 2000000000": lambda: _png_of(2, 2_000_000_000),
    "NIfTI that grows": lambda: _nifti_of(32000),
    "JPEG 2000 that says 60000 x 60000": _size_lie,
    "gzip of nothing else": lambda: gzip.compress(bytes(100_000_000)),
    "65535 x 65535": FAMILIES["65535 rows and columns"][0],
}
