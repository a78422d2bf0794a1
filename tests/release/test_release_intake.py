"""Intake: every fact that the policy asks for is known and right, or the image is held or rejected with its code."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gmia_monai.dicom.decode import Decoded
from gmia_monai.dicom.source_header import SourceHeader
from gmia_monai.errors import InputError
from gmia_monai.release.intake import admit
from gmia_monai.release.policy import Intake

GOOD = SourceHeader("CR", "p", "1", "2", "3", sex="F", age_years=40, view="PA", body_part="CHEST")


def _asked(policy: Intake | None = None, **facts) -> list[str]:
    image = Decoded(np.zeros((64, 64), np.uint16), "dicom", "MONOCHROME2", 12, replace(GOOD, **facts))
    return admit(image, policy or Intake())


def test_a_frontal_chest_radiograph_of_an_adult_is_taken():
    assert _asked() == [] and _asked(kind="DX", view="AP", body_part="", age_years=18) == []


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        ({"kind": "SC"}, "GM-D031"),
        ({"body_part": "other"}, "GM-D032"),
        ({"view": "LL"}, "GM-D033"),
        ({"view": "other"}, "GM-D033"),
        ({"age_years": 17}, "GM-D034"),
    ],
)
def test_what_is_not_taken_is_rejected(facts, code):
    with pytest.raises(InputError, match=code):
        _asked(**facts)


@pytest.mark.parametrize(("facts", "code"), [({"view": ""}, "GM-H001"), ({"age_years": None}, "GM-H002")])
def test_what_is_not_known_is_held(facts, code):
    assert _asked(**facts) == [code]


def test_the_policy_says_what_becomes_of_each():
    unknown = {"view": "", "age_years": None, "body_part": ""}
    assert _asked(Intake(unknown_body_part="hold"), **unknown) == ["GM-H003", "GM-H001", "GM-H002"]
    assert _asked(Intake(unknown_age="take", unknown_view="hold"), **unknown) == ["GM-H001"]
    for part in ("unknown_body_part", "unknown_view", "unknown_age"):
        with pytest.raises(InputError, match="GM-D03"):
            _asked(Intake.model_validate({part: "reject"}), **unknown)
    assert _asked(Intake(views=["PA", "LL"]), view="LL") == []
    assert _asked(Intake(other_view="hold"), view="RL") == ["GM-H004"]
    assert _asked(Intake(under_age="hold"), age_years=3) == ["GM-H005"]
    assert _asked(Intake(min_age_years=0), age_years=0) == []


def test_secondary_captures_have_to_say_that_they_are_of_the_chest():
    policy = Intake(secondary_capture=True)
    assert _asked(policy, kind="SC") == []
    with pytest.raises(InputError, match="GM-D032"):
        _asked(policy, kind="SC", body_part="")
    with pytest.raises(InputError, match="GM-D031"):
        _asked(Intake(modalities=["CR"]), kind="DX")


def test_images_without_a_header_are_taken_by_policy_alone():
    image = Decoded(np.zeros((64, 64), np.uint16), "png", "MONOCHROME2", 8)
    with pytest.raises(InputError, match="GM-D030"):
        admit(image, Intake())
    assert admit(image, Intake(images_without_header=True)) == []
