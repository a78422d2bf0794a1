"""DP-Pix: differentially private pixelization (Fan, DBSec 2018), by its formula; nothing is learned.

The mean of every ``b x b`` cell gets Laplace noise of scale ``m / (b^2 eps)`` on [0, 1], then comes the cut to [0, 1].
That is eps-differentially private for **images that differ in at most m pixels**, for one pixel moves the mean of its
cell by at most ``1 / b^2``. It is no promise to a person, all of whose image would have to change: by group privacy
those h w pixels get ``eps ceil(h w / m)``, see :meth:`DPPix.whole_image_epsilon`, which is no protection at all at the
published settings. Cutting, enlarging and rounding to 8 bits come after the noise and cost nothing.

Settings with which PriCheXy-Net (MICCAI 2023) compares itself: 256 px, b in {2, 4, 8}, m = 1, eps = 0.1, so scales of
2.5, 0.625 and 0.156. At another image size the noise of a cell is the same, and there are fewer cells: 8 x 8 at 64 px
and b = 8.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64
from torch import Tensor

from gmia_monai.anonymizers.base import ImageAnonymizer, Outcome
from gmia_monai.data.release import RealImages
from gmia_monai.errors import UsageError
from gmia_monai.typing import PathLike

__all__ = ["DPPix", "laplace_noise"]


class DPPix(ImageAnonymizer):
    """Cell means with Laplace noise.

    The guarantee needs noise that nobody else can draw: a seed that is secret, and new for each release. The seeds of a
    benchmark are neither, and an image's seed is made from its own pixels, too, so a release made here shows what the
    noise costs and stops, and must not be given away as differentially private. It is also a statement on real
    numbers, not on floating point (Mironov, CCS 2012).

    Args:
        b: rows and columns of a cell, px.
        m: pixels in which two images may differ.
        eps: privacy loss for such images.

    Raises:
        UsageError: ``GM-U060`` for a setting outside its range.
    """

    def __init__(self, b: int = 8, m: int = 1, eps: float = 0.1) -> None:
        _check("b", b, b >= 1 and b == int(b), "a whole number of pixels, at least 1")
        _check("m", m, m >= 1 and m == int(m), "a whole number of pixels, at least 1")
        _check("eps", eps, 0.0 < eps < math.inf, "above 0")
        self.b, self.m, self.eps = int(b), int(m), float(eps)
        name = f"dp-pix b={self.b} m={self.m} eps={self.eps:g}"
        super().__init__(
            name,
            f"dp-pix {self.b} {self.m} {self.eps!r}",
            unit_size=256,
            random=True,
            description=(
                f"cells of {self.b} px, Laplace noise of scale {self.scale:g}: eps {self.eps:g} for images that differ "
                f"in at most {self.m} px; for any two images of 256 px eps {self.whole_image_epsilon(256):g}, of 64 px "
                f"{self.whole_image_epsilon(64):g}; holds for a secret, fresh seed alone"
            ),
        )

    @classmethod
    def from_weights(cls, models_dir: PathLike | None = None, **settings: float) -> DPPix:
        """As the constructor: there are no weights to read."""
        return cls(**settings)

    @property
    def scale(self) -> float:
        """Scale of the noise of a cell, ``m / (b^2 eps)``, for images in [0, 1]; its standard deviation is sqrt(2)
        times that."""
        return self.m / (self.b**2 * self.eps)

    def whole_image_epsilon(self, image_size: int) -> float:
        """Privacy loss between any two images of ``image_size`` rows and columns: ``eps ceil(h w / m)``."""
        return self.eps * math.ceil(image_size**2 / self.m)

    def figures_of(self, real: RealImages) -> dict[str, float]:
        """``epsilon`` as set, and ``whole_image_epsilon`` of images of this size."""
        return {"epsilon": self.eps, "whole_image_epsilon": self.whole_image_epsilon(real.pixels.shape[-1])}

    def anonymize_batch(
        self, images: Float[Tensor, "b 1 h w"], seeds: Sequence[int]
    ) -> tuple[Float[Tensor, "b 1 h w"], list[Outcome]]:
        """Noisy cell means in [0, 1], each as large as its cell.

        Raises:
            UsageError: ``GM-U060`` where cells do not fill the image.
        """
        h, w = images.shape[2:]
        _check("b", f"{self.b} for {h} x {w} px", h % self.b == w % self.b == 0, "a divisor of rows and columns")
        means = F.avg_pool2d(images.double(), self.b)
        noise = torch.stack([laplace_noise(means.shape[1:], self.scale, seed) for seed in seeds])
        released = (means + noise.to(means.device)).clamp(0.0, 1.0)
        released = released.repeat_interleave(self.b, dim=2).repeat_interleave(self.b, dim=3)
        return released.to(images.dtype), [Outcome()] * len(images)


def laplace_noise(shape: Sequence[int], scale: float, seed: int) -> Float64[Tensor, "..."]:
    """Draws of a Laplace distribution around 0, by the inverse of its distribution function in float64.

    Args:
        shape: of the result.
        scale: mean distance from 0, above 0.
        seed: of the draws.
    """
    uniform = torch.rand(tuple(shape), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    u = uniform.clamp_min(2.0**-54) - 0.5  # 0 would be infinitely far out
    return -scale * u.sign() * torch.log1p(-2.0 * u.abs())


def _check(name: str, got: object, usable: bool, expected: str) -> None:
    if not usable:
        raise UsageError("GM-U060", f"unusable {name} of DP-Pix", got=got, expected=expected)
