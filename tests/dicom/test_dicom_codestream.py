"""Declared sizes against an encoder's, and refusal before decoding."""

from __future__ import annotations

import io

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from gmia_monai.dicom.codestream import check_codestream, codestream_size
from gmia_monai.errors import InputError

IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (37, 53)).astype(np.uint8))


def encoded(kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    IMAGE.save(buffer, kind, **options)
    return buffer.getvalue()


def dataset_of(frame: bytes, syntax=JPEG2000Lossless) -> pydicom.Dataset:
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.Rows, dataset.Columns = 37, 53
    dataset.PixelData = encapsulate([frame + bytes(len(frame) % 2)])
    return dataset


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True, "comment": "x" * 300}])
def test_jpeg(options):
    assert codestream_size(encoded("JPEG", **options)) == (37, 53)


@pytest.mark.parametrize("options", [{}, {"no_jp2": True}])
def test_jpeg_2000(options):
    frame = encoded("JPEG2000", **options)
    assert codestream_size(frame) == (37, 53)
    check_codestream(dataset_of(frame))


@pytest.mark.parametrize("data", [b"", b"\xff", b"\xff\xd8", b"\xff\xd8\xff\xda\x00", bytes(100), b"\xff" * 50])
def test_no_size(data):
    assert codestream_size(data) is None


def test_more_pixels_than_the_header_are_refused_for_compressed_streams_only():
    frame = bytearray(encoded("JPEG2000", no_jp2=True))
    frame[12:16] = (9_000_000).to_bytes(4, "big")
    with pytest.raises(InputError, match="GM-D003"):
        check_codestream(dataset_of(bytes(frame)))
    for syntax in (RLELossless, ExplicitVRLittleEndian):
        check_codestream(dataset_of(bytes(frame), syntax))


def test_real_streams_declare_their_headers_size(cxr_dir):
    names = ["RG3_J2KI", "RG3_JLSN", "RG3_JPLL", "JPGExtended", "MR_small_jpeg_ls_lossless", "CR-ModalitySequenceLUT"]
    for name in names:
        dataset = pydicom.dcmread(cxr_dir / "dicom" / "corner" / f"{name}.dcm")
        frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
        assert codestream_size(frame) == (dataset.Rows, dataset.Columns), name
        check_codestream(dataset)
