"""The two networks that are refitted together, each with a linear map behind it where the closed form found a good one.

A refit that begins with the network alone has to learn by gradients what ridge regression finds in seconds
(:mod:`gmia_monai.attacks.linear_maps`), and often ends below it. So it may begin there: the map is part of what is
trained.
"""

from __future__ import annotations

import copy
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gmia_monai.attacks.linear_maps import AffineMap, LinearMaps
from gmia_monai.networks.identity import IdentityNet
from gmia_monai.networks.siamese import SiameseVerifier

__all__ = ["MappedNetwork", "RefitPair"]


class MappedNetwork(nn.Module):
    """A verification network, and the linear map of its embeddings once :meth:`place` has set one.

    With a map, the network embeds both views in training, too, if it does so in eval mode: a map of both is trained as
    it is used.

    Args:
        network: copied; ``[b, 1, h, w]`` to ``[b, d]``.
    """

    def __init__(self, network: IdentityNet | SiameseVerifier) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).requires_grad_(True)
        dims = network.fc.out_features * (2 if self._two_views else 1)
        self.middle = nn.Parameter(torch.zeros(dims))
        self.weight = nn.Parameter(torch.eye(dims))
        self.mapped: Tensor
        self.register_buffer("mapped", torch.tensor(False))

    @property
    def _two_views(self) -> bool:
        return isinstance(self.network, IdentityNet) and self.network.two_views

    @torch.no_grad()
    def place(self, affine: AffineMap) -> None:
        """Sets the map; directions that it leaves out are zero, and its scale is that of the identity, since a cosine
        has none and the steps of AdamW have."""
        scale = math.sqrt(len(self.middle)) / max(float(np.linalg.norm(affine.weight)), 1e-12)
        self.weight.zero_()
        self.weight[:, : affine.weight.shape[1]].copy_(torch.from_numpy(scale * affine.weight))
        self.middle.copy_(torch.from_numpy(affine.middle))
        self.mapped.fill_(True)

    def forward(self, image: Tensor) -> Tensor:
        """Embeddings, ``[b, d]``."""
        if not self.mapped:
            return self.network(image)
        if self.training and self._two_views:
            views = F.normalize(self.network(torch.cat([image, image.flip(-1)])), dim=1)
            embedding = torch.cat(views.chunk(2), dim=1)
        else:
            embedding = self.network(image)
        # The difference to the middle is small beside the embedding: not for bfloat16.
        with torch.autocast(image.device.type, enabled=False):
            return (F.normalize(embedding.float(), dim=1) - self.middle) @ self.weight


class RefitPair(nn.Module):
    """A network for either side, and what compares their embeddings.

    Args:
        network: ``IdentityNet`` or ``SiameseVerifier``, copied.
        shared: one network for both sides.
    """

    def __init__(self, network: IdentityNet | SiameseVerifier, shared: bool) -> None:
        super().__init__()
        self.released = MappedNetwork(network)
        self.real = self.released if shared else MappedNetwork(network)
        self.log_scale = nn.Parameter(torch.tensor(math.log(16.0)))
        self.sign: Tensor
        self.register_buffer("sign", torch.tensor(1.0))

    @property
    def by_head(self) -> bool:
        """Whether the head of a Siamese network compares; behind linear maps, as elsewhere, the cosine does."""
        return isinstance(self.released.network, SiameseVerifier) and not self.released.mapped

    def compare(self, a: Tensor, b: Tensor) -> Tensor:
        """Score of pairs of embeddings, higher for one person."""
        if self.by_head:
            return self.sign * self.released.network.compare(a, b)
        return self.sign * F.cosine_similarity(a, b, dim=-1)

    def turn(self) -> None:
        """Reads scores the other way round: where a system inverts identity, the start is then a good one, not the
        worst."""
        self.sign.neg_()

    def place(self, maps: LinearMaps) -> None:
        """Sets the map of either side, of one network the released one; the sign is then that of the maps."""
        self.real.place(maps.real)
        self.released.place(maps.released)
        self.sign.fill_(1.0)

    def matrix(self, released: Tensor, real: Tensor) -> Tensor:
        """Scaled score of each released image with each of the other side, ``[b, b]``."""
        a, b = self.released(released), self.real(real)
        scores = self.compare(a[:, None], b[None, :])
        factor = 1.0 if self.by_head else self.log_scale.exp().clamp(max=64.0)
        return scores * factor
