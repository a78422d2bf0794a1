"""The floor: what metadata alone find, read as pixel attackers are: by the variant that was better on V2."""

from __future__ import annotations

from gmia_monai.metrics.results import Result
from gmia_monai.report.cells import DASH, FLOOR, Cell, Columns, Lines, best_on_choice, find, interval

__all__ = ["FLOOR_COLUMNS", "FLOOR_NOTE", "floor_line"]

_FIGURES = {"signed": "verification_auc", "two_sided": "verification_auc_two_sided"}

FLOOR_NOTE = (
    "The floor, `metadata`: sex, age, view and findings without pixels, by the variant (signed or two-sided) that was "
    "better on V2. The lines know V2 with matched negatives only, where the likelihood ratio was fitted, too: with "
    "random negatives the larger of the two on the judged role stands, marked (max). Under T2 an image beside itself "
    "has an age gap of exactly 0 years, which most matched negatives (within 5 years) have not, so that metadata alone "
    "tell the two apart: a property of the metadata, not of the pixels."
)


def floor_line(lines: Lines, threat: str, negatives: str) -> tuple[Result, str] | None:
    """The metadata line of a threat model, and which it is: ``signed`` or ``two-sided`` by V2, else the larger one on
    the judged role, marked ``(max)``."""
    found = {}
    for variant, figure in _FIGURES.items():
        line = find(lines, f"{figure}.{threat}.{FLOOR}.v1", negatives)
        if line is not None:
            found[variant] = line
    if not found:
        return None
    best = best_on_choice(lines, threat, [FLOOR]) if negatives == "matched" else None
    if best is not None and best[1] in found:
        return found[best[1]], best[1].replace("_", "-")
    variant = max(found, key=lambda name: found[name].value or 0.0)
    return found[variant], f"{variant.replace('_', '-')} (max)"


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
