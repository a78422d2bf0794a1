"""Privacy risk as Anonymeter defines it: what an attack wins beyond what the same attack wins on strangers.

Giomi et al., Proceedings on Privacy Enhancing Technologies 2023(2):312, section 5: the rate of success is the centre of
Wilson's interval, the risk is (main - control) / (1 - control), and its error is propagated from those of both rates.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from gmia_monai.metrics.limits import Interval, wilson_interval

__all__ = ["Attempts", "residual_risk"]


class Attempts(NamedTuple):
    """Guesses of one attack, one a patient: how many were right, and how many were made."""

    successes: int
    trials: int

    def rate(self, level: float = 0.95) -> Interval:
        """Share of right guesses with Wilson's interval."""
        return wilson_interval(self.successes, self.trials, level)


def residual_risk(main: Attempts, control: Attempts, level: float = 0.95) -> Interval:
    """Risk in [0, 1]; 0 where patients of the release are found no more often than strangers.

    Args:
        main: guesses on patients whose images the release was made from.
        control: the same guesses on patients whose images it has never seen.
        level: coverage of the interval.

    Returns:
        risk and limits, ``nan`` where one side has no guess.
    """
    (attack, attack_error), (stranger, stranger_error) = (_centred(side.rate(level)) for side in (main, control))
    if math.isnan(attack) or math.isnan(stranger):
        return Interval(*(math.nan,) * 3)
    missed = 1.0 - stranger
    risk = (attack - stranger) / missed
    error = math.hypot(attack_error / missed, stranger_error * (1.0 - attack) / missed**2)
    return Interval(*(min(max(value, 0.0), 1.0) for value in (risk, risk - error, risk + error)))


def _centred(interval: Interval) -> tuple[float, float]:
    """Centre and half width."""
    return (interval.low + interval.high) / 2, (interval.high - interval.low) / 2
