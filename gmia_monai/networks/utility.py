"""Utility encoders with a multi-label head, on MONAI's networks; the pooled penultimate feature enters L_ut."""

from __future__ import annotations

from typing import Any

import torch
from monai.networks.nets import DenseNet
from torch import Tensor, nn

from gmia_monai.errors import UsageError
from gmia_monai.networks.layers import at_least_float32
from gmia_monai.networks.residual import SMALL_TRUNK_CHANNELS, small_trunk

__all__ = ["UTILITY_ARCHITECTURES", "UtilityNet"]

# name: (length of the feature, layers of the trunk that a perceptual loss compares)
UTILITY_ARCHITECTURES: dict[str, tuple[int, tuple[str, ...]]] = {
    "densenet121": (1024, ("relu0", "denseblock1", "denseblock2")),
    "small": (SMALL_TRUNK_CHANNELS, ("act", "layer1", "layer2")),
    "small_densenet": (196, ("relu0", "denseblock1", "denseblock2")),
}
_DENSENETS: dict[str, dict[str, Any]] = {
    "densenet121": {"init_features": 64, "growth_rate": 32, "block_config": (6, 12, 24, 16)},
    "small_densenet": {"init_features": 32, "growth_rate": 16, "block_config": (4, 6, 8, 6)},
}


class UtilityNet(nn.Module):
    """Multi-label classifier of findings on one channel.

    ``densenet121`` (Huang et al., CVPR 2017) is the encoder that GMIA optimises against. For 64 px there are ``small``,
    a head on :func:`gmia_monai.networks.residual.small_trunk`, and ``small_densenet``, a DenseNet with half the growth
    rate and 24 dense layers in place of 58, so that a finding can be looked for by two unlike networks.

    Args:
        n_findings: number of logits.
        architecture: ``densenet121``, ``small`` or ``small_densenet``.
        dropout: probability of dropping a feature during training: inside the dense layers, or before the head of
            ``small``.
        mean: grey value that is taken off the image, in [0, 1].
        std: grey value that it is then divided by.

    Raises:
        UsageError: ``GM-U015`` for an unknown architecture.
    """

    def __init__(
        self,
        n_findings: int,
        architecture: str = "densenet121",
        dropout: float = 0.0,
        mean: float = 0.5,
        std: float = 0.25,
    ) -> None:
        super().__init__()
        if architecture not in UTILITY_ARCHITECTURES:
            raise UsageError(
                "GM-U015", "unknown utility encoder", got=architecture, expected=" or ".join(UTILITY_ARCHITECTURES)
            )
        self.n_findings = n_findings
        self.mean = mean
        self.std = std
        self.feature_dim, self.perceptual_layers = UTILITY_ARCHITECTURES[architecture]
        if architecture != "small":
            sizes = _DENSENETS[architecture]
            net = DenseNet(spatial_dims=2, in_channels=1, out_channels=n_findings, dropout_prob=dropout, **sizes)
            self.trunk = net.features
            self.dropout: nn.Module = nn.Identity()
            self.head = net.class_layers.out
        else:
            self.trunk = small_trunk()
            self.dropout = nn.Dropout(dropout)
            self.head = nn.Linear(SMALL_TRUNK_CHANNELS, n_findings)

    @torch.jit.export
    def features(self, image: Tensor) -> Tensor:
        """Maps ``[b, 1, h, w]`` in [0, 1] to the pooled penultimate feature ``[b, feature_dim]``."""
        x = torch.relu(self.trunk((image - self.mean) / self.std))
        return at_least_float32(x.mean(dim=[2, 3]))

    def forward(self, image: Tensor) -> Tensor:
        """Maps ``[b, 1, h, w]`` in [0, 1] to logits ``[b, n_findings]``."""
        return self.head(self.dropout(self.features(image)))
