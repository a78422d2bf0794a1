"""Thirds of the training patients: whole patients, nobody twice, and those of the protocol by their numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from gmia_monai.data.cohort import Cohort, ImageRecord
from gmia_monai.data.thirds import without_third
from gmia_monai.errors import UsageError


def _cohort(names):
    return Cohort(tuple(ImageRecord(Path(f"/{name}_{i}.png"), name) for name in names for i in range(2)))


def test_numbers_of_s_fall_into_thirds_by_their_residues():
    cohort = _cohort([f"NIH{n:05d}" for n in (7, 8, 11, 14, 15, 18)])
    for third, residue in enumerate((0, 1, 4)):
        left = {int(p[3:]) % 7 for p in without_third(cohort, third).patients}
        assert left == {0, 1, 4} - {residue}
    assert without_third(cohort, None) is cohort


def test_other_names_fall_into_thirds_that_share_nobody():
    cohort = _cohort([f"p{i}" for i in range(300)])
    out = [set(cohort.patients) - set(without_third(cohort, third).patients) for third in range(3)]
    assert sum(map(len, out)) == 300 and not (out[0] & out[1] or out[1] & out[2] or out[0] & out[2])
    assert min(map(len, out)) > 70
    with pytest.raises(UsageError, match="GM-U308"):
        without_third(cohort, 3)
