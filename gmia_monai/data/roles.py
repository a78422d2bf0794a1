"""Roles of patients: who may teach a system, an attacker, a threshold, and who is only ever scored (protocol v1).

============  =======================  ==============================================
role          rule on the number p     may be used for
============  =======================  ==============================================
``S``         p % 7 in {0, 1, 4}       everything that a system learns
``A``         p % 7 == 2               attackers
``V1``        p % 7 == 6, p//7 even    checkpoints and hyper-parameters of systems
``V2``        p % 7 == 6, p//7 odd     choice of attacker, thresholds, calibration
``T``         p % 7 == 5               scored once
``reserved``  p % 7 == 3               kept for an independent check
============  =======================  ==============================================
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gmia_monai.errors import ManifestError, UsageError

if TYPE_CHECKING:
    from gmia_monai.data.cohort import Cohort

__all__ = [
    "DEFAULT_ROLE_KEY",
    "ROLES",
    "ROLE_SCHEMES",
    "SPLIT_TO_ROLE",
    "TEST_ROLE",
    "TRAINING_ROLE",
    "VALIDATION_ROLE",
    "check_disjoint",
    "choose_scheme",
    "role_of_number",
    "role_of_patient",
    "role_of_split",
]

ROLES = ("S", "A", "V1", "V2", "T", "reserved")
ROLE_SCHEMES = ("number", "split", "hash")
TRAINING_ROLE, VALIDATION_ROLE, TEST_ROLE = "S", "V1", "T"
DEFAULT_ROLE_KEY = b"gmia_monai roles v1"

SPLIT_TO_ROLE = {
    "train": "S", "training": "S", "val": "V1", "valid": "V1", "validate": "V1", "validation": "V1", "test": "T",
    **{role.lower(): role for role in ROLES},
}  # fmt: skip
_TAIL = 1 << 12  # bytes at the end of a file that are compared first
_NIH_ID = re.compile(r"NIH(\d+)")


def role_of_number(number: int) -> str:
    """Role of the patient with this number, by the table above."""
    residue = number % 7
    if residue in (0, 1, 4):
        return "S"
    if residue == 6:
        return "V2" if (number // 7) % 2 else "V1"
    return {2: "A", 3: "reserved", 5: "T"}[residue]


def role_of_split(split: str) -> str:
    """Role for a value of a split column: train -> S, val -> V1, test -> T; names of roles stand for themselves.

    Raises:
        ManifestError: the value is none of :data:`SPLIT_TO_ROLE` (upper or lower case).
    """
    try:
        return SPLIT_TO_ROLE[split.strip().lower()]
    except KeyError:
        raise ManifestError("GM-M030", "unknown value of split", expected=sorted(SPLIT_TO_ROLE)) from None


def role_of_patient(patient_id: str, scheme: str, *, split: str = "", key: bytes = DEFAULT_ROLE_KEY) -> str:
    """Role of one patient under a scheme.

    Args:
        patient_id: as in the cohort.
        scheme: ``number`` reads the digits of ``NIH00001``; ``split`` reads ``split``; ``hash`` takes the first eight
            bytes of HMAC-SHA256(key, patient) as the number, so that roles stay the same when patients are added.
        split: value of the split column, for the scheme ``split``.
        key: secret of the scheme ``hash``.

    Raises:
        ManifestError: the patient has no number, or the split is not known.
        UsageError: there is no such scheme.
    """
    if scheme == "split":
        return role_of_split(split)
    if scheme == "hash":
        digest = hmac.new(key, patient_id.encode("utf-8"), hashlib.sha256).digest()
        return role_of_number(int.from_bytes(digest[:8], "big"))
    if scheme == "number":
        match = _NIH_ID.fullmatch(patient_id)
        if match is None:
            raise ManifestError(
                "GM-M031", "a patient without a ChestX-ray14 number has no role", expected="NIH and digits"
            )
        return role_of_number(int(match.group(1)))
    raise UsageError("GM-U030", "unknown scheme of roles", got=scheme, expected=ROLE_SCHEMES)


def choose_scheme(patient_ids: Iterable[str], splits: Iterable[str] = ()) -> str:
    """``split`` if any split is given, ``number`` if all patients are named as ``NIH00001``, else ``hash``."""
    if any(splits):
        return "split"
    ids = list(patient_ids)
    return "number" if ids and all(_NIH_ID.fullmatch(p) for p in ids) else "hash"


def check_disjoint(cohorts: Mapping[str, Cohort]) -> None:
    """Refuse cohorts that share a patient, an image file, or the content of one.

    Args:
        cohorts: name of the role or purpose -> cohort.

    Raises:
        ManifestError: ``GM-M032`` for a shared patient, ``GM-M033`` for a shared image file, ``GM-M037`` for the same
            image under two names; names the two cohorts and how many, never which.
    """
    names = list(cohorts)
    patients = {name: set(cohorts[name].patients) for name in names}
    images = {name: {str(record.image.resolve()) for record in cohorts[name]} for name in names}
    contents = dict(zip(names, _contents([images[name] for name in names]), strict=True))
    for what, code, sets in (
        ("patients", "GM-M032", patients),
        ("image files", "GM-M033", images),
        ("images under two names", "GM-M037", contents),
    ):
        for i, one in enumerate(names):
            for other in names[i + 1 :]:
                shared = len(sets[one] & sets[other])
                if shared:
                    raise ManifestError(
                        code,
                        f"{one} and {other} share {what}",
                        got=f"{shared} shared",
                        expected="none",
                        next_step="split by patient, never by image",
                    )


def _contents(cohorts: Sequence[set[str]]) -> list[set[str]]:
    """Digests of the files of each set that may have a copy: by size, then by their ends, then by all of them."""
    keys = {path: f"{Path(path).stat().st_size}" for path in set().union(*cohorts) if Path(path).is_file()}
    for tail in (_TAIL, None):
        count = Counter(keys.values())
        keys = {path: _digest(path, tail) for path, key in keys.items() if count[key] > 1}
    return [{keys[path] for path in files if path in keys} for files in cohorts]


def _digest(path: str, tail: int | None) -> str:
    """SHA-256 of the last ``tail`` bytes of a file, or of all."""
    with Path(path).open("rb") as file:
        if tail is not None:
            file.seek(max(0, Path(path).stat().st_size - tail))
        return hashlib.sha256(file.read()).hexdigest()
