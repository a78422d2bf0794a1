"""The gate: released only if every check gave a number and every number is where it has to be.

It knows which checks there have to be. A score that is missing, that is no finite number, that belongs to a check it
does not know: held. Nothing else in the package may call an instance released, but for a person whom the policy lets
overrule a check, see :mod:`gmia_monai.release.review`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gmia_monai.errors import UsageError
from gmia_monai.release.reasons import HELD, HELD_BY_CHECK

__all__ = ["Bounds", "Decision", "Gate"]


@dataclass(frozen=True)
class Bounds:
    """Where the scores of a check have to be, limits included.

    Attributes:
        low: smallest score that passes.
        high: largest score that passes.

    Raises:
        UsageError: ``GM-U405`` for limits that are no numbers or leave no room; one of them may be infinite.
    """

    low: float = -math.inf
    high: float = math.inf

    def __post_init__(self) -> None:
        if not self.low <= self.high or self.low == math.inf or self.high == -math.inf:
            raise UsageError("GM-U405", "limits of a check leave no room", got=f"{self.low} to {self.high}")
        if math.isinf(self.low) and math.isinf(self.high):
            raise UsageError("GM-U405", "a check without a limit is none")


@dataclass(frozen=True)
class Decision:
    """What the gate says of one instance.

    Attributes:
        codes: why it is held, see :data:`gmia_monai.release.reasons.HELD`; empty: it is released.
        scores: smallest and largest score of each check that gave numbers.
    """

    codes: tuple[str, ...] = ()
    scores: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def released(self) -> bool:
        """Whether every check passed."""
        return not self.codes


class Gate:
    """Judges instances by the scores of their checks.

    Args:
        checks: limits of each check that has to be there.

    Raises:
        UsageError: ``GM-U406`` without a check, without the check of identity, or for one that has no codes.
    """

    def __init__(self, checks: Mapping[str, Bounds]) -> None:
        if "identity" not in checks or not set(checks) <= set(HELD_BY_CHECK):
            raise UsageError(
                "GM-U406", "unusable checks of the gate", expected="identity, and " + ", ".join(HELD_BY_CHECK)
            )
        self.checks = dict(checks)

    @property
    def limits(self) -> dict[str, list[float | None]]:
        """Lowest and highest score of each check that passes; None: no limit on that side."""
        sides = {name: (bounds.low, bounds.high) for name, bounds in sorted(self.checks.items())}
        return {name: [None if math.isinf(side) else side for side in pair] for name, pair in sides.items()}

    def judge(self, scores: Mapping[str, object], failures: Sequence[str] = ()) -> Decision:
        """Whether an instance is released.

        Args:
            scores: of each check one number or several, of which all have to pass.
            failures: codes of what went wrong on the way; with any, it is held.
        """
        codes = [code if code in HELD else "GM-H204" for code in failures]
        shown: dict[str, tuple[float, float]] = {}
        for name, bounds in self.checks.items():
            numbers = _numbers(scores[name]) if name in scores else None
            if not numbers:
                codes.append("GM-H201")
                continue
            below, above = HELD_BY_CHECK[name]
            shown[name] = (min(numbers), max(numbers))
            if not all(number >= bounds.low for number in numbers):
                codes.append(below)
            if not all(number <= bounds.high for number in numbers):
                codes.append(above)
        if not set(scores) <= set(self.checks):
            codes.append("GM-H202")
        return Decision(tuple(dict.fromkeys(codes)), shown)


def _numbers(score: object) -> list[float] | None:
    """Finite numbers; None where there is anything else."""
    several = list(score) if isinstance(score, list | tuple) else [score]
    found = []
    for one in several:
        if isinstance(one, bool) or not isinstance(one, int | float):
            return None
        try:
            number = float(one)
        except OverflowError:
            return None
        if not math.isfinite(number):
            return None
        found.append(number)
    return found
