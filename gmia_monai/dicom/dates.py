"""Dates: shifted by one keyed number of days a patient, so that intervals stay and the days do not.

PS3.15 E.3.6, Retain Longitudinal Temporal Information With Modified Dates Option (113107).
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import date, timedelta

from gmia_monai.errors import UsageError

__all__ = ["parse_date", "shift_date", "shift_days"]

_OLDEST, _NEWEST = date(1895, 11, 8), date(2200, 1, 1)  # no radiograph before Röntgen's


def shift_days(key: bytes, patient: str, largest: int = 365) -> int:
    """Days by which all dates of a patient are shifted: within ``largest`` either way, never 0, the same in a project.

    Args:
        key: of the project.
        patient: identifier.
        largest: at least 1.

    Raises:
        UsageError: ``GM-U087`` for a range without room.
    """
    if largest < 1:
        raise UsageError("GM-U087", "no room to shift dates", got=largest, expected="at least 1 day")
    digest = hmac.new(key, f"days\0{patient}".encode("utf-8", "surrogatepass"), hashlib.sha256).digest()
    # 2^64 is so much larger than the range that its remainder favours no day by more than 1e-15.
    drawn = int.from_bytes(digest[:8], "big") % (2 * largest)
    return drawn - largest if drawn < largest else drawn - largest + 1


def parse_date(text: str) -> date | None:
    """A date as DICOM writes it, ``YYYYMMDD``, or as files before 1993 did, ``YYYY.MM.DD``; None for anything else."""
    digits = text.strip().replace(".", "")
    if len(digits) != 8 or not (digits.isascii() and digits.isdigit()):
        return None
    try:
        found = date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        return None
    return found if _OLDEST <= found <= _NEWEST else None


def shift_date(text: str, days: int) -> str:
    """A date, shifted; empty where there was none that can be read, so that nothing else comes through."""
    found = parse_date(text)
    return "" if found is None else (found + timedelta(days=days)).strftime("%Y%m%d")
