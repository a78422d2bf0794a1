from __future__ import annotations

import math

import pytest

from gmia_monai.data.values import parse_age, parse_sex, parse_view


@pytest.mark.parametrize(
    ("text", "years"),
    [
        ("57", 57),
        ("058Y", 58),
        ("006M", 0.5),
        ("052W", 0.9966),
        ("030d", 0.0821),
        ("120", 120),
        (" 7 ", 7),
        ("61.5", 61.5),
    ],
)
def test_age(text, years):
    assert parse_age(text) == pytest.approx(years, abs=1e-4)


@pytest.mark.parametrize("text", ["", "121", "411", "Y", "old", "-3", "nan", "1e1"])
def test_age_that_cannot_be(text):
    assert math.isnan(parse_age(text))


def test_sex_and_view():
    assert [parse_sex(s) for s in ("M", "female", "Male", "f", "O", "Unknown", "")] == ["M", "F", "M", "F", "", "", ""]
    assert [parse_view(v) for v in ("pa", "AP ", "lateral", "SWIMMERS", "")] == ["PA", "AP", "LATERAL", "", ""]
