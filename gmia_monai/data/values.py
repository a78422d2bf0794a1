"""Cells to values: age, sex, view. Unknown is nan or empty, never a guess."""

from __future__ import annotations

import math
import re

__all__ = ["MAX_AGE", "VIEWS", "parse_age", "parse_sex", "parse_view"]

MAX_AGE = 120.0
VIEWS = ("PA", "AP", "LL", "RL", "LATERAL", "")
_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*([YMWD]?)", re.IGNORECASE)
_YEARS = {"": 1.0, "Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}


def parse_age(text: str) -> float:
    """Age in years from ``57``, ``058Y``, ``006M``, ``012W`` or ``030D``; nan for anything else and above 120."""
    match = _AGE.fullmatch(text.strip())
    if match is None:
        return math.nan
    years = float(match.group(1)) * _YEARS[match.group(2).upper()]
    return years if years <= MAX_AGE else math.nan


def parse_sex(text: str) -> str:
    """``M`` or ``F`` from a letter or a word; empty for anything else."""
    return {"M": "M", "MALE": "M", "F": "F", "FEMALE": "F"}.get(text.strip().upper(), "")


def parse_view(text: str) -> str:
    """One of :data:`VIEWS`; empty for anything else."""
    view = text.strip().upper()
    return view if view in VIEWS else ""
