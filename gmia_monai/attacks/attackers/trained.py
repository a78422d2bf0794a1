"""Attackers trained on real radiographs of S and A: the ArcFace encoder, the Siamese verifier, the retrieval network.

All are trained by ``bundle/configs/train_identity.yaml`` (``profiles/cxr64_attacker.yaml``, ``systems/siamese.yaml``,
``systems/retrieval.yaml``), which resumes, validates on V2 and leaves a weights file; here the file is read. ArcFace:
Deng et al., CVPR 2019. Siamese and retrieval: Packhäuser et al., Scientific Reports 12:14851, 2022.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from gmia_monai.attacks.attackers.base import EmbeddingAttacker, cosine_score
from gmia_monai.attacks.attackers.embedder import NetworkEmbedder
from gmia_monai.attacks.base import AttackerKnowledge
from gmia_monai.errors import UsageError
from gmia_monai.networks.identity import IdentityNet
from gmia_monai.networks.pretrained import load_network
from gmia_monai.networks.retrieval import RetrievalNet
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
    network = _of_seed(paths, seed)
    if not isinstance(network, IdentityNet | SiameseVerifier):
        raise UsageError("GM-U313", "not the weights of an attacker", got=type(network).__name__)
    return network


def _of_seed(paths: Sequence[PathLike], seed: int) -> nn.Module:
    if not paths:
        raise UsageError("GM-U313", "no weights of this attacker", next_step="train it, or leave the attacker out")
    return load_network(paths[seed % len(paths)])


class TrainedAttacker(EmbeddingAttacker):
    """Compares images by a network that has only seen real radiographs.

    Args:
        name: ``arcface``, ``snn`` or ``retrieval``.
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
        network = _of_seed(self.weights, seed)
        if isinstance(network, RetrievalNet | SiameseVerifier):
            self.compare = network.compare
        elif isinstance(network, IdentityNet):
            self.compare = cosine_score
        else:
            raise UsageError("GM-U313", "not the weights of an attacker", got=type(network).__name__)
        self.use(NetworkEmbedder(network, device=self.device))
