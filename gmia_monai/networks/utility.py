"""Utility encoder: MONAI's DenseNet121 with a multi-label head; its pooled penultimate feature enters L_ut."""

from __future__ import annotations

import torch
from monai.networks.nets import DenseNet121
from torch import Tensor, nn

from gmia_monai.networks.layers import at_least_float32

__all__ = ["UtilityNet"]


class UtilityNet(nn.Module):
    """Multi-label classifier of findings (Huang et al., CVPR 2017, on one channel).

    Args:
        n_findings: number of logits.
        dropout: probability of dropping a feature inside the dense layers, during training.
        mean: grey value that is taken off the image, in [0, 1].
        std: grey value that it is then divided by.
        stem_pool: keep the max-pool of the stem. Without it features are twice as fine, at four times the cost: small
            images have little to lose (at 64 px the stem leaves 16 x 16 with it, 32 x 32 without).
    """

    feature_dim = 1024

    def __init__(
        self, n_findings: int, dropout: float = 0.0, mean: float = 0.5, std: float = 0.25, stem_pool: bool = True
    ) -> None:
        super().__init__()
        self.n_findings = n_findings
        self.mean = mean
        self.std = std
        net = DenseNet121(spatial_dims=2, in_channels=1, out_channels=n_findings, dropout_prob=dropout)
        self.dense = net.features
        if not stem_pool:
            self.dense.pool0 = nn.Identity()
        self.head = net.class_layers.out

    @torch.jit.export
    def features(self, image: Tensor) -> Tensor:
        """Maps ``[b, 1, h, w]`` in [0, 1] to the pooled penultimate feature ``[b, 1024]``."""
        x = torch.relu(self.dense((image - self.mean) / self.std))
        return at_least_float32(x.mean(dim=[2, 3]))

    def forward(self, image: Tensor) -> Tensor:
        """Maps ``[b, 1, h, w]`` in [0, 1] to logits ``[b, n_findings]``."""
        return self.head(self.features(image))
