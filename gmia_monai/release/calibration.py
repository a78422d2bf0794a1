"""Calibration of the gate: where scores of strangers lie, and what known images look like, measured on real ones.

Strangers are pairs of different patients of V2, of one folder, sex and view, as attackers' negatives are. An image that
is nearer to its patient than strangers are can be found; one that is further as well. One file, of numbers alone, says
how often either happens by chance, for the very networks that it was measured with.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from gmia_monai.errors import IntegrityError, UsageError
from gmia_monai.metrics.intervals import patient_bootstrap
from gmia_monai.release.gate import Bounds
from gmia_monai.typing import PathLike
from gmia_monai.weights import sha256_of

__all__ = ["Calibration", "Surroundings", "calibrate", "read_calibration", "surroundings_of"]

_SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
_RIDGE = 1e-3


@dataclass(frozen=True, eq=False)
class Surroundings:
    """Where features of known images lie: a Gaussian, and how far from it known images are.

    Attributes:
        mean: of the features.
        whitening: takes the features' correlations away.
        limit: distance that 99 of 100 known images stay within; the unit of strangeness.
    """

    mean: Float[np.ndarray, "d"] = field(repr=False)
    whitening: Float[np.ndarray, "d d"] = field(repr=False)
    limit: float

    def strangeness(self, features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n"]:
        """Mahalanobis distance in units of ``limit`` (Lee et al., NeurIPS 2018, with one class)."""
        distance: np.ndarray = np.linalg.norm((features - self.mean) @ self.whitening, axis=1)
        return distance / self.limit


def surroundings_of(
    learned: Float[np.ndarray, "n d"], known: Float[np.ndarray, "m d"], within: float = 0.99
) -> Surroundings:
    """From features of images that networks learned from, and of others of the same kind, which set the limit.

    Args:
        learned: more of them than there are features.
        known: of other patients.
        within: share of ``known`` that is within the limit.

    Raises:
        UsageError: ``GM-U421`` for too few images.
    """
    if len(learned) <= learned.shape[1] or len(known) < 50:
        raise UsageError(
            "GM-U421", "too few images to know others by", got=f"{len(learned)}, {len(known)}",
            expected=f"more than {learned.shape[1]}, at least 50",
        )  # fmt: skip
    mean = learned.mean(axis=0)
    covariance = np.cov(learned, rowvar=False)
    covariance += _RIDGE * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    values, vectors = np.linalg.eigh(covariance)
    whitening = vectors / np.sqrt(values)
    distance = np.linalg.norm((known - mean) @ whitening, axis=1)
    return Surroundings(mean, whitening, float(np.quantile(distance, within)))


@dataclass(frozen=True)
class Calibration:
    """What was measured, for the networks of which it was measured.

    Attributes:
        weights: SHA-256 of each network that judges.
        limits: for each share of strangers that is cut off at either end, the lowest and the highest score left.
        held_strangers: share of the strangers of other patients of V2 that the limits of 1 % hold, with its interval.
        held_same: share of real pairs of one person that they hold.
        n_patients, n_strangers, n_same: what it rests on.
        image_size: side of the images.
        protocol: version of the evaluation protocol, whose role V2 it was measured on.
    """

    weights: dict[str, str]
    limits: dict[str, tuple[float, float]]
    held_strangers: tuple[float, float, float]
    held_same: float
    n_patients: int
    n_strangers: int
    n_same: int
    image_size: int
    protocol: str = "v1"

    def bounds(self, share: float) -> Bounds:
        """Limits of identity scores at a share of strangers, between the measured ones where it is between.

        Raises:
            UsageError: ``GM-U422`` for a share that was not measured.
        """
        shares = sorted(float(name) for name in self.limits)
        if not shares[0] <= share <= shares[-1]:
            raise UsageError(
                "GM-U422", "no calibration for that share", got=share, expected=f"{shares[0]} to {shares[-1]}"
            )
        at = [math.log(s) for s in shares]
        low, high = (
            float(np.interp(math.log(share), at, [self.limits[_named(s)][end] for s in shares])) for end in (0, 1)
        )
        return Bounds(low, high)

    @property
    def rates(self) -> dict[str, float]:
        """How often the limits of 1 % hold by chance, and what that rests on, for ledger and report."""
        names = ("held_strangers", "held_strangers_low", "held_strangers_high")
        counts = {name: float(getattr(self, name)) for name in ("n_patients", "n_strangers", "n_same")}
        return dict(zip(names, self.held_strangers, strict=True)) | {"held_same": self.held_same} | counts

    def write(self, path: PathLike) -> str:
        """Writes the file; returns its SHA-256."""
        from gmia_monai.dicom.atomic import atomic_path

        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(asdict(self), indent=2, sort_keys=True, allow_nan=False) + "\n")
        return sha256_of(path)


def calibrate(
    strangers: Float[np.ndarray, "n"],
    first: np.ndarray,
    same: Float[np.ndarray, "m"],
    weights: dict[str, str],
    image_size: int,
    n_boot: int = 500,
    weigh: tuple[Float[np.ndarray, "n"], Float[np.ndarray, "m"]] | None = None,
) -> Calibration:
    """Limits from half of the patients, and how often they hold strangers of the other half.

    Args:
        strangers: scores of pairs of different patients.
        first: patient of the first image of each, as numbers; halves are of patients.
        same: scores of pairs of one patient.
        weights: of the networks that gave the scores.
        image_size: side of their images.
        n_boot: bootstrap resamples of patients.
        weigh: weights of the pairs of strangers and of one patient, so that patients count alike; None: pairs do.

    Raises:
        UsageError: ``GM-U421`` for too few pairs, or scores that are no numbers.
    """
    patients = np.unique(first)
    fewest = math.ceil(20 / min(_SHARES))
    if len(strangers) < fewest or len(patients) < 20 or not len(same) or not np.isfinite([*strangers, *same]).all():
        raise UsageError(
            "GM-U421", "too few pairs for limits", got=f"{len(strangers)} of {len(patients)} patients",
            expected=f"at least {fewest} of 20, all finite",
        )  # fmt: skip
    apart, alike = (np.ones(len(strangers)), np.ones(len(same))) if weigh is None else weigh
    limits = {_named(s): _ends(strangers, s, apart) for s in _SHARES}
    half = np.isin(first, patients[::2])
    low, high = _ends(strangers[half], 0.01, apart[half])
    outside = ((strangers < low) | (strangers > high)).astype(float)[~half]
    held = patient_bootstrap(
        lambda w: float(np.average(outside, weights=w * apart[~half])), first[~half], n_boot, 0, bounds=(0.0, 1.0)
    )
    ends = limits[_named(0.01)]
    return Calibration(
        dict(sorted(weights.items())),
        limits,
        (round(held.value, 6), round(held.low, 6), round(held.high, 6)),
        round(float(np.average((same < ends[0]) | (same > ends[1]), weights=alike)), 6),
        len(patients),
        len(strangers),
        len(same),
        image_size,
    )


def read_calibration(path: PathLike, weights: dict[str, str]) -> tuple[Calibration, str]:
    """A calibration and the SHA-256 of its file.

    Args:
        path: the file.
        weights: of the networks that are to judge; those that were measured must be the same.

    Raises:
        IntegrityError: ``GM-W307`` where there is none, it is damaged, or of other networks.
    """
    path = Path(path)
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found["limits"] = {str(k): (float(v[0]), float(v[1])) for k, v in found["limits"].items()}
        found["held_strangers"] = tuple(float(x) for x in found["held_strangers"])
        calibration = Calibration(**found)
        for share in calibration.limits:
            calibration.bounds(float(share))
    except (OSError, ValueError, TypeError, KeyError, IndexError, RecursionError, UsageError):
        raise IntegrityError(
            "GM-W307", "no calibration of the gate", got=path.name, next_step="calibrate the gate"
        ) from None
    if calibration.weights != dict(sorted(weights.items())):
        raise IntegrityError(
            "GM-W307",
            "the calibration of the gate is of other networks",
            next_step="calibrate the gate with the networks that judge",
        )
    return calibration, sha256_of(path)


def _ends(scores: Float[np.ndarray, "n"], share: float, weights: Float[np.ndarray, "n"]) -> tuple[float, float]:
    low, high = np.quantile(scores, [share, 1.0 - share], weights=weights, method="inverted_cdf")
    return round(float(low), 6), round(float(high), 6)


def _named(share: float) -> str:
    return f"{share:g}"
