"""The gate lets through what passes every check, and nothing else."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from gmia_monai.errors import UsageError
from gmia_monai.release.gate import Bounds, Gate
from gmia_monai.release.reasons import HELD, HELD_BY_CHECK

GATE = Gate({"identity": Bounds(-0.2, 0.3), "contrast": Bounds(low=0.05), "utility_drift": Bounds(high=0.3)})
GOOD = {"identity": [0.0, 0.1], "contrast": 0.2, "utility_drift": 0.1}


def test_what_passes_every_check_is_released():
    decision = GATE.judge(GOOD)
    assert decision.released and decision.codes == ()
    assert decision.scores == {"identity": (0.0, 0.1), "contrast": (0.2, 0.2), "utility_drift": (0.1, 0.1)}


@pytest.mark.parametrize("edge", [-0.2, 0.3])
def test_limits_are_included_and_the_next_number_is_not(edge):
    beyond = math.nextafter(edge, math.copysign(math.inf, edge))
    assert GATE.judge(GOOD | {"identity": edge}).released
    assert GATE.judge(GOOD | {"identity": beyond}).codes == (HELD_BY_CHECK["identity"][edge > 0],)


@pytest.mark.parametrize(
    "score",
    [
        *(math.nan, math.inf, -math.inf, None, "0.1", "", True, False, [], (), [0.1, None], [0.1, math.nan], {}, 1j),
        *(np.nan, np.array([0.1]), np.float32(0.1), Fraction(1, 10), b"0.1", 10**400, -(10**400), [[0.1]], object()),
    ],
)
@pytest.mark.parametrize("check", list(GOOD))
def test_what_is_no_finite_number_holds(check, score):
    assert GATE.judge(GOOD | {check: score}).codes == ("GM-H201",)


def test_a_missing_check_an_unknown_one_and_a_failure_hold():
    for check in GOOD:
        assert GATE.judge({k: v for k, v in GOOD.items() if k != check}).codes == ("GM-H201",)
    assert GATE.judge(GOOD | {"beauty": 1.0}).codes == ("GM-H202",)
    assert GATE.judge(GOOD, ["GM-H203"]).codes == ("GM-H203",)
    assert GATE.judge(GOOD, ["whatever"]).codes == ("GM-H204",)
    assert not GATE.judge({}).released


def test_one_of_several_scores_is_enough_to_hold_and_all_reasons_are_named():
    decision = GATE.judge({"identity": [-0.5, 0.0, 0.9], "contrast": 0.0, "utility_drift": 0.9})
    assert decision.codes == ("GM-H102", "GM-H101", "GM-H104", "GM-H103")
    assert decision.scores["identity"] == (-0.5, 0.9)


@pytest.mark.parametrize(
    "limits", [(math.nan, 1.0), (0.0, math.nan), (1.0, 0.0), (math.inf, math.inf), (-math.inf, -math.inf), ()]
)
def test_limits_that_are_none_are_refused(limits):
    with pytest.raises(UsageError, match="GM-U405"):
        Bounds(*limits)


@pytest.mark.parametrize(
    "checks", [{}, {"contrast": Bounds(0.1)}, {"identity": Bounds(0.0, 1.0), "beauty": Bounds(0.0)}]
)
def test_a_gate_without_identity_or_with_an_unknown_check_is_refused(checks):
    with pytest.raises(UsageError, match="GM-U406"):
        Gate(checks)


def test_every_code_says_what_it_means():
    assert {code for pair in HELD_BY_CHECK.values() for code in pair} <= set(HELD)
    assert all(text and code.startswith("GM-H") for code, text in HELD.items())
