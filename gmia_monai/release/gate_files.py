"""Files of the gate: what its networks know of the images that were learned from, and their calibration."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32

from gmia_monai.data.cohort import Cohort
from gmia_monai.data.threats import threat_pairs
from gmia_monai.evaluation.read import read_real
from gmia_monai.networks.known_images import KnownImages
from gmia_monai.networks.pretrained import load_recorded, save_network
from gmia_monai.release.calibration import Calibration, Surroundings, calibrate, surroundings_of
from gmia_monai.release.layout import CELLS, ODD, Layout, layout_of
from gmia_monai.release.watching import NetworkWatch
from gmia_monai.typing import PathLike

__all__ = ["CALIBRATION", "GateFigures", "calibrate_gate"]

CALIBRATION = "gate_calibration.json"
_MIN_PATIENTS = 20
_WITHIN = 0.995  # of known images, for each of the two that look for strange ones
_LEARNED, _CHOSEN_ON = "S", "V2"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GateFigures:
    """What came out.

    Attributes:
        calibration: what was written.
        sha256: of its file.
        strange: share of the images of V2 that the gate would hold as unlike the known ones; by construction about 1 %.
        odd: share of the same images, turned, inverted or cut, that it would hold.
        copies: largest similarity of a real image of V2 with one that was learned from, at the quantiles 0.5, 0.99, 1.
    """

    calibration: Calibration
    sha256: str
    strange: float
    odd: dict[str, float]
    copies: tuple[float, float, float]


def calibrate_gate(cohort: Cohort, models_dir: PathLike, image_size: int = 64, device: str = "cpu") -> GateFigures:
    """Measures the recorded networks ``gate`` and ``gate_utility`` on real images, and writes ``gate_known`` and the
    calibration beside them.

    Args:
        cohort: real images of the roles S, whose images the makers learned from, and V2, on whom thresholds are set.
        models_dir: folder of the recorded weights.
        image_size: side of the images.
        device: where networks run.

    Raises:
        IntegrityError: ``GM-W001`` … ``GM-W008`` as :func:`gmia_monai.networks.load_recorded`.
        ManifestError: ``GM-M035`` for a role with too few patients.
        UsageError: ``GM-U421`` for too few images or pairs.
    """
    folder = Path(models_dir)
    verifier, diagnostic = (load_recorded(folder, name) for name in ("gate", "gate_utility"))
    learned, chosen = (read_real(cohort.role(r, _MIN_PATIENTS), image_size) for r in (_LEARNED, _CHOSEN_ON))
    nothing = Surroundings(np.zeros(1), np.eye(1), 1.0), Layout(np.zeros(CELLS**2), 0.0)
    plain = NetworkWatch(verifier, diagnostic, *nothing, np.zeros((1, 1)), {}, device)
    embedded, features = plain.embed(learned.pixels[:, 0]), plain.features(learned.pixels[:, 0])
    around = surroundings_of(features, plain.features(chosen.pixels[:, 0]), _WITHIN)
    layout = layout_of(learned.pixels[:, 0], chosen.pixels[:, 0], _WITHIN)
    found = plain.embed(chosen.pixels[:, 0])
    pairs = threat_pairs(chosen.cohort, "T1", "matched")
    scores = np.einsum("nd,nd->n", found[pairs.first], found[pairs.second])
    strangers, same = pairs.counted & ~pairs.same, pairs.counted & pairs.same
    weigh = pairs.weight[strangers], pairs.weight[same]
    calibration = calibrate(
        scores[strangers], pairs.patient_first[strangers], scores[same], {}, image_size, weigh=weigh
    )

    known = KnownImages(features.shape[1], len(embedded), embedded.shape[1])
    values = {"mean": around.mean, "whitening": around.whitening, "limit": np.array(around.limit), "learned": embedded}
    values |= {"layout": layout.weights, "layout_bias": np.array(layout.bias)}
    for name, value in values.items():
        known.get_buffer(name).copy_(torch.as_tensor(value))
    arguments = {"feature_dim": features.shape[1], "n_learned": len(embedded), "embedding_dim": embedded.shape[1]}
    save_network(folder / "gate_known.safetensors", known, arguments, patients=learned.cohort.patients_hash)
    watch = NetworkWatch.from_weights(folder, device)
    calibration = replace(calibration, weights=dict(sorted(watch.weights.items())))
    copies = np.quantile(watch.nearest_copy(chosen.pixels[:, 0]), [0.5, 0.99, 1.0])
    strange = _held(watch, chosen.pixels[:, 0])
    odd = {name: _held(watch, np.ascontiguousarray(change(chosen.pixels[:, 0]))) for name, change in ODD.items()}
    digest = calibration.write(folder / CALIBRATION)
    _log.info("%s and gate_known.safetensors are written", CALIBRATION)
    return GateFigures(calibration, digest, strange, odd, (float(copies[0]), float(copies[1]), float(copies[2])))


def _held(watch: NetworkWatch, images: Float32[np.ndarray, "n s s"]) -> float:
    return float((watch.strangeness(images) > 1).mean())
