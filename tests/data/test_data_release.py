"""Releases: kinds, sources, hashes, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from attack_cohorts import real_images

from gmia_monai.data.release import POLICIES, Convergence, RealImages, Release
from gmia_monai.errors import UsageError

REAL = real_images("t", 4)
PIXELS = REAL.pixels[:3]


def test_kinds_by_the_number_of_sources():
    assert Release("x", PIXELS, ((0,), (1,), (2,))).kind == "one_to_one"
    assert Release("x", PIXELS, ((0, 3), (1,), (2,))).kind == "k_to_one"
    assert Release("x", PIXELS, ((), (), ())).kind == "generated"


def test_sources_lead_to_images_and_patients():
    release = Release("x", PIXELS, ((5,), (0, 3), (5,)))
    assert release.image_of_source == {5: 0}
    assert release.source_patients(REAL.cohort) == [{1}, {0, 1}, {1}]
    with pytest.raises(UsageError, match="GM-U303"):
        release.only_source()
    assert Release("x", PIXELS, ((5,), (0,), (4,))).only_source().tolist() == [5, 0, 4]


def test_the_hash_is_of_pixels_and_sources():
    release = Release("x", PIXELS, ((0,), (1,), (2,)))
    same = Release("other name", PIXELS.copy(), ((0,), (1,), (2,)))
    moved = Release("x", PIXELS, ((0,), (2,), (1,)))
    brighter = release.with_pixels(np.minimum(PIXELS + np.float32(0.01), 1))
    assert release.content_hash == same.content_hash
    assert len({release.content_hash, moved.content_hash, brighter.content_hash}) == 3


def test_what_does_not_fit_is_refused():
    with pytest.raises(UsageError, match="GM-U300"):
        RealImages(REAL.cohort, PIXELS)
    with pytest.raises(UsageError, match="GM-U301"):
        Release("x", PIXELS, ((0,), (1,)))
    with pytest.raises(UsageError, match="GM-U301"):
        Release("x", PIXELS, ((0,), (1,), (2,)), labels=np.zeros((3, 2)), findings=("Mass",))
    for wrong in (2.0, np.nan):
        with pytest.raises(UsageError, match="GM-U302"):
            Release("x", np.full_like(PIXELS, wrong), ((0,), (1,), (2,)))


def test_a_policy_is_one_of_three_or_none():
    for policy in ("", *POLICIES):
        assert Release("x", PIXELS, ((0,), (1,), (2,)), policy).policy == policy
    with pytest.raises(UsageError, match="GM-U307.*pseudonymus.*k_anonymous"):
        Release("x", PIXELS, ((0,), (1,), (2,)), "pseudonymus")


def test_convergence_is_of_each_image_and_of_these_pixels():
    found = Convergence(np.ones(3, bool), np.arange(3), {"lr": 0.1})
    release = Release("x", PIXELS, ((0,), (1,), (2,)), convergence=found)
    assert release.content_hash == Release("x", PIXELS, ((0,), (1,), (2,))).content_hash
    assert release.with_pixels(PIXELS).convergence is None
    with pytest.raises(UsageError, match="GM-U301"):
        Release("x", PIXELS[:2], ((0,), (1,)), convergence=found)


def test_taken_images_keep_their_sources_labels_and_convergence():
    found = Convergence(np.array([True, False, True]), np.array([5, 6, 7]), {"lr": 0.1})
    labels = np.array([[0.0], [1.0], [2.0]])
    known = {"labels": labels, "findings": ("Mass",), "convergence": found}
    release = Release("x", PIXELS, ((0,), (1, 3), (2,)), "pseudonymous", **known)
    taken = release.take([2, 1])
    np.testing.assert_array_equal(taken.pixels, PIXELS[[2, 1]])
    assert taken.sources == ((2,), (1, 3)) and taken.policy == "pseudonymous" and taken.findings == ("Mass",)
    assert taken.labels.tolist() == [[2.0], [1.0]]
    assert taken.convergence.converged.tolist() == [True, False] and taken.convergence.steps.tolist() == [7, 6]
    assert taken.convergence.settings == {"lr": 0.1}
    assert len(Release("x", PIXELS, ((), (), ())).take([]).pixels) == 0


def test_the_repr_names_nobody():
    assert "t0" not in repr(REAL) and "t0" not in repr(Release("x", PIXELS, ((0,), (1,), (2,))))
