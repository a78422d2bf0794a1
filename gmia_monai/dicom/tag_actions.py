"""What a release does with each element of a header, in words: for people who want to know it before it is done."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pydicom import Dataset
from pydicom.datadict import keyword_for_tag

from gmia_monai.dicom.ps315 import basic_profile_action

__all__ = ["TagAction", "tag_actions"]

_PSEUDONYMS = {"PatientID", "PatientName", "AccessionNumber"}
_DATES = {"StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate"}
_KEPT = {
    "SOPClassUID", "MediaStorageSOPClassUID", "Modality", "PatientSex", "PatientAge", "ViewPosition",
    "BodyPartExamined", "PatientOrientation", "SeriesNumber", "InstanceNumber", "ImagerPixelSpacing",
    "PresentationIntentType",
}  # fmt: skip
# Written with the pixels, of which the header alone knows nothing.
_WITH_PIXELS = {
    "PixelData": "redrawn",
    **dict.fromkeys(
        ("Rows", "Columns", "BitsStored", "HighBit", "SamplesPerPixel", "PhotometricInterpretation"), "kept"
    ),
    **dict.fromkeys(("BitsAllocated", "PixelRepresentation", "WindowCenter", "WindowWidth"), "written anew"),
}


@dataclass(frozen=True)
class TagAction:
    """What becomes of one element.

    Attributes:
        tag: group and element.
        name: its keyword; of a private element ``private``.
        action: ``removed``, ``emptied``, ``kept``, ``pseudonym``, ``date shifted``, ``redrawn`` or ``written anew``.
        profile: what the Basic Profile of PS3.15 says of it, as :func:`gmia_monai.dicom.ps315.basic_profile_action`.
    """

    tag: int
    name: str
    action: str
    profile: str


def tag_actions(source: Iterable[int], release: Dataset) -> list[TagAction]:
    """What becomes of each element of a source.

    Args:
        source: tags of its elements, nested ones too.
        release: the new header, of which the source's elements of the same tags are not a part: it is built anew.
    """
    new = {int(e.tag): e for e in (*release.file_meta, *release.iterall())}
    found = []
    for tag in sorted(set(source)):
        keyword = keyword_for_tag(tag)
        name = keyword or ("private" if (tag >> 16) % 2 else "unknown")
        found.append(TagAction(tag, name, _action(keyword, new.get(tag)), basic_profile_action(tag) or ""))
    return found


def _action(keyword: str, element: object | None) -> str:
    if keyword in _WITH_PIXELS:
        return _WITH_PIXELS[keyword]
    if element is None:
        return "removed"
    value = getattr(element, "value", None)
    if keyword in _PSEUDONYMS and value:
        return "pseudonym"
    if keyword in _DATES and value:
        return "date shifted"
    if value in ("", None) or value == []:
        return "emptied"
    if keyword in _KEPT:
        return "kept"
    if getattr(element, "VR", "") == "UI" and str(value).startswith("2.25."):
        return "pseudonym"
    return "written anew"
