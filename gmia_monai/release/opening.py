"""Opening: the workshop of a release from a policy, a folder of weights and a key, for this process or for another."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from pathlib import Path

import torch

import gmia_monai
from gmia_monai.dicom.text import TextDetector
from gmia_monai.errors import IntegrityError
from gmia_monai.networks.pretrained import load_recorded
from gmia_monai.release.batch import BatchAttack
from gmia_monai.release.calibration import read_calibration
from gmia_monai.release.gate_files import CALIBRATION
from gmia_monai.release.parts import Parts
from gmia_monai.release.places import Places
from gmia_monai.release.policy import Batch, Policy
from gmia_monai.release.redrawing import SystemRedraw
from gmia_monai.release.rules import gate_of
from gmia_monai.release.watching import NetworkWatch
from gmia_monai.release.workshop import Workshop
from gmia_monai.weights import read_index

__all__ = ["Opening", "open_parts"]

_ATTACKER = "arcface"


def open_parts(policy: Policy, models_dir: Path, device: str = "cpu") -> Parts:
    """Networks, detector and gate of a policy.

    Raises:
        UsageError: ``GM-U407`` where a network that judges has a part in making images, ``GM-U419``, ``GM-U420`` for a
            system that cannot be used, ``GM-U422`` for a share of strangers that was not measured.
        IntegrityError: ``GM-W001`` … ``GM-W008`` for weights, ``GM-W307`` for the calibration of the gate, ``GM-W310``
            where it is of another image size.
        ResourceError: ``GM-R089`` without a detector of text.
    """
    detector = TextDetector(tuple(policy.text.markers))
    _ = detector.path  # missing: nothing else is worth the wait
    watch = NetworkWatch.from_weights(models_dir, device)
    calibration, digest = read_calibration(models_dir / CALIBRATION, watch.weights)
    if calibration.image_size != policy.system.image_size:
        raise IntegrityError(
            "GM-W310",
            "the gate was calibrated at another image size",
            got=calibration.image_size,
            expected=policy.system.image_size,
            next_step="calibrate the gate at the size of the system, or change system.image_size",
        )
    redraw = SystemRedraw.from_policy(policy, models_dir, device)
    gate = gate_of(policy.checks, calibration)
    return Parts(redraw, watch, detector, gate, digest, calibration.rates, _batch(policy.batch, models_dir, device))


def _batch(batch: Batch, models_dir: Path, device: str) -> BatchAttack | None:
    """The attack on the whole release; its network has to be what was recorded before hours are spent."""
    if batch.attack == "off":
        return None
    load_recorded(models_dir, _ATTACKER)
    weights = models_dir / read_index(models_dir)[_ATTACKER]["file"]
    return BatchAttack(weights, batch.max_auc, batch.min_patients, batch.folds, batch.steps, device=device)


@dataclass(frozen=True)
class Opening:
    """Opens workshops, all alike.

    Attributes:
        key: of the project; it goes to other processes through pipes, never as an argument.
        policy: what may leave, and how.
        places: folders.
        models_dir: recorded weights.
        device: where networks run.
    """

    key: bytes = field(repr=False)
    policy: Policy
    places: Places
    models_dir: Path
    device: str = "cpu"

    def __call__(self) -> Workshop:
        """A workshop; one thread, so that sums do not hang on how many there are.

        Raises:
            GmiaError: as :func:`open_parts`.
        """
        torch.set_num_threads(1)
        parts = open_parts(self.policy, self.models_dir, self.device)
        seed = int.from_bytes(hmac.new(self.key, b"seed of the release", hashlib.sha256).digest()[:7], "big")
        return Workshop(self.key, self.policy, self.places, parts, seed, gmia_monai.__version__)
