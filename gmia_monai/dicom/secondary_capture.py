"""Secondary capture: a result as a DICOM object made from nothing, so that no element of the source can come along.

Research output. The release plane's writer keeps clinical elements by a profile; this one keeps none.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8, UInt16
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from gmia_monai.dicom.atomic import atomic_path
from gmia_monai.errors import InputError, IntegrityError
from gmia_monai.typing import PathLike

__all__ = ["DERIVATION", "CaptureIdentity", "write_secondary_capture"]

DERIVATION = "Anonymized by latent optimisation (gmia_monai). Research output, not released."


@dataclass(frozen=True)
class CaptureIdentity:
    """Who the new object says it is: pseudonyms only, see `dicom.pseudonyms`."""

    patient_handle: str
    study_uid: str
    series_uid: str
    sop_instance_uid: str


def write_secondary_capture(
    path: PathLike,
    pixels: UInt8[np.ndarray, "h w"] | UInt16[np.ndarray, "h w"],
    *,
    bits_stored: int,
    identity: CaptureIdentity,
    photometric: str = "MONOCHROME2",
    description: str = DERIVATION,
) -> Path:
    """Write a grey Secondary Capture image (1.2.840.10008.5.1.4.1.1.7), explicit little endian, and read it back.

    BurnedInAnnotation and PatientIdentityRemoved are left out: nobody has looked.

    Args:
        path: final path; written beside it first, then renamed.
        pixels: uint8 for 8 bits, uint16 above.
        bits_stored: 8 to 16; the window covers all of them, so that viewers and readers find the range again.
        identity: pseudonyms.
        photometric: MONOCHROME1 or MONOCHROME2.
        description: DerivationDescription.

    Raises:
        InputError: GM-D011 where pixels and depth do not fit.
        IntegrityError: GM-W081 where the file does not give the same pixels back.
    """
    wide = bits_stored > 8
    fits = 8 <= bits_stored <= 16 and pixels.dtype == (np.uint16 if wide else np.uint8)
    if not fits or int(pixels.max()) >= 2**bits_stored:
        raise InputError("GM-D011", "pixels and bit depth do not fit", got=bits_stored, expected="8 to 16")
    dataset = _fresh(identity, description)
    dataset.set_pixel_data(np.ascontiguousarray(pixels), photometric, bits_stored, generate_instance_uid=False)
    dataset.WindowCenter, dataset.WindowWidth = str(2 ** (bits_stored - 1)), str(2**bits_stored)
    with atomic_path(path) as temporary:
        dataset.save_as(temporary, enforce_file_format=True)
        if not np.array_equal(dcmread(temporary).pixel_array, pixels):
            raise IntegrityError("GM-W081", "the written DICOM file does not read back to the same pixels")
    return Path(path)


def _fresh(identity: CaptureIdentity, description: str) -> Dataset:
    """All elements of types 1 and 2 of the Secondary Capture IOD (PS3.3 A.8.1) but the pixels."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = UID(identity.sop_instance_uid)
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = identity.sop_instance_uid
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.Modality = "OT"
    dataset.ConversionType = "WSD"
    dataset.SeriesDescription = "gmia_monai research output, not released"
    dataset.DerivationDescription = description
    dataset.PatientName = dataset.PatientID = identity.patient_handle
    dataset.StudyInstanceUID = identity.study_uid
    dataset.SeriesInstanceUID = identity.series_uid
    for keyword in (
        "PatientBirthDate",
        "PatientSex",
        "StudyDate",
        "StudyTime",
        "ReferringPhysicianName",
        "StudyID",
        "AccessionNumber",
        "PatientOrientation",
    ):
        setattr(dataset, keyword, "")
    dataset.SeriesNumber = dataset.InstanceNumber = 1
    return dataset
