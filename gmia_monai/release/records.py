"""Records of instances, as anonymizers and attackers know images: the facts that the new header may tell, no more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gmia_monai.data.cohort import ImageRecord

__all__ = ["record_of"]


def record_of(
    handle: str, patient: str, known: Mapping[str, Any], labels: Sequence[tuple[str, float]] = ()
) -> ImageRecord:
    """The record of an instance.

    Args:
        handle: names the image; no file is there.
        patient: keyed hash.
        known: ``view``, ``sex`` and ``age``, as far as a header says.
        labels: findings by name.
    """
    age = known.get("age")
    return ImageRecord(
        image=Path(handle),
        patient_id=patient,
        view=str(known.get("view") or ""),
        sex=str(known.get("sex") or ""),
        age=float("nan") if age is None else float(age),
        labels=tuple(labels),
        key=handle,
    )
