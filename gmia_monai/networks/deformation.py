"""Deformation field of PriCheXy-Net (Packhäuser et al., MICCAI 2023): a U-Net moves pixels a little.

The field ``F`` is in (-1, 1), the image plane is [-1, 1] on either axis, so that nothing moves further than ``mu``:

    x' = sample(x, I - G * (mu F))

with the identity grid ``I`` and a Gaussian kernel ``G`` of 9 x 9 pixels, sigma 2. ``mu`` 0.01 is 0.3 pixels at 64
pixels and 1.3 at 256: the same share of the image.

The released code blurs the whole grid, ``G * (I - mu F)``, with zeros beyond its border. Zero is the middle of the
image, so that the border is drawn inwards by many pixels even where ``F`` is zero. ``legacy`` does the same; from four
pixels off the border, the two are equal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gmia_monai.errors import UsageError
from gmia_monai.networks.image_translation import unet_of_images
from gmia_monai.networks.layers import at_least_float32

__all__ = ["DeformationNet", "deform", "gaussian_blur", "gaussian_taps", "largest_shift_px"]

KERNEL_PX, SIGMA_PX = 9, 2.0


def gaussian_taps(size_px: int = KERNEL_PX, sigma_px: float = SIGMA_PX) -> list[float]:
    """Weights of a Gaussian along one axis, with sum 1; their outer product is the kernel ``G``."""
    middle = (size_px - 1) / 2
    weights = [math.exp(-0.5 * ((i - middle) / sigma_px) ** 2) for i in range(size_px)]
    return [w / sum(weights) for w in weights]


def largest_shift_px(mu: float, size_px: int) -> float:
    """How far a pixel can move along an axis of ``size_px`` pixels."""
    return mu * (size_px - 1) / 2


def gaussian_blur(x: Tensor, taps: list[float], padding: str) -> Tensor:
    """Blurs ``[b, c, h, w]`` along both axes.

    Sums of shifted copies, not MONAI's convolution, which autocast would take to bfloat16, where the grid needs its
    digits, and which TorchScript does not read.

    Args:
        x: sides longer than half the kernel.
        taps: odd number of weights along one axis.
        padding: ``replicate`` or ``constant`` (zeros) beyond the border.
    """
    half = len(taps) // 2
    height, width = x.size(2), x.size(3)
    x = F.pad(x, [half, half, half, half], mode=padding)
    rows = taps[0] * x[:, :, :height]
    for i in range(1, len(taps)):
        rows = rows + taps[i] * x[:, :, i : i + height]
    columns = taps[0] * rows[:, :, :, :width]
    for i in range(1, len(taps)):
        columns = columns + taps[i] * rows[:, :, :, i : i + width]
    return columns


def deform(image: Tensor, field: Tensor, mu: float, taps: list[float], legacy: bool = False) -> Tensor:
    """Samples ``[b, 1, h, w]`` where the field ``[b, 2, h, w]`` sends each pixel: bilinear, the border repeated.

    Args:
        image: in [0, 1].
        field: in [-1, 1]; first along x, then along y.
        mu: largest displacement, in halves of the image.
        taps: of :func:`gaussian_taps`.
        legacy: blur the grid with zeros around it, as the released code does, and not the displacement.
    """
    field = at_least_float32(field)
    x = torch.linspace(-1.0, 1.0, image.size(3), dtype=field.dtype, device=field.device)
    y = torch.linspace(-1.0, 1.0, image.size(2), dtype=field.dtype, device=field.device)
    identity = torch.stack([x[None, :].expand(len(y), -1), y[:, None].expand(-1, len(x))])[None]
    if legacy:
        grid = gaussian_blur(identity - mu * field, taps, "constant")
    else:
        grid = identity - gaussian_blur(mu * field, taps, "replicate")
    return F.grid_sample(
        image.to(grid.dtype), grid.permute(0, 2, 3, 1), mode="bilinear", padding_mode="border", align_corners=True
    )


class DeformationNet(nn.Module):
    """Moves the pixels of an image by the field that a U-Net draws.

    Args:
        mu: largest displacement, in halves of the image; 0.001, 0.005 and 0.01 are published.
        features: channels of the five levels, finest first, and of the last layer. The published U-Net is the default.
        legacy: the operator of the released code, see the top of the file.

    Raises:
        UsageError: ``GM-U013`` where ``mu`` is not in [0, 1], or as
            :func:`gmia_monai.networks.image_translation.unet_of_images`.
    """

    def __init__(
        self, mu: float = 0.01, features: Sequence[int] = (32, 64, 128, 256, 512, 32), legacy: bool = False
    ) -> None:
        super().__init__()
        if not 0.0 <= mu <= 1.0:
            raise UsageError("GM-U013", "unusable setting of a U-Net", got=f"mu {mu}", expected="0 to 1")
        self.mu = float(mu)
        self.legacy = bool(legacy)
        self.taps = gaussian_taps()
        self.unet = unet_of_images(2, features)

    @torch.jit.export
    def field(self, image: Tensor) -> Tensor:
        """Field ``[b, 2, h, w]`` in (-1, 1) of images ``[b, 1, h, w]``."""
        return torch.tanh(at_least_float32(self.unet(image)))

    def forward(self, image: Tensor) -> Tensor:
        """Maps ``[b, 1, h, w]`` in [0, 1] to the same; sides are at least 32 pixels."""
        return deform(image, self.field(image), self.mu, self.taps, self.legacy)
