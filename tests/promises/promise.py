"""Sizes of promises, and what is written down of them.

Each promise is a test: small where all tests run, in full size by ``make promises``. With ``GMIA_PROMISES_LINES`` set,
every one adds a line of JSON to that file, from which the table of SECURITY.md is made.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

FULL = os.environ.get("GMIA_PROMISES") == "full"


def size(fast: int, full: int) -> int:
    """How many of something are tried."""
    return full if FULL else fast


def kept(promise: str, tried: int, failures: list[object], note: str = "") -> None:
    """Says that a promise was kept; without a failure in n trials the true rate is below 3 / n with 95 % confidence.

    Args:
        promise: in words.
        tried: how many were tried.
        failures: what broke it.
        note: what else is to be known.
    """
    lines = os.environ.get("GMIA_PROMISES_LINES")
    if lines:
        line = {"promise": promise, "tried": tried, "failures": len(failures), "note": note, "full": FULL}
        with Path(lines).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
    assert tried > 0, f"{promise}: nothing was tried"
    assert failures == [], f"{promise}: {len(failures)} of {tried}, first: {failures[0]!r}"
