"""The floor: what metadata alone find, read as pixel attackers are: by the variant that was better on V2."""

from __future__ import annotations

from gmia_monai.metrics.results import Result
from gmia_monai.report.cells import DASH, FLOOR, Cell, Columns, Lines, chosen_line, interval

__all__ = ["FLOOR_COLUMNS", "FLOOR_NOTE", "floor_line"]

FLOOR_NOTE = (
    "The floor, `metadata`: sex, age, view and findings without pixels, by the variant (signed or two-sided) that was "
    "better on V2. Matched negatives have the sex and the view of the image that they stand in for, and, under T1 and "
    "T3, years between the two images as often as pairs of one person: what is left are findings. Under T2 an image "
    "beside itself has an age gap of exactly 0 years, which most matched negatives (within 5 years) have not, so that "
    "metadata alone tell the two apart: a property of the metadata, not of the pixels."
)


def floor_line(lines: Lines, threat: str, negatives: str) -> tuple[Result, str] | None:
    """The metadata line of a threat model, and which it is, ``signed`` or ``two-sided``, by V2."""
    found = chosen_line(lines, threat, [FLOOR], negatives)
    return None if found is None else (found[0], found[1].replace("_", "-"))


def _cell(threat: str, negatives: str) -> Cell:
    def cell(lines: Lines) -> str:
        found = floor_line(lines, threat, negatives)
        return DASH if found is None else f"{interval(found[0])} {found[1]}"

    return cell


FLOOR_COLUMNS: Columns = {
    "T1, matched": _cell("T1", "matched"),
    "T1, random": _cell("T1", "random"),
    "T2, matched": _cell("T2", "matched"),
    "T3, matched": _cell("T3", "matched"),
}
