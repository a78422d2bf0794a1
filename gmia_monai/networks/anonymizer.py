"""All networks of latent optimisation in one module: what ``network_def`` of the bundle is, and ``model.pt`` holds."""

from __future__ import annotations

from torch import Tensor, nn

from gmia_monai.networks.aegan import AEGAN
from gmia_monai.networks.identity import IdentityNet
from gmia_monai.networks.utility import UtilityNet

__all__ = ["AnonymizerNet"]


class AnonymizerNet(nn.Module):
    """Encoder, synthesis, identity and utility networks.

    ``forward`` is the auto-encoder alone, so that the tools of MONAI that expect one tensor in and one out work; the
    optimisation is in :class:`gmia_monai.inferers.LatentOptimizationInferer`.

    Args:
        aegan: auto-encoder.
        identity: identity encoder.
        utility: utility encoder.
    """

    def __init__(self, aegan: AEGAN, identity: IdentityNet, utility: UtilityNet) -> None:
        super().__init__()
        self.encoder = aegan.encoder
        self.synthesis = aegan.synthesis
        self.identity = identity
        self.utility = utility

    def forward(self, image: Tensor) -> Tensor:
        """Reconstructs ``[b, 1, h, w]`` in [0, 1]; the result is clamped to [0, 1] and has *not* been anonymized."""
        return self.synthesis(self.encoder(image)).clamp(0.0, 1.0)
