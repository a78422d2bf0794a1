"""Array aliases, value ranges and axis letters, named once.

Axis letters: ``b`` images, ``h`` rows, ``w`` columns, ``layers`` inputs of the synthesis network, ``d`` feature length,
``n`` records. Images are MONOCHROME2, row-major, in [0, 1].
"""

from __future__ import annotations

from os import PathLike as _PathLike

import numpy as np
from jaxtyping import Bool, Float, Int

__all__ = ["LATENT_DIM", "MIN_IMAGE_SIZE", "BoolArray", "FloatArray", "Image2D", "IntArray", "PathLike"]

PathLike = str | _PathLike[str]
Image2D = Float[np.ndarray, "h w"]
FloatArray = Float[np.ndarray, "n"]
IntArray = Int[np.ndarray, "n"]
BoolArray = Bool[np.ndarray, "n"]

LATENT_DIM = 512
MIN_IMAGE_SIZE = 32
