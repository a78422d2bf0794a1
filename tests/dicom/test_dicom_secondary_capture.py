"""Secondary capture: same pixels, nothing of the source, whole or absent."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from pydicom.uid import SecondaryCaptureImageStorage

from gmia_monai.dicom import secondary_capture
from gmia_monai.dicom.pseudonyms import uid
from gmia_monai.dicom.secondary_capture import CaptureIdentity, write_secondary_capture
from gmia_monai.errors import InputError, IntegrityError

KEY = bytes(32)
IDENTITY = CaptureIdentity("0123456789abcdef", uid(KEY, "study"), uid(KEY, "series"), uid(KEY, "image"))


@pytest.mark.parametrize(("bits", "dtype"), [(8, np.uint8), (10, np.uint16), (12, np.uint16), (16, np.uint16)])
@pytest.mark.parametrize("shape", [(33, 47), (64, 40)])
def test_reads_back_to_the_same_pixels(tmp_path, bits, dtype, shape):
    pixels = np.random.default_rng(bits).integers(0, 2**bits, shape).astype(dtype)
    path = write_secondary_capture(tmp_path / "a.dcm", pixels, bits_stored=bits, identity=IDENTITY)
    dataset = pydicom.dcmread(path)
    np.testing.assert_array_equal(dataset.pixel_array, pixels)
    assert (dataset.Rows, dataset.Columns, dataset.BitsStored, dataset.HighBit) == (*shape, bits, bits - 1)
    assert dataset.SOPClassUID == SecondaryCaptureImageStorage == dataset.file_meta.MediaStorageSOPClassUID
    assert dataset.SOPInstanceUID == dataset.file_meta.MediaStorageSOPInstanceUID == IDENTITY.sop_instance_uid
    assert dataset.PatientID == IDENTITY.patient_handle and "not released" in dataset.DerivationDescription
    assert "BurnedInAnnotation" not in dataset and "PatientIdentityRemoved" not in dataset
    assert list(tmp_path.iterdir()) == [path]


def test_depth_must_fit(tmp_path):
    for pixels, bits in [
        (np.ones((32, 32), np.uint16), 8),
        (np.ones((32, 32), np.uint8), 12),
        (np.full((32, 32), 4096, np.uint16), 12),
        (np.ones((32, 32), np.uint16), 17),
    ]:
        with pytest.raises(InputError, match="GM-D011"):
            write_secondary_capture(tmp_path / "a.dcm", pixels, bits_stored=bits, identity=IDENTITY)
    assert not list(tmp_path.iterdir())


def test_a_file_that_reads_back_differently_is_not_left(tmp_path, monkeypatch):
    target = tmp_path / "a.dcm"
    target.write_bytes(b"before")
    real = pydicom.dcmread

    def damaged(path):
        dataset = real(path)
        dataset.PixelData = bytes(len(dataset.PixelData))
        return dataset

    monkeypatch.setattr(secondary_capture, "dcmread", damaged)
    with pytest.raises(IntegrityError, match="GM-W081"):
        write_secondary_capture(target, np.ones((32, 32), np.uint8), bits_stored=8, identity=IDENTITY)
    assert target.read_bytes() == b"before" and list(tmp_path.iterdir()) == [target]
