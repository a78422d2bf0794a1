"""The Basic Application Level Confidentiality Profile of PS3.15, Table E.1-1, from a maintained package.

The table is that of ``dicom-anonymizer``, edition 2026c, not typed again. Here it is a second pair of eyes: new headers
are built from an allow-list (:mod:`gmia_monai.dicom.release_header`), and what that list keeps must not be among what
the profile removes, but for the options that are named.
"""

from __future__ import annotations

from functools import cache

from dicomanonymizer.dicom_anonymization_databases import dicomfields_2026c as _table

__all__ = ["EDITION", "basic_profile_action"]

EDITION = "2026c"
_ACTIONS = {
    "D_TAGS": "D",
    "Z_TAGS": "Z",
    "X_TAGS": "X",
    "U_TAGS": "U",
    "Z_D_TAGS": "Z/D",
    "X_Z_TAGS": "X/Z",
    "X_D_TAGS": "X/D",
    "X_Z_D_TAGS": "X/Z/D",
    "X_Z_U_STAR_TAGS": "X/Z/U*",
}


@cache
def _tags() -> tuple[dict[int, str], list[tuple[int, int, int, int, str]]]:
    """Actions by tag, and those of repeating groups by pattern and mask."""
    single: dict[int, str] = {}
    repeating = []
    for category, action in _ACTIONS.items():
        for tag in getattr(_table, category):
            if len(tag) == 2:
                single[(tag[0] << 16) | tag[1]] = action
            else:
                repeating.append((*tag, action))
    return single, repeating


def basic_profile_action(tag: int) -> str | None:
    """What the profile does to an element: ``X`` removes, ``Z`` empties, ``D`` replaces by a dummy, ``U`` by another
    UID, several of them by the type of the element; None: it says nothing of it. Private elements are removed.

    Args:
        tag: group and element, ``0xggggeeee``.
    """
    single, repeating = _tags()
    if (tag >> 16) % 2:
        return "X"
    if tag in single:
        return single[tag]
    for group, element, group_mask, element_mask, action in repeating:
        if (tag >> 16) & group_mask == group and tag & 0xFFFF & element_mask == element:
            return action
    return None
