"""Writing: what comes back is what was said to be written; failures leave nothing."""

from __future__ import annotations

import nibabel
import numpy as np
import pydicom
import pytest
from monai.data import NibabelWriter, PILWriter
from PIL import Image

from gmia_monai.errors import InputError, UsageError
from gmia_monai.transforms import Frame, read_radiograph, write_image

RNG = np.random.default_rng(5)
SMOOTH = (0.1 + 0.7 * RNG.random((40, 56))).astype(np.float32)
SMOOTH[0, :2] = 0.0, 1.0


@pytest.mark.parametrize(
    ("frame", "suffix"),
    [
        (Frame(40, 56, 8, kind="png"), ".png"),
        (Frame(40, 56, 16, kind="png", dtype="uint16"), ".png"),
        (Frame(40, 56, 8, kind="jpeg"), ".png"),
        (Frame(40, 56, 8, kind="dicom"), ".png"),
        (Frame(40, 56, 10, kind="dicom", photometric="MONOCHROME1", dtype="uint16"), ".png"),
        (Frame(40, 56, 16, kind="dicom", dtype="int16"), ".png"),
        (Frame(40, 56, 32, kind="nifti", dtype="float32"), ".nii.gz"),
        (Frame(40, 56, 8, kind="nifti", dtype="uint8", low=0.0, high=255.0), ".nii.gz"),
        (Frame(40, 56, 16, kind="nifti", dtype="int16", low=-1000.0, high=2000.0), ".nii.gz"),
    ],
)
def test_round_trip(tmp_path, frame, suffix):
    path, written = write_image(tmp_path / "a.b", SMOOTH, frame)
    assert path == tmp_path / f"a.b{suffix}" and list(tmp_path.iterdir()) == [path]
    again, frame_again = read_radiograph(path)
    np.testing.assert_array_equal(again, written)
    bits = 16 if frame.kind == "dicom" and frame.bits > 8 else frame.bits
    assert (frame_again.rows, frame_again.cols, frame_again.bits) == (40, 56, bits)
    levels = 2**bits - 1 if frame.dtype != "int16" or frame.kind == "dicom" else 3000
    assert np.abs(written - SMOOTH).max() <= 0.5 / levels + 1e-7


@pytest.mark.parametrize("bits", [8, 16])
def test_png_is_exact_and_row_major_for_other_readers(tmp_path, bits):
    levels = RNG.integers(0, 2**bits, (40, 56))
    frame = Frame(40, 56, bits, dtype=f"uint{bits}")
    path, _ = write_image(tmp_path / "a", (levels / (2**bits - 1)).astype(np.float32), frame)
    with Image.open(path) as picture:
        assert picture.mode == ("L" if bits == 8 else "I;16")
        np.testing.assert_array_equal(np.asarray(picture), levels)


def test_nifti_goes_back_in_type_and_scale(tmp_path):
    source = RNG.integers(-1000, 3000, (56, 40)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(source, np.eye(4)), tmp_path / "in.nii")
    image, frame = read_radiograph(tmp_path / "in.nii")
    path, _ = write_image(tmp_path / "out", image, frame)
    out = nibabel.load(path)
    assert out.get_data_dtype() == np.int16
    np.testing.assert_array_equal(np.asarray(out.dataobj), source)


def test_nothing_of_a_dicom_header_comes_along(tmp_path, cxr_dir):
    """Every text of a real header is replaced by a mark, private and nested ones too; no mark may come out."""
    before = pydicom.dcmread(cxr_dir / "dicom" / "cxr" / "gdcm-CR-MONO1-10-chest.dcm")
    marked = 0
    for element in before:
        if element.VR in ("PN", "LO", "SH", "LT", "ST", "UT", "UC"):
            element.value, marked = "ZQXMARK", marked + 1
    before.PatientName, before.PatientID, before.PatientBirthDate = "ZQXMARK", "ZQXMARK", "19010203"
    before.private_block(0x0029, "ZQXMARK", create=True).add_new(1, "LO", "ZQXMARK")
    nested = pydicom.Dataset()
    nested.PatientName = "ZQXMARK"
    before.RequestAttributesSequence = [nested]
    before.save_as(tmp_path / "source.dcm")
    image, frame = read_radiograph(tmp_path / "source.dcm")
    path, written = write_image(tmp_path / "a", image, frame)
    assert marked > 5 and b"ZQXMARK" not in path.read_bytes() and b"19010203" not in path.read_bytes()
    with Image.open(path) as picture:
        assert picture.info == {} and picture.size == (before.Columns, before.Rows)
        np.testing.assert_array_equal(np.asarray(picture), np.rint(written * 65535))


@pytest.mark.parametrize(
    ("writer", "frame"),
    [(PILWriter, Frame(40, 56, 8)), (NibabelWriter, Frame(40, 56, 32, kind="nifti", dtype="float32"))],
)
def test_a_failing_writer_leaves_nothing(tmp_path, monkeypatch, writer, frame):
    real = writer.write

    def fails(self, filename, *args, **kwargs):
        real(self, filename, *args, **kwargs)
        raise OSError("disk full")

    monkeypatch.setattr(writer, "write", fails)
    with pytest.raises(OSError, match="disk full"):
        write_image(tmp_path / "a", SMOOTH, frame)
    assert not list(tmp_path.iterdir())


def test_misuse(tmp_path):
    with pytest.raises(UsageError, match="GM-U063"):
        write_image(tmp_path / "a", SMOOTH.T, Frame(40, 56, 8))
    for frame in (Frame(40, 56, 8), Frame(40, 56, 32, kind="nifti", dtype="float32")):
        with pytest.raises(InputError, match="GM-D008"):
            write_image(tmp_path / "a", np.where(SMOOTH > 0.5, np.nan, SMOOTH), frame)
    assert not list(tmp_path.iterdir())
