"""Rules of the gate, from what a policy asks for and what was measured of the networks that judge."""

from __future__ import annotations

from gmia_monai.release.calibration import Calibration
from gmia_monai.release.gate import Bounds, Gate
from gmia_monai.release.policy import Checks

__all__ = ["gate_of"]


def gate_of(checks: Checks, calibration: Calibration) -> Gate:
    """The gate of a policy.

    Args:
        checks: of the policy.
        calibration: of the networks that judge.

    Raises:
        UsageError: ``GM-U422`` for a share of strangers that was not measured.
    """
    nothing = Bounds(high=0.0)
    return Gate(
        {
            "identity": calibration.bounds(checks.identity_share),
            "utility_drift": Bounds(high=checks.max_utility_drift),
            "contrast": Bounds(low=checks.min_contrast),
            "upscale": Bounds(low=0.0) if checks.max_upscale is None else Bounds(0.0, checks.max_upscale),
            "text": nothing,
            "header": nothing,
            "copy": Bounds(high=checks.max_copy_cos),
            "pixels": nothing,
        }
    )
