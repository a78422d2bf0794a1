"""Terms of latent editing: identity towards a cosine under several encoders and views, diagnosis, realism, prior.

Each term gives one value an image and knows which image stands where, so that a batch is as many runs of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from gmia_monai.losses.identity import cosine

__all__ = ["EnsembleIdentity", "Near", "Realism", "random_views", "view_parameters"]

_SHIFT, _ZOOM, _TURN, _CONTRAST, _BRIGHTNESS = 0.06, 0.06, 0.1, 0.15, 0.05


def view_parameters(seeds: Sequence[int], n: int) -> Float[Tensor, "n b 6"]:
    """``n`` random views of each image: uniform numbers in [-1, 1] for two shifts, zoom, turn, contrast, brightness."""
    draws = [torch.rand(n, 6, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(draws, dim=1) * 2.0 - 1.0


def random_views(image: Float[Tensor, "b 1 h w"], parameters: Float[Tensor, "b 6"]) -> Float[Tensor, "b 1 h w"]:
    """Shifted (by up to 3 % of the image), zoomed (6 %), turned (0.1 rad) images with another contrast (15 %) and
    brightness (0.05), each by its own row of :func:`view_parameters`."""
    p = parameters.to(image)
    turn, zoom = p[:, 3] * _TURN, 1.0 + p[:, 2] * _ZOOM
    cos, sin = zoom * torch.cos(turn), zoom * torch.sin(turn)
    rows = torch.stack([cos, -sin, p[:, 0] * _SHIFT, sin, cos, p[:, 1] * _SHIFT], dim=1)
    grid = F.affine_grid(rows.reshape(-1, 2, 3), list(image.shape), align_corners=False)
    moved = F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=False)
    contrast, brightness = (p[:, k].reshape(-1, 1, 1, 1) for k in (4, 5))
    return ((moved - 0.5) * (1.0 + contrast * _CONTRAST) + 0.5 + brightness * _BRIGHTNESS).clamp(0.0, 1.0)


class EnsembleIdentity:
    """``mean_e |cos(E_e(x), E_e(v(x'))) - m_e|``: two-sided, so that the farthest match says nothing either.

    With ``two_sided`` False the hinge of GMIA (eq. 1) stands in its place. Each step has another random view ``v``.

    Args:
        encoders: map images to embeddings.
        references: embedding of the real images under each, ``[b, d]``.
        targets_cos: cosine ``m_e`` of each encoder: its mean between strangers.
        views: ``[steps, b, 6]`` of :func:`view_parameters`; None: the image itself.
        two_sided: False for the hinge.
    """

    def __init__(
        self,
        encoders: Sequence[Callable[[Tensor], Tensor]],
        references: Sequence[Tensor],
        targets_cos: Sequence[float],
        views: Tensor | None = None,
        two_sided: bool = True,
    ) -> None:
        self.encoders, self.references = tuple(encoders), tuple(references)
        self.targets_cos = tuple(targets_cos)
        self.views = views
        self.two_sided = two_sided

    def __call__(self, image: Tensor, w: Tensor, step: int) -> Tensor:
        """The loss of each image, ``[b]``."""
        if self.views is not None and step < len(self.views):
            image = random_views(image, self.views[step])
        parts = []
        for encoder, reference, target in zip(self.encoders, self.references, self.targets_cos, strict=True):
            excess = cosine(reference, encoder(image)) - target
            parts.append(excess.abs() if self.two_sided else excess.clamp_min(0.0))
        return torch.stack(parts).mean(dim=0)


class Near:
    """Mean squared difference of what a network says from what it shall say, in units of ``scale``.

    Args:
        network: maps images to ``[b, k]``.
        target: ``[b, k]``.
        scale: standard deviation of each of the ``k``, or one for all.
    """

    def __init__(self, network: Callable[[Tensor], Tensor], target: Tensor, scale: Tensor | float = 1.0) -> None:
        self.network, self.target, self.scale = network, target, scale

    def __call__(self, image: Tensor, w: Tensor, step: int) -> Tensor:
        """The loss of each image, ``[b]``."""
        return ((self.network(image) - self.target) / self.scale).square().mean(dim=1)


class Realism:
    """``softplus(-D(x'))``, the generator's loss under a trained discriminator.

    Args:
        discriminator: maps images to ``[b, 1]``; without a statistic over the batch, or images would touch each other.
    """

    def __init__(self, discriminator: Callable[[Tensor], Tensor]) -> None:
        self.discriminator = discriminator

    def __call__(self, image: Tensor, w: Tensor, step: int) -> Tensor:
        """The loss of each image, ``[b]``."""
        return F.softplus(-self.discriminator(image)).flatten()
