"""Local style alignment of k-SALSA (Jeon et al., ECCV 2022): each part of a source is compared with the part of the
centroid whose style is most like its own, wherever it lies."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

__all__ = ["crop_grams", "local_style"]


def crop_grams(features: Float[Tensor, "b c h w"], grid: int = 4) -> Float[Tensor, "b crops c c"]:
    """Gram matrix of each of ``grid x grid`` crops, divided by its number of positions and of channels.

    So the scale is that of the features, and neither the size of the image nor the width of the layer changes it.

    Args:
        features: feature map of an early layer; rows and columns are multiples of ``grid``.
        grid: crops along each axis.

    Returns:
        matrices in the order of rows of crops.

    Raises:
        ValueError: where the map cannot be cut into equal crops.
    """
    rows, columns = features.shape[2:]
    if rows % grid or columns % grid:
        raise ValueError("rows and columns of a feature map must be multiples of the grid of crops")
    cells = features.unflatten(3, (grid, -1)).unflatten(2, (grid, -1))  # b c grid h grid w
    crops = cells.permute(0, 2, 4, 1, 3, 5).flatten(4).flatten(1, 2)  # b crops c positions
    return crops @ crops.transpose(2, 3) / (crops.shape[2] * crops.shape[3])


def local_style(
    centroid: Float[Tensor, "b s c c"], sources: Float[Tensor, "b k t c c"], eps: float = 1e-12
) -> Float[Tensor, "b"]:
    """Distance in style of an image and its sources: ``mean_k mean_t ||G_s* - G_t||_F^2``.

    For crop ``t`` of a source, ``s*`` is the crop of the centroid whose Gram matrix has the largest cosine with that of
    ``t``. The choice has no gradient.

    Args:
        centroid: Gram matrices of the crops of the image that is made.
        sources: those of its ``k`` sources.
        eps: lower limit of a norm in the cosine.
    """
    own, theirs = centroid.flatten(2), sources.flatten(3)
    with torch.no_grad():
        alike = F.normalize(theirs, dim=3, eps=eps).flatten(1, 2) @ F.normalize(own, dim=2, eps=eps).transpose(1, 2)
        best = alike.argmax(dim=2)
    chosen = own.gather(1, best[:, :, None].expand(-1, -1, own.shape[2]))
    return (chosen - theirs.flatten(1, 2)).square().sum(dim=2).mean(dim=1)
