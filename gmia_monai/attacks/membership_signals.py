"""What may betray that a system has learned from an image: its error on the image, and images it draws near to it.

Every signal is higher where the image is more likely a training image.

- *loss*: how near the released image comes to its own source (Yeom et al., "Privacy risk in machine learning", CSF
  2018), on pixels and under the system's own encoder; *calibrated* by models that have never seen the image, since some
  images are hard for every model (Watson et al., "On the importance of difficulty calibration", ICLR 2022).
- *nearest*: how near the image lies to any released image that was not made from its patient (Hilprecht et al., PoPETs
  2019; Chen et al., "GAN-Leaks", CCS 2020); *calibrated* by how near that released image is to people in general.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from gmia_monai.attacks.base import Judged, Pixels

__all__ = ["PAIR_FEATURES", "Pool", "difficulty", "nearest_released", "pair_features"]

_CHUNK = 256
_USUAL = 3
_FLOOR = 1e-8
_FURTHEST = -1.0

PAIR_FEATURES = ("log_mse", "log_mae", "log_largest", "log_edges", "log_coarse", "correlation", "log_contrast")


def pair_features(real: Pixels, output: Pixels) -> Float[ndarray, "n 7"]:
    """How a system's output differs from its input, in the columns :data:`PAIR_FEATURES`.

    Logarithms of the mean squared and absolute error, of its 99 % quantile, of the error of differences between
    neighbours and of means of 4 x 4 pixels; the correlation; the logarithm of the ratio of standard deviations.
    """
    parts = [_pair_features(real[i : i + _CHUNK, 0], output[i : i + _CHUNK, 0]) for i in range(0, len(real), _CHUNK)]
    return np.concatenate(parts) if parts else np.zeros((0, len(PAIR_FEATURES)))


def _pair_features(x: Float[ndarray, "n h w"], y: Float[ndarray, "n h w"]) -> Float[ndarray, "n 7"]:
    x, y = x.astype(np.float64), y.astype(np.float64)
    error = y - x
    n, h, w = error.shape
    square = np.square(error).mean(axis=(1, 2))
    edges = np.square(np.diff(error, axis=1)).mean(axis=(1, 2)) + np.square(np.diff(error, axis=2)).mean(axis=(1, 2))
    coarse = error[:, : h // 4 * 4, : w // 4 * 4].reshape(n, h // 4, 4, w // 4, 4).mean(axis=(2, 4))
    spread = [image.std(axis=(1, 2)) for image in (x, y)]
    centred = [image - image.mean(axis=(1, 2), keepdims=True) for image in (x, y)]
    correlation = (centred[0] * centred[1]).mean(axis=(1, 2)) / np.maximum(spread[0] * spread[1], _FLOOR)
    return np.stack(
        [
            np.log(square + _FLOOR),
            np.log(np.abs(error).mean(axis=(1, 2)) + _FLOOR),
            np.log(np.quantile(np.abs(error).reshape(n, -1), 0.99, axis=1) + _FLOOR),
            np.log(edges + _FLOOR),
            np.log(np.square(coarse).mean(axis=(1, 2)) + _FLOOR),
            correlation,
            np.log((spread[1] + _FLOOR) / (spread[0] + _FLOOR)),
        ],
        axis=1,
    )


def difficulty(log_errors: Float[ndarray, "m n"], learned: Bool[ndarray, "m n"]) -> Float[ndarray, "n"]:
    """Mean logarithm of the error of the models that did not learn from an image.

    Args:
        log_errors: of each model on each image.
        learned: whether the model learned from it; each image has a model that did not.
    """
    return (log_errors * ~learned).sum(axis=0) / (~learned).sum(axis=0)


@dataclass(frozen=True, eq=False)
class Pool:
    """Released images of several cohorts.

    Attributes:
        pixels: the images.
        made_from: identifier of a patient to the positions of the images that were made from an image of theirs.
    """

    pixels: Pixels = field(repr=False)
    made_from: Mapping[str, Sequence[int]] = field(repr=False, default_factory=dict)

    @classmethod
    def of(cls, parts: Sequence[Judged]) -> Pool:
        """All released images of the parts; a release that several parts hold, as where images have no sources, counts
        once."""
        made_from: dict[str, list[int]] = {}
        place = 0
        parts = list({part.release.content_hash: part for part in parts}.values())
        for part in parts:
            names = part.real.cohort.patients
            for patients in part.release.source_patients(part.real.cohort):
                for p in patients:
                    made_from.setdefault(names[p], []).append(place)
                place += 1
        return cls(np.concatenate([part.release.pixels for part in parts]), made_from)

    def drawn(self, n: int, seed: int) -> Pool:
        """Some of the images, drawn at random; all where there are no more."""
        kept = np.random.default_rng(seed).permutation(len(self.pixels))[:n].tolist()
        place = {image: k for k, image in enumerate(kept)}
        made_from = {name: [place[i] for i in images if i in place] for name, images in self.made_from.items()}
        return Pool(self.pixels[kept], made_from)


def nearest_released(
    candidates: Float[ndarray, "n d"],
    patients: Sequence[str],
    released: Float[ndarray, "m d"],
    made_from: Mapping[str, Sequence[int]],
    reference: Float[ndarray, "r d"],
) -> tuple[Float[ndarray, "n"], Float[ndarray, "n"]]:
    """Cosine with the nearest released image, and the same above what is usual for that released image.

    Released images that were made from an image of the same patient are not looked at: how near those are says who the
    patient is, not whether the system has learned from them. Usual is the mean cosine of a released image with the
    three nearest reference images.

    Args:
        candidates: unit features of the images asked about.
        patients: identifier of the patient of each.
        released: unit features of the released images.
        made_from: as in :class:`Pool`.
        reference: unit features of real images of people who are neither in the training set nor asked about.
    """
    usual = np.concatenate(
        [
            np.sort(released[i : i + _CHUNK] @ reference.T, axis=1)[:, -_USUAL:].mean(axis=1)
            for i in range(0, len(released), _CHUNK)
        ]
    )
    nearest, calibrated = np.empty(len(candidates)), np.empty(len(candidates))
    for start in range(0, len(candidates), _CHUNK):
        rows = slice(start, start + _CHUNK)
        similarity = candidates[rows] @ released.T
        for row, patient in enumerate(patients[rows]):
            similarity[row, list(made_from.get(patient, ()))] = _FURTHEST
        nearest[rows] = similarity.max(axis=1)
        calibrated[rows] = (similarity - usual).max(axis=1)
    return nearest, calibrated
