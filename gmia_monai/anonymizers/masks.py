"""Systems without learning: black boxes, blur, a coarser grid, and a random warp.

``BlackBoxes`` is what is often done to radiographs before they are published: metadata are removed, and boxes cover
where side markers and burned-in text stand. The others are the references that a learned system has to beat at equal
strength: a warp is only worth its training if a random one of the same size does less.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from monai.networks.layers import separable_filtering
from torch import Tensor

from gmia_monai.anonymizers.base import ImageAnonymizer, Outcome
from gmia_monai.errors import UsageError
from gmia_monai.networks.deformation import gaussian_taps

__all__ = ["BlackBoxes", "Blur", "Downsampled", "RandomWarp"]

_CONTROL_POINTS = 8


class BlackBoxes(ImageAnonymizer):
    """Black boxes in the four corners; the rest of the image is left as it is.

    Files of one patient keep one pseudonym in this practice, so the policy is ``pseudonymous``.

    Args:
        height: rows of a box, as a share of the image's; in (0, 0.5].
        width: columns of a box, as a share of the image's; in (0, 0.5].

    Raises:
        UsageError: ``GM-U078`` for a share outside its range.
    """

    def __init__(self, height: float = 0.12, width: float = 0.25) -> None:
        for name, share in {"height": height, "width": width}.items():
            _check(f"{name} of a black box", share, 0.0 < share <= 0.5, "above 0, at most 0.5")
        super().__init__("black boxes", f"black boxes {height!r} {width!r}", "pseudonymous", unit_size=256)
        self.height, self.width = height, width

    def anonymize_batch(
        self, images: Float[Tensor, "b 1 h w"], seeds: Sequence[int]
    ) -> tuple[Float[Tensor, "b 1 h w"], list[Outcome]]:
        """The images, 0 within the boxes; a box covers a pixel that it only cuts."""
        h, w = images.shape[2:]
        rows, columns = math.ceil(self.height * h), math.ceil(self.width * w)
        kept = images.clone()
        for row in (slice(0, rows), slice(h - rows, h)):
            for column in (slice(0, columns), slice(w - columns, w)):
                kept[:, :, row, column] = 0.0
        return kept, [Outcome()] * len(images)


class Blur(ImageAnonymizer):
    """Gaussian blur, edges repeated.

    Args:
        sigma_px: standard deviation, above 0; the kernel ends at 4 of them.

    Raises:
        UsageError: ``GM-U078`` for one that is not.
    """

    def __init__(self, sigma_px: float = 2.0) -> None:
        _check("sigma_px of a blur", sigma_px, 0.0 < sigma_px < math.inf, "above 0")
        super().__init__(f"blur sigma={sigma_px:g}", f"blur {sigma_px!r}", unit_size=256)
        self.sigma_px = sigma_px

    def anonymize_batch(
        self, images: Float[Tensor, "b 1 h w"], seeds: Sequence[int]
    ) -> tuple[Float[Tensor, "b 1 h w"], list[Outcome]]:
        """Blurred images in [0, 1]."""
        return _smooth(images, self.sigma_px, math.ceil(4 * self.sigma_px)), [Outcome()] * len(images)


class Downsampled(ImageAnonymizer):
    """Means of cells, then bilinear back to the size that the image had.

    Args:
        factor: rows and columns of a cell, px, at least 2.

    Raises:
        UsageError: ``GM-U078`` for another factor.
    """

    def __init__(self, factor: int = 4) -> None:
        _check("factor of downsampling", factor, factor >= 2 and factor == int(factor), "a whole number, at least 2")
        super().__init__(f"downsampled {int(factor)}", f"downsampled {int(factor)}", unit_size=256)
        self.factor = int(factor)

    def anonymize_batch(
        self, images: Float[Tensor, "b 1 h w"], seeds: Sequence[int]
    ) -> tuple[Float[Tensor, "b 1 h w"], list[Outcome]]:
        """Coarser images in [0, 1].

        Raises:
            UsageError: ``GM-U078`` where cells do not fill the image.
        """
        h, w = images.shape[2:]
        fits = h % self.factor == w % self.factor == 0
        _check("factor of downsampling", f"{self.factor} for {h} x {w} px", fits, "a divisor of rows and columns")
        coarse = F.avg_pool2d(images, self.factor)
        enlarged = F.interpolate(coarse, size=(h, w), mode="bilinear", align_corners=False)
        return enlarged, [Outcome()] * len(images)


class RandomWarp(ImageAnonymizer):
    """A smooth random displacement, as large as PriCheXy-Net's may be (MICCAI 2023): at most ``mu`` along each axis, in
    units in which the image reaches from -1 to 1.

    The field is drawn at 8 x 8 control points, enlarged, smoothed by the kernel that PriCheXy-Net uses (9 x 9, sigma
    2 px, edges repeated) and scaled until its largest component is ``mu``, in every image.

    Args:
        mu: largest displacement, above 0; 0.001, 0.005 and 0.01 are published, so 0.13, 0.64 and 1.28 px at 256 px.

    Raises:
        UsageError: ``GM-U078`` for a ``mu`` outside of 0 to 1.
    """

    def __init__(self, mu: float = 0.01) -> None:
        _check("mu of a random warp", mu, 0.0 < mu <= 1.0, "above 0, at most 1")
        super().__init__(f"random warp mu={mu:g}", f"random warp {mu!r}", unit_size=256, random=True)
        self.mu = mu

    def anonymize_batch(
        self, images: Float[Tensor, "b 1 h w"], seeds: Sequence[int]
    ) -> tuple[Float[Tensor, "b 1 h w"], list[Outcome]]:
        """Warped images in [0, 1]: bilinear, edges repeated."""
        h, w = images.shape[2:]
        field = torch.stack([self.displacement(h, w, seed) for seed in seeds]).to(images)
        y, x = torch.meshgrid(torch.linspace(-1, 1, h), torch.linspace(-1, 1, w), indexing="ij")
        grid = torch.stack([x, y], dim=-1).to(images) + field
        warped = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=True)
        return warped.clamp(0.0, 1.0), [Outcome()] * len(images)

    def displacement(self, h: int, w: int, seed: int) -> Float[Tensor, "h w 2"]:
        """Displacement (x, y) of each pixel, the largest component being ``mu``."""
        generator = torch.Generator().manual_seed(seed)
        points = 2.0 * torch.rand(2, 1, _CONTROL_POINTS, _CONTROL_POINTS, generator=generator) - 1.0
        field = _smooth(F.interpolate(points, size=(h, w), mode="bilinear", align_corners=True), 2.0, 4)
        return (self.mu / field.abs().max() * field)[:, 0].movedim(0, -1)


def _smooth(images: Float[Tensor, "b 1 h w"], sigma_px: float, radius_px: int) -> Float[Tensor, "b 1 h w"]:
    """Gaussian of ``2 radius_px + 1`` taps that sum to 1, along each axis."""
    # MONAI's GaussianFilter has zeros beyond the border and a radius of its own. gaussian_blur of the deformation,
    # which must not be a convolution, gives other last digits: units that were finished before would not be the same.
    taps = torch.tensor(gaussian_taps(2 * radius_px + 1, sigma_px), dtype=torch.float64)
    return separable_filtering(images, [taps, taps], mode="replicate")


def _check(name: str, got: object, usable: bool, expected: str) -> None:
    if not usable:
        raise UsageError("GM-U078", f"unusable {name}", got=got, expected=expected)
