"""Codestream: the size that a compressed frame itself declares, read before a decoder takes memory and time for it.

Decoders believe the stream, not the DICOM header: one damaged byte in a JPEG 2000 file of 4 kB costs a minute.
"""

from __future__ import annotations

from pydicom import Dataset
from pydicom.encaps import get_frame
from pydicom.uid import (
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
)

from gmia_monai.errors import InputError

__all__ = ["check_codestream", "codestream_size"]

_JPEG_2000_START = b"\xff\x4f\xff\x51"
# SOF0 to SOF15 without DHT (C4), JPG (C8) and DAC (CC); F7 is the frame of JPEG-LS.
_JPEG_FRAMES = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})


def codestream_size(frame: bytes) -> tuple[int, int] | None:
    """Rows and columns that a JPEG, JPEG-LS or JPEG 2000 stream declares; None where it declares none.

    JPEG 2000: SIZ segment (ISO/IEC 15444-1 A.5.1), with or without a JP2 wrapper. JPEG and JPEG-LS: frame header
    (ISO/IEC 10918-1 B.2.2, 14495-1 C.2.2).
    """
    start = frame.find(_JPEG_2000_START, 0, 4096)
    if start >= 0:
        right, bottom, left, top = (int.from_bytes(frame[start + i : start + i + 4], "big") for i in (8, 12, 16, 20))
        return max(bottom - top, 0), max(right - left, 0)
    at = 2
    while frame[at : at + 1] == b"\xff" and at + 9 <= len(frame):
        marker, length = frame[at + 1], int.from_bytes(frame[at + 2 : at + 4], "big")
        if marker in _JPEG_FRAMES:
            return int.from_bytes(frame[at + 5 : at + 7], "big"), int.from_bytes(frame[at + 7 : at + 9], "big")
        # A marker may be preceded by any number of fill bytes FF.
        at += 1 if marker == 0xFF else 2 + length
    return None


def check_codestream(dataset: Dataset) -> None:
    """Refuse a compressed frame that declares more pixels than its DICOM header; other transfer syntaxes pass.

    Raises:
        InputError: GM-D003.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax not in (*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes, *JPEG2000TransferSyntaxes):
        return
    size = codestream_size(get_frame(dataset.PixelData, 0, number_of_frames=1))
    if size is not None and size[0] * size[1] > int(dataset.Rows) * int(dataset.Columns):
        raise InputError("GM-D003", "the compressed image and its header differ in size", next_step="leave it out")
