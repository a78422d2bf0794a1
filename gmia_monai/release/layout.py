"""Layout: whether an image is an upright chest that fills its square, seen from its coarse pattern of light and dark.

What networks find in an image hardly changes when it is upside down. Its pattern does: a linear classifier learned it
from radiographs beside the same radiographs turned, inverted and cut (outlier exposure: Hendrycks et al., ICLR 2019).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from jaxtyping import Float, Float32

__all__ = ["CELLS", "ODD", "Layout", "layout_of", "pattern"]

CELLS = 16
_MIN_CONTRAST = 1e-3
_STRENGTH = 0.01  # inverse regularisation

Change = Callable[[Float32[np.ndarray, "n s s"]], np.ndarray]
# What a radiograph looks like that something went wrong with before anybody saw it.
ODD: Mapping[str, Change] = MappingProxyType(
    {
        "upside down": lambda x: x[:, ::-1],
        "turned left": lambda x: np.rot90(x, 1, (1, 2)),
        "turned right": lambda x: np.rot90(x, 3, (1, 2)),
        "inverted": lambda x: 1.0 - x,
        "a quarter": lambda x: np.repeat(np.repeat(x[:, : x.shape[1] // 2, : x.shape[2] // 2], 2, 1), 2, 2),
    }
)


def pattern(images: Float32[np.ndarray, "n s s"]) -> Float[np.ndarray, "n 256"]:
    """Means of 16 by 16 cells, of mean 0 and standard deviation 1 in each image.

    Args:
        images: in [0, 1]; their side is a multiple of 16.
    """
    side = images.shape[1] // CELLS
    cells = images.astype(np.float64).reshape(len(images), CELLS, side, CELLS, side).mean(axis=(2, 4))
    flat = cells.reshape(len(images), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    found: np.ndarray = flat / np.maximum(flat.std(axis=1, keepdims=True), _MIN_CONTRAST)
    return found


@dataclass(frozen=True, eq=False)
class Layout:
    """A linear classifier of patterns.

    Attributes:
        weights: of the cells.
        bias: at which all but the chosen share of known images are below 0.
    """

    weights: Float[np.ndarray, "256"] = field(repr=False)
    bias: float

    def strangeness(self, images: Float32[np.ndarray, "n s s"]) -> Float[np.ndarray, "n"]:
        """Odds that an image is none as it should be, in units of the odds at the limit."""
        found: np.ndarray = np.exp(np.clip(pattern(images) @ self.weights + self.bias, -50.0, 50.0))
        return found


def layout_of(
    learned: Float32[np.ndarray, "n s s"], known: Float32[np.ndarray, "m s s"], within: float = 0.995
) -> Layout:
    """From radiographs as they should be, and others of other patients, which set the limit.

    Args:
        learned: upright chests.
        known: of other patients.
        within: share of ``known`` that is within the limit.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    good = pattern(learned)
    odd = [pattern(np.ascontiguousarray(change(learned[i :: len(ODD)]))) for i, change in enumerate(ODD.values())]
    patterns = np.concatenate([good, *odd])
    scaler = StandardScaler().fit(patterns)
    wrong = np.arange(len(patterns)) >= len(good)
    classifier = LogisticRegression(C=_STRENGTH, max_iter=1000).fit(scaler.transform(patterns), wrong)
    weights = classifier.coef_[0] / scaler.scale_
    limit = np.quantile(pattern(known) @ weights, within)
    return Layout(weights, -float(limit))
