"""Who is asked for: members and non-members, the image held of each, and who is left out of a whole cohort."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from attack_cohorts import judged, real_images

from gmia_monai.attacks.base import Judged
from gmia_monai.attacks.presence_cases import halves, presence_case
from gmia_monai.data.release import Release


def _mixed(name: str, k: int, seed: int) -> Judged:
    """Means of k random images of a whole cohort: patients are in several groups."""
    real = real_images(name)
    order = np.random.default_rng(seed).permutation(len(real))
    sources = [tuple(int(i) for i in part) for part in order.reshape(-1, k)]
    return Judged(real, Release("means", np.stack([real.pixels[list(s)].mean(0) for s in sources]), tuple(sources)))


def test_the_image_that_is_held_is_no_source_and_half_of_a_whole_cohort_is_left_out():
    case = judged("unchanged")
    asked = presence_case(case)
    cohort = case.real.cohort
    held = [int(np.flatnonzero((case.real.pixels == image).all(axis=(1, 2, 3)))[0]) for image in asked.held]
    assert [cohort[q].patient_id for q in held] == list(asked.patients)
    sources = [case.release.sources[i][0] for i in asked.images]
    for (row, source), (column, query) in product(enumerate(sources), enumerate(held)):
        assert asked.own[row, column] == (source == query)
    present = {cohort[s].patient_id for s in sources}
    assert [p in present for p in asked.patients] == asked.member.tolist()
    assert len(asked.patients) == 24 and asked.member.sum() == 12
    other = presence_case(case, seed=1)
    assert not np.array_equal(asked.member, other.member) or not np.array_equal(asked.held, other.held)


@pytest.mark.parametrize("k", [2, 6, 8])
def test_of_groups_that_share_patients_something_remains(k):
    whole = _mixed("t", k, 0)
    case = presence_case(whole)
    sources = [set(s) for i, s in enumerate(whole.release.sources) if i in case.images]
    patient = np.array([r.patient_id for r in whole.real.cohort])
    for column, (name, member) in enumerate(zip(case.patients, case.member, strict=True)):
        looked_at = [s for row, s in enumerate(sources) if not case.own[row, column]]
        assert any(name in patient[list(s)] for s in looked_at) == member
        assert member or not any(name in patient[list(s)] for s in sources)
    assert case.member.sum() >= 2 and (~case.member).sum() >= 8


def test_halves_share_nobody():
    real = real_images("m")
    one, two = halves(real)
    assert not set(one.cohort.patients) & set(two.cohort.patients) and len(one) + len(two) == len(real)
    assert [len(part.cohort.patients) for part in halves(real, seed=1)] == [12, 12]
