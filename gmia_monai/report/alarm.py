"""Does the alarm work? Every attack must ring on unchanged images and be silent on noise (protocol v1).

Silence is judged over the whole family of figures by Holm's step-down rule (Scandinavian Journal of Statistics 6:65,
1979): with a hundred figures, some 95 % intervals miss chance by chance. The standard error of a figure is taken from
its interval; a figure without one is judged by nothing and counts for nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from gmia_monai.metrics.results import Result
from gmia_monai.typing import FloatArray

__all__ = ["CHANCE", "RINGS_ELSEWHERE", "Figure", "figures_of", "holm"]

# attack: (names of its figures, what chance gives; None: the line says it)
CHANCE: dict[str, tuple[str, float | None]] = {
    **{
        f"verification, {threat}": (rf"verification_auc(_two_sided)?\.{threat}\.(?!worst|metadata)\w+\.v1", 0.5)
        for threat in ("T1", "T2", "T3")
    },
    "linkability, accuracy": (r"linkability_accuracy\.\w+\.(?!metadata)\w+\.v1", 0.5),
    "retrieval, rank 1": (r"rank_1\.\w+\.(?!worst)\w+\.v1", None),
    "presence": (r"presence_auc\.(?!worst)[\w.]+\.v1", 0.5),
    "membership": (r"membership_auc(_patient)?\.(?!worst)[\w.]+\.v1", 0.5),
    "attribute": (r"attribute_auc\.\w+\.v1", 0.5),
    "inversion": (r"inversion_auc\.T[12]\.v1", 0.5),
    "singling out, Anonymeter": (r"anonymeter_singling_out_risk\.\w+\.v1", 0.0),
    "linkability, Anonymeter": (r"anonymeter_linkability_risk\.\w+\.v1", 0.0),
}
# Its positive control is a generator that knows its images by heart, not a release of unchanged ones.
RINGS_ELSEWHERE = ("membership",)
_TWO_SIDES = 2 * 1.959964


@dataclass(frozen=True)
class Figure:
    """A figure of one attack beside chance.

    Attributes:
        attack: of :data:`CHANCE`.
        line: the result line.
        chance: its value where nothing is found.
        z: distance from chance in standard errors; negative below it.
    """

    attack: str
    line: Result
    chance: float
    z: float

    @property
    def rings(self) -> bool:
        """Whether the lower limit is above chance."""
        return self.line.low is not None and self.line.low > self.chance


def figures_of(lines: Sequence[Result]) -> list[Figure]:
    """All figures of one system whose value by chance is known, and that have an interval."""
    found = []
    for line in lines:
        if line.value is None or line.low is None or line.high is None:
            continue
        for attack, (pattern, chance) in CHANCE.items():
            if re.fullmatch(pattern, line.name) and (chance is not None or "chance" in line.extra):
                expected = float(line.extra["chance"]) if chance is None else chance
                found.append(Figure(attack, line, expected, _z(line.value, line.low, line.high, expected)))
    return found


def _z(value: float, low: float, high: float, chance: float) -> float:
    if chance == 0.0:  # a risk cannot be below it: its interval says how far it is from nothing
        return 0.0 if low <= 0.0 else value / max((value - low) * 2 / _TWO_SIDES, 1e-12)
    if value == chance:
        return 0.0
    return (value - chance) / max((high - low) / _TWO_SIDES, 1e-12)


def holm(figures: Sequence[Figure]) -> FloatArray:
    """Adjusted two-sided p-values of the figures being chance, in their order."""
    p = 2 * norm.sf(np.abs([f.z for f in figures]))
    order = np.argsort(p)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return adjusted
