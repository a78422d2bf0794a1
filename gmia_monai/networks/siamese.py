"""Siamese verifier: do two radiographs show one person? (Packhäuser et al., Scientific Reports 12:14851, 2022)

Both images go through one trunk to 128 features in (0, 1); a linear layer turns the absolute difference of the two into
a logit. ``resnet50`` is the published trunk; ``small`` and ``small_iresnet_pooled`` are of the small encoders here.
"""

from __future__ import annotations

import torch
from monai.networks.nets import ResNet
from torch import Tensor, nn

from gmia_monai.errors import UsageError
from gmia_monai.networks.identity import iresnet_trunk
from gmia_monai.networks.layers import at_least_float32
from gmia_monai.networks.residual import SMALL_TRUNK_CHANNELS, small_trunk

__all__ = ["SiameseVerifier"]


class SiameseVerifier(nn.Module):
    """Features of an image, and the comparison of two.

    Args:
        architecture: ``small``, ``small_iresnet_pooled`` or ``resnet50``.
        features: length of the feature.
        dropout: probability of dropping an input of the last layer before the feature.

    Raises:
        UsageError: ``GM-U016`` for another architecture.
    """

    def __init__(self, architecture: str = "small", features: int = 128, dropout: float = 0.0) -> None:
        super().__init__()
        self.trunk: nn.Module
        if architecture == "small":
            self.trunk, channels = small_trunk(), SMALL_TRUNK_CHANNELS
            self.pool: nn.Module = nn.AdaptiveAvgPool2d(1)
        elif architecture == "small_iresnet_pooled":
            self.trunk, channels = iresnet_trunk(architecture)
            self.pool = nn.AdaptiveAvgPool2d(1)
        elif architecture == "resnet50":
            self.trunk = ResNet(
                "bottleneck", [3, 4, 6, 3], [64, 128, 256, 512], spatial_dims=2, n_input_channels=1, feed_forward=False
            )
            self.pool, channels = nn.Identity(), 2048
        else:
            known = "small, small_iresnet_pooled, resnet50"
            raise UsageError("GM-U016", "unknown trunk of the verifier", got=architecture, expected=known)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(channels, features)
        self.head = nn.Linear(features, 1)
        # A difference speaks against one person, from the first step on.
        nn.init.constant_(self.head.weight, -8.0 / features)

    def forward(self, image: Tensor) -> Tensor:
        """Maps ``[b, 1, h, w]`` in [0, 1] to features ``[b, features]`` in (0, 1)."""
        x = self.pool(self.trunk((image - 0.5) * 2.0)).flatten(1)
        return torch.sigmoid(at_least_float32(self.fc(self.dropout(x))))

    def compare(self, a: Tensor, b: Tensor) -> Tensor:
        """Logit that two images show one person, from features ``[..., features]`` to ``[...]``."""
        return self.head((a - b).abs()).squeeze(-1)
