"""Cells and sections of the report of one system."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gmia_monai.metrics.results import Result
from gmia_monai.report.cells import DASH, unsigned_zero

__all__ = ["limits", "make_section", "number", "with_limits"]


def make_section(
    title: str,
    note: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    pictures: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """What the template shows under one heading: a note, pictures with captions, a table."""
    return {"title": title, "note": note, "header": list(header), "rows": list(rows), "pictures": list(pictures)}


def number(result: Result | None, decimals: int = 3) -> str:
    """The value as a table shows it, with so many decimals below 10."""
    if result is None or result.value is None:
        return DASH
    return _shown(result.value, _digits(result.value, decimals))


def limits(result: Result | None, decimals: int = 3) -> str:
    """The interval as a table shows it."""
    if result is None or result.low is None or result.high is None:
        return DASH
    digits = _digits(max(abs(result.low), abs(result.high)), decimals)
    return f"{_shown(result.low, digits)} to {_shown(result.high, digits)}"


def _digits(value: float, decimals: int) -> int:
    return decimals if abs(value) < 10 else 1 if abs(value) < 100 else 0


def _shown(value: float, digits: int) -> str:
    return unsigned_zero(f"{value:,.{digits}f}")


def with_limits(result: Result | None) -> str:
    """The value, and the interval where there is one."""
    shown = limits(result)
    return number(result) if shown == DASH else f"{number(result)} ({shown})"
