"""What a generator is told about verification: losses on the logits of "do these two images show one person?"

Published are two: PriCheXy-Net's mean of ``-log(1 - sigmoid(z))`` over all pairs (Packhäuser et al., MICCAI 2023), and
the negative cross-entropy of Privacy-Net (Kim et al., IEEE TMI 2021).

The former is ``softplus(z)`` and falls with every logit, whatever pair it is of: a generator that lowers all logits
alike brings it to zero and leaves their order, and with it every AUC, as it was. It measures a threshold, not
re-identification. :func:`two_sided_confusion` asks for one half of either kind of pair, each kind of equal weight, so
that the shift by itself costs.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = [
    "CONFUSIONS",
    "minimax_confusion",
    "one_sided_confusion",
    "two_sided_confusion",
    "verification_loss",
]


def verification_loss(logits: Float[Tensor, "n"], same: Bool[Tensor, "n"]) -> Float[Tensor, ""]:
    """Loss of the verifier: binary cross-entropy over all pairs, each of equal weight."""
    return F.binary_cross_entropy_with_logits(logits, same.to(logits))


def one_sided_confusion(logits: Float[Tensor, "n"], same: Bool[Tensor, "n"]) -> Float[Tensor, ""]:
    """``mean softplus(z)``, as published: ``same`` is not looked at."""
    return F.softplus(logits).mean()


def two_sided_confusion(logits: Float[Tensor, "n"], same: Bool[Tensor, "n"]) -> Float[Tensor, ""]:
    """``mean softplus(z) - z / 2 - log 2``, the divergence of one half from ``sigmoid(z)``; of pairs of one patient and
    of two apart, then the mean of both. Zero where every logit is; ours, not published."""
    losses = F.softplus(logits) - 0.5 * logits - math.log(2.0)
    parts = [losses[mask].mean() for mask in (same, ~same) if bool(mask.any())]
    return torch.stack(parts).mean()


def minimax_confusion(logits: Float[Tensor, "n"], same: Bool[Tensor, "n"]) -> Float[Tensor, ""]:
    """The verifier's own loss with its sign turned: no lower limit."""
    return -verification_loss(logits, same)


CONFUSIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "confusion": one_sided_confusion,
    "two_sided": two_sided_confusion,
    "minimax": minimax_confusion,
}
