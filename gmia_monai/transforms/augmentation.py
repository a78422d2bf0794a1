"""Random changes of a whole batch at once, on the device where it lies.

MONAI's random transforms take one image at a time, several times slower (``scripts/benchmark_augmentation.py``), and on
the processor, which a GPU then waits for. This is one resampling a batch, drawn anew for every image.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from gmia_monai.errors import UsageError

__all__ = ["BatchAugmentation"]


class BatchAugmentation:
    """Flips, shifts, rotates, zooms, changes contrast and covers parts of radiographs, each image by itself.

    Everything is drawn from torch's global generator of the CPU, so that a seed means the same on every device.

    Args:
        flip_prob: probability of a left-right flip.
        shift_px: largest shift along each axis, in whole pixels.
        rotate_deg: largest angle, in degrees.
        zoom: largest relative change of size, below 1.
        affine_prob: share of the images that are rotated and zoomed; the others stay sharp, a resampling does not.
        contrast: half of the images get a gamma in ``1 -+ contrast``, half a gain in ``1 -+ contrast / 2``; below 1.
        erase_prob: share of the images of which one rectangle is covered by a random grey value.
        erase_size: longest side of that rectangle as a share of the image, at most 1; the shortest is a quarter of it.
        padding: ``border`` or ``zeros``, what is outside the image.

    Raises:
        UsageError: ``GM-U066`` for a number out of its range or another padding.
    """

    def __init__(
        self,
        flip_prob: float = 0.0,
        shift_px: int = 0,
        rotate_deg: float = 0.0,
        zoom: float = 0.0,
        affine_prob: float = 0.5,
        contrast: float = 0.0,
        erase_prob: float = 0.0,
        erase_size: float = 0.4,
        padding: str = "border",
    ) -> None:
        shares = {
            "flip_prob": flip_prob,
            "affine_prob": affine_prob,
            "erase_prob": erase_prob,
            "erase_size": erase_size,
        }
        for name, value in shares.items():
            if not 0.0 <= value <= 1.0:
                raise UsageError("GM-U066", f"{name} out of range", got=value, expected="0 to 1")
        for name, value in {"zoom": zoom, "contrast": contrast}.items():
            if not 0.0 <= value < 1.0:
                raise UsageError("GM-U066", f"{name} out of range", got=value, expected="0 to below 1")
        if shift_px < 0 or rotate_deg < 0:
            raise UsageError("GM-U066", "negative shift_px or rotate_deg", got=f"{shift_px}, {rotate_deg}")
        if padding not in ("border", "zeros"):
            raise UsageError("GM-U066", "unknown padding", got=padding, expected="border or zeros")
        self.flip_prob = flip_prob
        self.shift_px = int(shift_px)
        self.rotate_deg = rotate_deg
        self.zoom = zoom
        self.affine_prob = affine_prob
        self.contrast = contrast
        self.erase_prob = erase_prob
        self.erase_size = erase_size
        self.padding = padding

    def __call__(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Changed copies of ``images`` in [0, 1]; a gain can lead up to ``contrast / 2`` beyond 1."""
        images = self._flip(images)
        images = self._move(images)
        images = self._change_contrast(images)
        return self._erase(images)

    def _flip(self, images: Tensor) -> Tensor:
        if self.flip_prob == 0.0:
            return images
        flipped = _some(len(images), self.flip_prob).to(images.device)
        return torch.where(flipped, images.flip(-1), images)

    def _move(self, images: Tensor) -> Tensor:
        b, _, h, w = images.shape
        turns = (self.rotate_deg > 0 or self.zoom > 0) and self.affine_prob > 0
        if not turns and self.shift_px == 0:
            return images
        turned = _some(b, self.affine_prob if turns else 0.0).view(b)
        angle = torch.where(turned, _between(b, -self.rotate_deg, self.rotate_deg) * (math.pi / 180), 0.0)
        size = torch.where(turned, _between(b, 1.0 - self.zoom, 1.0 + self.zoom), 1.0)
        shift = torch.randint(-self.shift_px, self.shift_px + 1, (2, b))
        # Where each output pixel comes from, in coordinates in which the image reaches from -1 to 1.
        cos, sin = torch.cos(angle) / size, torch.sin(angle) / size
        ratio = h / w
        theta = torch.stack([cos, -sin * ratio, 2.0 * shift[0] / w, sin / ratio, cos, 2.0 * shift[1] / h], dim=1).view(
            b, 2, 3
        )
        grid = F.affine_grid(theta.to(images), list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, padding_mode=self.padding, align_corners=False)

    def _change_contrast(self, images: Tensor) -> Tensor:
        if self.contrast == 0.0:
            return images
        b = len(images)
        gamma = torch.where(_some(b, 0.5), _between(b, 1 - self.contrast, 1 + self.contrast).view(b, 1, 1, 1), 1.0)
        gain = torch.where(
            _some(b, 0.5), _between(b, 1 - self.contrast / 2, 1 + self.contrast / 2).view(b, 1, 1, 1), 1.0
        )
        return images.clamp_min(0.0) ** gamma.to(images) * gain.to(images)

    def _erase(self, images: Tensor) -> Tensor:
        if self.erase_prob == 0.0:
            return images
        b, _, h, w = images.shape
        side = _between((2, b), self.erase_size / 4, self.erase_size)
        start = torch.rand(2, b) * (1.0 - side)
        rows, columns = (torch.arange(h) + 0.5) / h, (torch.arange(w) + 0.5) / w
        row = (rows >= start[0, :, None]) & (rows < (start[0] + side[0])[:, None])
        column = (columns >= start[1, :, None]) & (columns < (start[1] + side[1])[:, None])
        covered = row[:, None, :, None] & column[:, None, None, :] & _some(b, self.erase_prob)
        return torch.where(covered.to(images.device), torch.rand(b, 1, 1, 1).to(images), images)


def _some(b: int, probability: float) -> Tensor:
    return torch.rand(b, 1, 1, 1) < probability


def _between(shape: int | tuple[int, ...], low: float, high: float) -> Tensor:
    return low + (high - low) * torch.rand(shape)
