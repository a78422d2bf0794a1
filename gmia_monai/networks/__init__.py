"""Networks: AE-GAN, discriminator, identity and utility encoders."""

from __future__ import annotations

from gmia_monai.networks.aegan import AEGAN
from gmia_monai.networks.anonymizer import AnonymizerNet
from gmia_monai.networks.discriminator import Discriminator, Encoder
from gmia_monai.networks.generator import MappedGenerator
from gmia_monai.networks.identity import IdentityNet
from gmia_monai.networks.pretrained import (
    fill_anonymizer,
    load_anonymizer,
    load_network,
    load_recorded,
    save_network,
    weights_hashes,
)
from gmia_monai.networks.prior import LatentPrior
from gmia_monai.networks.retrieval import RetrievalNet
from gmia_monai.networks.siamese import SiameseVerifier
from gmia_monai.networks.synthesis import SynthesisNetwork
from gmia_monai.networks.utility import UtilityNet

__all__ = [
    "AEGAN",
    "AnonymizerNet",
    "Discriminator",
    "Encoder",
    "IdentityNet",
    "LatentPrior",
    "MappedGenerator",
    "RetrievalNet",
    "SiameseVerifier",
    "SynthesisNetwork",
    "UtilityNet",
    "fill_anonymizer",
    "load_anonymizer",
    "load_network",
    "load_recorded",
    "save_network",
    "weights_hashes",
]
