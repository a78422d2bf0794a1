"""Anonymeter's risk against the formulas of its paper, written out, and at its ends."""

from __future__ import annotations

import numpy as np
import pytest

from gmia_monai.metrics.privacy_risk import Attempts, residual_risk

Z = 1.959963984540054


def _rate(k, n):
    """Giomi et al., equation of the success rate: Wilson's centre and half width."""
    centre = (k + Z * Z / 2) / (n + Z * Z)
    return centre, Z / (n + Z * Z) * np.sqrt(k * (n - k) / n + Z * Z / 4)


@pytest.mark.parametrize(("main", "control"), [((80, 309), (20, 155)), ((150, 155), (3, 155)), ((40, 100), (39, 100))])
def test_it_is_the_published_formula(main, control):
    (a, da), (c, dc) = _rate(*main), _rate(*control)
    step = 1e-6  # the error is propagated by the slopes, taken here by differences
    risk = lambda x, y: (x - y) / (1 - y)  # noqa: E731
    slopes = (risk(a + step, c) - risk(a, c)) / step, (risk(a, c + step) - risk(a, c)) / step
    error = np.hypot(slopes[0] * da, slopes[1] * dc)
    expected = np.clip([risk(a, c), risk(a, c) - error, risk(a, c) + error], 0, 1)
    assert residual_risk(Attempts(*main), Attempts(*control)) == pytest.approx(expected, abs=1e-4)


def test_no_more_than_strangers_is_no_risk():
    risk = residual_risk(Attempts(30, 200), Attempts(40, 200))
    assert risk.value == risk.low == 0.0 and risk.high < 0.1


def test_everyone_against_no_one_is_all_risk():
    risk = residual_risk(Attempts(300, 300), Attempts(0, 150))
    assert risk.value > 0.98 and risk.low > 0.97 and risk.high == 1.0


def test_without_attempts_there_is_no_risk_to_tell():
    assert np.isnan(residual_risk(Attempts(0, 0), Attempts(1, 2))).all()
