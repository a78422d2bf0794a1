"""Intake: whether the policy takes an image, from what its header says of it; nothing is guessed."""

from __future__ import annotations

from gmia_monai.dicom.decode import Decoded
from gmia_monai.dicom.source_header import SourceHeader
from gmia_monai.errors import InputError
from gmia_monai.release.policy import Intake

__all__ = ["admit"]

_REJECTED = {
    "view": ("GM-D033", "the view is not among those that are taken"),
    "unknown view": ("GM-D033", "the view is not known"),
    "age": ("GM-D034", "the patient is younger than the policy takes"),
    "unknown age": ("GM-D034", "the age is not known"),
    "unknown body part": ("GM-D032", "the body part is not known"),
}
_HELD = {
    "view": "GM-H004",
    "unknown view": "GM-H001",
    "age": "GM-H005",
    "unknown age": "GM-H002",
    "unknown body part": "GM-H003",
}


def admit(decoded: Decoded, policy: Intake) -> list[str]:
    """Codes for which the image is held; none: it is taken.

    An image without a header says nothing of view, age and body part: a policy that takes such images answers for them.

    Args:
        decoded: the image with the facts of its header.
        policy: what is taken.

    Raises:
        InputError: ``GM-D030`` to ``GM-D034`` for what can never be released under the policy.
    """
    header = decoded.header
    if header is None:
        if not policy.images_without_header:
            raise InputError(
                "GM-D030",
                "the file says nothing of its image",
                expected="DICOM",
                next_step="set intake.images_without_header, if all of them are chest radiographs of adults",
            )
        return []
    _check_kind(header, policy)
    questions = {
        "unknown body part": policy.unknown_body_part if not header.body_part else None,
        "unknown view": policy.unknown_view if not header.view else None,
        "view": policy.other_view if header.view and header.view not in policy.views else None,
        "unknown age": policy.unknown_age if header.age_years is None else None,
        "age": policy.under_age if header.age_years is not None and header.age_years < policy.min_age_years else None,
    }
    held = []
    for question, answer in questions.items():
        if answer == "reject":
            code, what = _REJECTED[question]
            raise InputError(code, what)
        if answer == "hold":
            held.append(_HELD[question])
    return held


def _check_kind(header: SourceHeader, policy: Intake) -> None:
    taken = [*policy.modalities, *(["SC"] if policy.secondary_capture else [])]
    if header.kind not in taken:
        raise InputError("GM-D031", "the kind of image is not among those that are taken", expected=", ".join(taken))
    if header.body_part == "other":
        raise InputError("GM-D032", "another body part than the chest")
    if header.kind == "SC" and header.body_part != "CHEST":
        raise InputError("GM-D032", "a secondary capture that does not say it is of the chest")
