"""Presence: who counts as a member, the alarm, silence on noise, and k-to-one releases."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from attack_cohorts import IMAGES_EACH, flat, judged, knowledge, real_images

from gmia_monai.attacks.attackers.frozen import FrozenAttacker
from gmia_monai.attacks.base import AttackerKnowledge, Judged
from gmia_monai.attacks.pool import AttackerPool
from gmia_monai.attacks.presence import PresenceAttack, presence_case
from gmia_monai.data.release import Release
from gmia_monai.errors import UsageError
from gmia_monai.metrics.results import RunContext


def _worst(known: AttackerKnowledge, case: Judged):
    attack = PresenceAttack(AttackerPool({"frozen": FrozenAttacker}), n_boot=60)
    attack.fit(known)
    return {r.name: r for r in attack.score(case, RunContext("x", "p"))}["presence_auc.worst.v1"]


def _averages(name: str, k: int = 3) -> Judged:
    """Means of one image of each of k patients, of the first half of the patients alone."""
    real = real_images(name)
    patients = len(real.cohort.patients) // 2
    sources = [
        tuple(IMAGES_EACH * p + i for p in range(first, first + k))
        for first in range(0, patients - k + 1, k)
        for i in range(IMAGES_EACH)
    ]
    return Judged(real, Release("means", np.stack([real.pixels[list(s)].mean(0) for s in sources]), tuple(sources)))


def test_the_image_that_is_held_is_no_source_and_half_of_a_whole_cohort_is_left_out():
    case = judged("unchanged")
    asked = presence_case(case)
    patient = case.real.cohort.patient_index
    sources = [case.release.sources[i][0] for i in asked.images]
    for (row, source), (column, query) in product(enumerate(sources), enumerate(asked.query.tolist())):
        assert asked.own[row, column] == (source == query)
    present = {int(patient[s]) for s in sources}
    assert [int(patient[q]) in present for q in asked.query] == asked.member.tolist()
    assert len(asked.query) == 24 and 6 <= asked.member.sum() <= 18
    other = presence_case(case, seed=1)
    assert not np.array_equal(asked.member, other.member) or not np.array_equal(asked.query, other.query)


def test_it_rings_on_unchanged_images_and_is_silent_on_noise():
    loud, quiet = (_worst(knowledge(system), judged(system)) for system in ("unchanged", "noise"))
    assert loud.value > 0.95 and loud.extra["members"] + loud.extra["non_members"] == 24
    assert quiet.low < 0.5 < quiet.high


def test_it_judges_releases_of_k_sources():
    known = AttackerKnowledge(real_images("s", 16), _averages("a"), _averages("v"), flat)
    found = _worst(known, _averages("t"))
    assert found.value > 0.9 and found.extra["members"] == 12
    assert presence_case(_averages("t")).own.any()


def test_a_release_of_nobody_is_refused():
    real = real_images("t")
    generated = Judged(real, Release("drawn", real.pixels[:5], ((),) * 5))
    with pytest.raises(UsageError, match="GM-U324"):
        presence_case(generated)
