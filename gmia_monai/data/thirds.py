"""Thirds of the training patients, so that encoders of an ensemble can learn from different ones (protocol v1)."""

from __future__ import annotations

import hashlib
import re

import numpy as np

from gmia_monai.data.cohort import Cohort
from gmia_monai.errors import UsageError

__all__ = ["without_third"]

_RESIDUES = (0, 1, 4)  # of the patients of S, modulo 7
_NUMBER = re.compile(r"NIH(\d+)")


def without_third(cohort: Cohort, third: int | None) -> Cohort:
    """The cohort without one third of its patients; order is kept.

    Patients of S with ChestX-ray14 numbers fall into thirds by the number modulo 7 (0, 1, 4), all others by the SHA-256
    of their identifier.

    Args:
        cohort: images of the training role.
        third: 0, 1 or 2; None: all stay.

    Raises:
        UsageError: ``GM-U308`` for another third.
    """
    if third is None:
        return cohort
    if third not in (0, 1, 2):
        raise UsageError("GM-U308", "no such third of the patients", got=third, expected="0, 1, 2 or none")
    return cohort[np.array([_third(record.patient_id) != third for record in cohort], dtype=bool)]


def _third(patient_id: str) -> int:
    match = _NUMBER.fullmatch(patient_id)
    if match is not None and int(match.group(1)) % 7 in _RESIDUES:
        return _RESIDUES.index(int(match.group(1)) % 7)
    return hashlib.sha256(patient_id.encode("utf-8")).digest()[0] % 3
