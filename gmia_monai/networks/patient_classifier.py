"""Which of the training patients is this? The identity classifier of PLAN (Pennisi et al., MICCAI 2023): an identity
encoder with one logit a patient."""

from __future__ import annotations

from torch import Tensor, nn

from gmia_monai.networks.identity import IdentityNet
from gmia_monai.networks.layers import at_least_float32

__all__ = ["PatientClassifier"]


class PatientClassifier(nn.Module):
    """Classifier of patients for images of one channel.

    Args:
        image_size: rows and columns of the image; a multiple of 16.
        n_patients: number of logits.
        architecture: of the encoder, one of :data:`gmia_monai.networks.identity.IDENTITY_ARCHITECTURES`.
        embedding_dim: length of the encoder's embedding, which the logits are linear in.
        dropout: probability of dropping a feature before the encoder's last layer.

    Raises:
        UsageError: ``GM-U011`` as :class:`gmia_monai.networks.IdentityNet`.
    """

    def __init__(
        self,
        image_size: int,
        n_patients: int,
        architecture: str = "small_pooled",
        embedding_dim: int = 512,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.encoder = IdentityNet(image_size, architecture, embedding_dim, dropout)
        self.head = nn.Linear(embedding_dim, n_patients)

    def forward(self, image: Tensor) -> Tensor:
        """Maps ``[b, 1, image_size, image_size]`` in [0, 1] to logits ``[b, n_patients]``."""
        return at_least_float32(self.head(self.encoder(image)))
