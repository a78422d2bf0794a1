"""Linear maps from embeddings of released images to embeddings of the real images behind them, in closed form.

Ridge regression on the attacker's own releases undoes what a system does to an embedding as far as that is linear, a
turn to the far side included. The real side is reduced to the directions in which people differ more than their images
do (Fisher's discriminants with a shrunken within-person covariance).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int
from scipy.linalg import eigh

__all__ = ["AffineMap", "LinearMaps", "linear_maps"]

_SHRINKAGE = (0.3, 3.0)  # of the mean variance within persons
_DIRECTIONS = (64, 128, 256)
_RIDGE = (0.1, 1.0, 10.0)  # of the mean squared length along one axis of the released embeddings


@dataclass(frozen=True, eq=False)
class AffineMap:
    """Unit embeddings, less a middle, times a matrix.

    Attributes:
        middle: what is taken away.
        weight: ``k`` at most ``d``.
    """

    middle: Float64[np.ndarray, "d"]
    weight: Float64[np.ndarray, "d k"]

    def __call__(self, embeddings: Float[np.ndarray, "n d"]) -> Float64[np.ndarray, "n k"]:
        """Embeddings of any length, mapped."""
        return (_unit(embeddings.astype(np.float64)) - self.middle) @ self.weight


@dataclass(frozen=True, eq=False)
class LinearMaps:
    """Maps of either side into one space, where the cosine is taken."""

    released: AffineMap
    real: AffineMap


def linear_maps(
    training: Float[np.ndarray, "t d"],
    person: Int[np.ndarray, "t"],
    released: Float[np.ndarray, "a d"],
    behind: Float[np.ndarray, "a d"],
) -> Iterator[LinearMaps]:
    """The maps of each setting.

    Args:
        training: embeddings of real images.
        person: whom each of them shows.
        released: embeddings of released images.
        behind: embeddings of the real image behind each of them.
    """
    training, released, behind = (_unit(x.astype(np.float64)) for x in (training, released, behind))
    middle, middle_released = training.mean(0), released.mean(0)
    u, s, vt = np.linalg.svd(released - middle_released, full_matrices=False)
    dims = training.shape[1]
    scale = float(np.square(s).sum()) / dims
    for shrinkage in _SHRINKAGE:
        axes = _discriminants(training - middle, person, shrinkage)
        for n in dict.fromkeys(min(n, dims) for n in _DIRECTIONS):
            project = axes[:, :n]
            target = u.T @ (behind - middle) @ project
            for ridge in _RIDGE:
                weight = vt.T @ (target * (s / (np.square(s) + ridge * scale))[:, None])
                yield LinearMaps(AffineMap(middle_released, weight), AffineMap(middle, project))


def _discriminants(centred: Float64[np.ndarray, "t d"], person: Int[np.ndarray, "t"], shrinkage: float) -> np.ndarray:
    """Directions, the one in which people differ most beside their own images first, shape ``[d, d]``."""
    dims = centred.shape[1]
    _, member, count = np.unique(person, return_inverse=True, return_counts=True)
    means = np.zeros((len(count), dims))
    np.add.at(means, member, centred)
    inner = (centred - (means / count[:, None])[member])[count[member] > 1]
    within = inner.T @ inner / max(1, len(inner) - int((count > 1).sum()))
    total = centred.T @ centred / len(centred)
    level = float(np.trace(within)) / dims or 1e-12
    values, axes = eigh(total - within, within + shrinkage * level * np.eye(dims))
    return axes[:, np.argsort(-values)]


def _unit(vectors: Float64[np.ndarray, "n d"]) -> Float64[np.ndarray, "n d"]:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
