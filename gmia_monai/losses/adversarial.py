"""Adversarial losses of StyleGAN2: non-saturating logistic loss, R1, path-length regularisation.

Goodfellow et al., NeurIPS 2014, section 3 (logistic); Mescheder et al., ICML 2018, eq. 9 (R1); Karras et al., CVPR
2020, eq. 4 (path length). Regularisers are meant to be evaluated lazily, every k-th step, and multiplied by k.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

__all__ = ["PathLengthPenalty", "discriminator_logistic_loss", "generator_logistic_loss", "r1_penalty"]


def generator_logistic_loss(fake_logits: Float[Tensor, "b 1"]) -> Float[Tensor, ""]:
    """Non-saturating loss of the generator, ``mean softplus(-D(G))``."""
    return F.softplus(-fake_logits).mean()


def discriminator_logistic_loss(
    real_logits: Float[Tensor, "b 1"], fake_logits: Float[Tensor, "b 1"]
) -> Float[Tensor, ""]:
    """Loss of the discriminator, ``mean softplus(D(G)) + mean softplus(-D(x))``."""
    return F.softplus(fake_logits).mean() + F.softplus(-real_logits).mean()


def r1_penalty(
    real_logits: Float[Tensor, "b 1"], real_images: Float[Tensor, "b 1 h w"], gamma: float = 1.0
) -> Float[Tensor, ""]:
    """Gradient penalty on real images, ``gamma / 2 * mean ||grad_x D(x)||^2``.

    Args:
        real_logits: discriminator's output for ``real_images``.
        real_images: images that require gradients.
        gamma: weight; 1 in GMIA, ``0.0002 h w / batch`` is StyleGAN2-ADA's heuristic.
    """
    (gradient,) = torch.autograd.grad(real_logits.sum(), real_images, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3)).mean() * (gamma / 2.0)


class PathLengthPenalty:
    """``mean (||J_w^T y|| - a)^2`` with ``a`` the running mean of the path lengths and ``y`` a random image.

    Args:
        decay: share of the new batch in the running mean.

    Attributes:
        mean: running mean ``a`` of the path lengths; part of a checkpoint.
    """

    def __init__(self, decay: float = 0.01) -> None:
        self.decay = decay
        self.mean = torch.zeros(())

    def __call__(self, images: Float[Tensor, "b 1 h w"], ws: Tensor) -> Float[Tensor, ""]:
        """Penalty of ``images = G(ws)``; ``ws`` is ``[b, d]`` or ``[b, layers, d]`` and requires gradients.

        The codes of W+ are averaged over layers, as published.
        """
        y = torch.randn_like(images) / math.sqrt(images.shape[2] * images.shape[3])
        (gradient,) = torch.autograd.grad((images * y).sum(), ws, create_graph=True)
        squares = gradient.square()
        lengths = squares.sum(2).mean(1).sqrt() if ws.dim() == 3 else squares.sum(1).sqrt()
        self.mean = self.mean.to(lengths.device)
        mean = self.mean.lerp(lengths.detach().mean(), self.decay)
        # An update that is not finite is left out by the trainer; the mean must not carry it on into all later ones.
        self.mean = torch.where(torch.isfinite(mean), mean, self.mean)
        return (lengths - self.mean).square().mean()

    def state_dict(self) -> dict[str, Tensor]:
        """State for a checkpoint."""
        return {"mean": self.mean}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restores :meth:`state_dict`."""
        self.mean = state["mean"]
