"""Dates: one shift a patient and project, never none; what is no date does not come through."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest

from gmia_monai.dicom.dates import parse_date, shift_date, shift_days
from gmia_monai.errors import UsageError

KEY = bytes(range(32))


def test_shifts_are_of_a_patient_and_a_project_never_none_and_use_the_whole_range():
    shifts = np.array([shift_days(KEY, f"p{i}", 30) for i in range(6000)])
    assert set(shifts) == set(range(-30, 31)) - {0}
    counts = np.bincount(shifts + 30, minlength=61)
    assert 60 < counts[counts > 0].min() and counts.max() < 145  # 100 each, five standard deviations
    assert shift_days(KEY, "p1") == shift_days(KEY, "p1")
    others = [shift_days(bytes(32), f"p{i}", 30) for i in range(6000)]
    assert 0.005 < np.mean(shifts == others) < 0.035
    assert set(abs(shift_days(KEY, f"p{i}", 1)) for i in range(50)) == {1}


def test_intervals_stay():
    days = shift_days(KEY, "p")
    one, other = (parse_date(shift_date(text, days)) for text in ("20200228", "20210301"))
    assert (other - one).days == (date(2021, 3, 1) - date(2020, 2, 28)).days
    assert (one - date(2020, 2, 28)).days == days


@pytest.mark.parametrize(
    "text", ["", "2020", "20201301", "20200230", "2020-01-01", "Doe", "20200101-20210101", "٢٠٢٠٠١٠١"]
)
def test_what_is_no_date_does_not_come_through(text):
    assert parse_date(text) is None and shift_date(text, 5) == ""


@pytest.mark.parametrize("text", ["00010101", "18000101", "99991231"])
def test_dates_that_no_radiograph_has_do_not_come_through(text):
    assert shift_date(text, 5) == ""


def test_the_old_way_of_writing_is_read():
    assert shift_date("1992.12.31 ", 1) == "19930101"


def test_no_room_is_refused():
    with pytest.raises(UsageError, match="GM-U087"):
        shift_days(KEY, "p", 0)
