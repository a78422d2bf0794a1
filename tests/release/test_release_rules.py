"""The gate of a policy: each setting moves the limit that it names, and no other one."""

from __future__ import annotations

import pytest

from gmia_monai.release.calibration import Calibration
from gmia_monai.release.policy import Checks
from gmia_monai.release.rules import gate_of

MEASURED = Calibration({}, {"0.01": (-0.2, 0.3), "0.1": (-0.1, 0.1)}, (0.02, 0.01, 0.03), 0.9, 100, 5000, 50, 64)
GOOD = {
    "identity": [0.0], "utility_drift": 0.1, "contrast": 0.2, "upscale": 16.0, "text": 0.0, "header": 0.0, "copy": 0.2,
    "pixels": 0.0,
}  # fmt: skip


def test_a_good_image_passes_the_defaults():
    assert gate_of(Checks(), MEASURED).judge(GOOD).released


@pytest.mark.parametrize(
    ("setting", "value", "check", "score", "code"),
    [
        ("identity_share", 0.1, "identity", [0.2], "GM-H101"),
        ("identity_share", 0.1, "identity", [-0.15], "GM-H102"),
        ("max_utility_drift", 0.05, "utility_drift", 0.1, "GM-H103"),
        ("min_contrast", 0.3, "contrast", 0.2, "GM-H104"),
        ("max_upscale", 8.0, "upscale", 16.0, "GM-H105"),
        ("max_copy_cos", 0.1, "copy", 0.2, "GM-H108"),
    ],
)
def test_a_setting_moves_its_limit(setting, value, check, score, code):
    scores = GOOD | {check: score}
    assert gate_of(Checks(), MEASURED).judge(scores).released
    assert gate_of(Checks.model_validate({setting: value}), MEASURED).judge(scores).codes == (code,)


@pytest.mark.parametrize(("check", "code"), [("text", "GM-H106"), ("header", "GM-H107"), ("pixels", "GM-H109")])
def test_one_finding_is_enough(check, code):
    assert gate_of(Checks(), MEASURED).judge(GOOD | {check: 1.0}).codes == (code,)
