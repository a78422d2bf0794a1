"""Attackers trained on real radiographs of S and A: the ArcFace encoder and the Siamese verifier.

Both are trained by ``bundle/configs/train_identity.yaml`` (``profiles/cxr64_attacker.yaml``, ``systems/siamese.yaml``),
which resumes, validates on V2 and leaves a weights file; here the file is read. ArcFace: Deng et al., CVPR 2019.
Siamese: Packhäuser et al., Scientific Reports 12:14851, 2022.
"""

from __future__ import annotations

from collections.abc import Sequence

from gmia_monai.attacks.attackers.base import EmbeddingAttacker, cosine_score
from gmia_monai.attacks.attackers.embedder import NetworkEmbedder
from gmia_monai.attacks.base import AttackerKnowledge
from gmia_monai.errors import UsageError
from gmia_monai.networks.identity import IdentityNet
from gmia_monai.networks.pretrained import load_network
from gmia_monai.networks.siamese import SiameseVerifier
from gmia_monai.typing import PathLike

__all__ = ["TrainedAttacker", "load_attacker_network"]


def load_attacker_network(paths: Sequence[PathLike], seed: int) -> IdentityNet | SiameseVerifier:
    """The network of one seed.

    Args:
        paths: weights files, one a seed; a seed beyond them starts again from the first.
        seed: which.

    Raises:
        UsageError: ``GM-U313`` without a file, or for one that holds another kind of network.
    """
    if not paths:
        raise UsageError("GM-U313", "no weights of this attacker", next_step="train it, or leave the attacker out")
    network = load_network(paths[seed % len(paths)])
    if not isinstance(network, IdentityNet | SiameseVerifier):
        raise UsageError("GM-U313", "not the weights of an attacker", got=type(network).__name__)
    return network


class TrainedAttacker(EmbeddingAttacker):
    """Compares images by a network that has only seen real radiographs.

    Args:
        name: ``arcface`` or ``snn``.
        weights: weights files, one a seed.
        device: where the network runs.
    """

    def __init__(self, name: str, weights: Sequence[PathLike], device: str = "cpu") -> None:
        super().__init__(name)
        self.weights = tuple(weights)
        self.device = device

    def fit(self, knowledge: AttackerKnowledge, seed: int) -> None:
        """Loads the network of a seed.

        Raises:
            UsageError: ``GM-U313``.
        """
        network = load_attacker_network(self.weights, seed)
        self.compare = network.compare if isinstance(network, SiameseVerifier) else cosine_score
        self.use(NetworkEmbedder(network, device=self.device))
