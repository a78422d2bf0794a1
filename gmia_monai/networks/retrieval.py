"""Retrieval network: images of one person lie close together (Packhäuser et al., Scientific Reports 12:14851, 2022).

Maps of features are pooled to a grid by their mean and by their maximum, squeezed to a few channels and, by a hidden
layer, mapped to an embedding; what counts is the Euclidean distance. ``resnet50`` is the published trunk; ``small`` and
``small_iresnet_pooled`` are those of the small encoders here.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from monai.networks.nets import ResNet
from torch import Tensor, nn

from gmia_monai.errors import UsageError
from gmia_monai.networks.identity import iresnet_trunk
from gmia_monai.networks.layers import at_least_float32
from gmia_monai.networks.residual import SMALL_TRUNK_CHANNELS, small_trunk

__all__ = ["RetrievalNet"]


class RetrievalNet(nn.Module):
    """Maps radiographs to embeddings that a gallery is searched by.

    Args:
        architecture: ``small``, ``small_iresnet_pooled`` or ``resnet50``.
        embedding_dim: length of the embedding; 128 in the paper.
        grid: rows and columns that maps of features are pooled to; 5 in the paper.
        squeezed: channels that are left of them; 100 in the paper.
        hidden: length of the hidden layer; 2048 in the paper.
        dropout: probabilities of dropping an input of the hidden and of the last layer.
        normalised: give embeddings unit length, so that no step changes all distances at once; not so in the paper,
            whose trunk is pre-trained.

    Raises:
        UsageError: ``GM-U017`` for another architecture.
    """

    def __init__(
        self,
        architecture: str = "small",
        embedding_dim: int = 128,
        grid: int = 5,
        squeezed: int = 100,
        hidden: int = 2048,
        dropout: tuple[float, float] = (0.5, 0.25),
        normalised: bool = False,
    ) -> None:
        super().__init__()
        self.normalised = normalised
        self.trunk: nn.Module
        if architecture == "small":
            self.trunk, channels = small_trunk(), SMALL_TRUNK_CHANNELS
        elif architecture == "small_iresnet_pooled":
            self.trunk, channels = iresnet_trunk(architecture)
        elif architecture == "resnet50":
            self.trunk, channels = _resnet50(), 2048
        else:
            known = "small, small_iresnet_pooled, resnet50"
            raise UsageError("GM-U017", "unknown trunk of the retrieval network", got=architecture, expected=known)
        self.mean = nn.AdaptiveAvgPool2d(grid)
        self.maximum = nn.AdaptiveMaxPool2d(grid)
        self.squeeze = nn.Conv2d(2 * channels, squeezed, 1, bias=False)
        n = squeezed * grid**2
        self.hidden = nn.Sequential(nn.BatchNorm1d(n), nn.Dropout(dropout[0]), nn.Linear(n, hidden), nn.ReLU())
        self.embed = nn.Sequential(nn.BatchNorm1d(hidden), nn.Dropout(dropout[1]), nn.Linear(hidden, embedding_dim))

    def forward(self, image: Tensor) -> Tensor:
        """Maps ``[b, 1, h, w]`` in [0, 1] to embeddings ``[b, embedding_dim]``."""
        maps = self.trunk((image - 0.5) * 2.0)
        squeezed = self.squeeze(torch.cat([self.mean(maps), self.maximum(maps)], dim=1))
        embedding = at_least_float32(self.embed(self.hidden(squeezed.flatten(1))))
        return F.normalize(embedding, dim=1) if self.normalised else embedding

    def compare(self, a: Tensor, b: Tensor) -> Tensor:
        """Score that is higher the nearer embeddings ``[..., embedding_dim]`` are, ``[...]``."""
        return -(a - b).square().sum(dim=-1).sqrt()


def _resnet50() -> nn.Sequential:
    """The convolutional part, which leaves a map."""
    net = ResNet(
        "bottleneck", [3, 4, 6, 3], [64, 128, 256, 512], spatial_dims=2, n_input_channels=1, feed_forward=False
    )
    names = ("conv1", "bn1", "act", "maxpool", "layer1", "layer2", "layer3", "layer4")
    return nn.Sequential(OrderedDict((name, getattr(net, name)) for name in names))
