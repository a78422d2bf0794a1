"""What an attack must be silent on, and what silence is; shared by the attack tests."""

from __future__ import annotations

import numpy as np

from gmia_monai.attacks.base import Judged
from gmia_monai.metrics.results import Result

# Half width of a 99.9 % interval over that of a 95 % one, of a normal figure.
_WIDER = 3.290527 / 1.959964


def interval_999(line: Result) -> tuple[float, float]:
    """The 99.9 % interval of a figure, each side stretched from its 95 % one: silence is judged by it (protocol v1)."""
    assert line.value is not None and line.low is not None and line.high is not None, line.name
    assert line.low < line.high, f"{line.name} has an interval without width"
    return line.value - _WIDER * (line.value - line.low), line.value + _WIDER * (line.high - line.value)


def is_silent(line: Result, chance: float = 0.5) -> bool:
    """Whether chance lies within the 99.9 % interval."""
    low, high = interval_999(line)
    return low <= chance <= high


def shuffled(case: Judged, seed: int = 0) -> Judged:
    """The released images dealt out to patients at random: everybody's images, under somebody's name.

    All orders of the patients are equally likely, the true one too, so that chance is exact. Patients must have equally
    many images, in the order of the cohort, each with one source.
    """
    patient = case.real.cohort.patient_index
    n = len(case.real.cohort.patients)
    of_patient = np.argsort(patient, kind="stable").reshape(n, -1)
    position = np.empty(len(patient), dtype=np.int64)
    position[of_patient] = of_patient[np.random.default_rng(seed).permutation(n)]
    pixels = case.released_pixels()[position]
    release = case.release.with_pixels(pixels[case.release.only_source()], f"{case.release.system}, shuffled")
    return Judged(case.real, release)
