"""Prior on W of a co-trained auto-encoder: which codes and which diagnostic logits go with which findings.

Codes are leaky-ReLU outputs of the encoder's last layer. With that undone they are nearly normal (the P space of Zhu et
al., "Improved StyleGAN Embedding", 2020), so that a normal distribution of the undone code and the logits together,
with a mean that is linear in what is known of an image, can be drawn from in closed form. Nothing but what is known and
chance enters a draw.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gmia_monai.networks.layers import scaled_leaky_relu

__all__ = ["LatentPrior", "undo_leaky_relu"]

_GAIN, _SLOPE = 1.4142135623730951, 0.2


def undo_leaky_relu(w: Tensor) -> Tensor:
    """Inverse of :func:`gmia_monai.networks.layers.scaled_leaky_relu`."""
    return torch.where(w >= 0, w, w / _SLOPE) / _GAIN


class LatentPrior(nn.Module):
    """Mixture of normal distributions of (undone code, logits) given what is known of an image.

    ``mean = base + known @ slope``; around it a mixture of ``n_components`` normal distributions along ``rank``
    directions, and independent noise in all.

    Args:
        latent_dim: length of a code.
        n_logits: number of diagnostic logits.
        n_known: length of what is known of an image: findings, and facts such as the view.
        rank: directions of the mixture.
        n_components: normal distributions in it.
        known: names of what is known, in order.
        n_findings: how many of them, the first, are findings; None: all.
    """

    def __init__(
        self,
        latent_dim: int = 512,
        n_logits: int = 14,
        n_known: int = 14,
        rank: int = 128,
        n_components: int = 1,
        known: list[str] | None = None,
        n_findings: int | None = None,
    ) -> None:
        super().__init__()
        d = latent_dim + n_logits
        self.latent_dim, self.n_logits, self.rank = latent_dim, n_logits, rank
        self.known = tuple(known or ())
        self.n_findings = n_known if n_findings is None else n_findings
        self.register_buffer("base", torch.zeros(d))
        self.register_buffer("centre", torch.zeros(n_known))  # means of what is known
        self.register_buffer("slope", torch.zeros(n_known, d))
        self.register_buffer("scale", torch.ones(d))  # standard deviations of the residuals
        self.register_buffer("directions", torch.zeros(rank, d))
        self.register_buffer("noise_sd", torch.zeros(d))
        self.register_buffer("weights", torch.full((n_components,), 1.0 / n_components))
        self.register_buffer("means", torch.zeros(n_components, rank))
        self.register_buffer("factors", torch.eye(rank).repeat(n_components, 1, 1))

    def mean(self, known: Tensor) -> Tensor:
        """Mean of undone code and logits, ``[b, latent_dim + n_logits]``, given ``[b, n_known]``."""
        return self.base + known @ self.slope

    def draw(
        self, known: Tensor, seeds: list[int], temperature: float = 1.0, emphasis: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Codes ``[b, latent_dim]`` and logits ``[b, n_logits]``.

        Args:
            known: ``[b, n_known]``.
            seeds: one an image; an image's draw does not depend on its neighbours.
            temperature: factor on the distance from the mean.
            emphasis: factor on what the findings add to the logits: above 1, an image shows its findings more clearly
                than images with them do on average, along the same direction.
        """
        residuals = []
        for seed in seeds:
            generator = torch.Generator().manual_seed(seed)
            part = int(torch.multinomial(self.weights.cpu().double(), 1, generator=generator))
            z = torch.randn(self.rank, generator=generator).to(self.base)
            noise = torch.randn(len(self.base), generator=generator).to(self.base)
            low = self.means[part] + self.factors[part] @ z
            residuals.append((low @ self.directions + noise * self.noise_sd) * self.scale)
        found = self.mean(known) + temperature * torch.stack(residuals)
        d, k = self.latent_dim, self.n_findings
        more = (emphasis - 1.0) * (known - self.centre)[:, :k] @ self.slope[:k, d:]
        return scaled_leaky_relu(found[:, :d]), found[:, d:] + more

    def distance(self, w: Tensor, known: Tensor) -> Tensor:
        """Mean squared deviation of a code from what is expected, in standard deviations of each coordinate, ``[b]``;
        about 1 for a code of a real image."""
        d = self.latent_dim
        return ((undo_leaky_relu(w) - self.mean(known)[:, :d]) / self.scale[:d]).square().mean(dim=1)
