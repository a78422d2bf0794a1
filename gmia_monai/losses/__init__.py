"""Losses: adversarial, perceptual, identity and utility."""

from __future__ import annotations

from gmia_monai.losses.adversarial import (
    PathLengthPenalty,
    discriminator_logistic_loss,
    generator_logistic_loss,
    r1_penalty,
)
from gmia_monai.losses.classification import ArcFace, MaskedBCE, positive_weights
from gmia_monai.losses.identity import cosine, identity_hinge
from gmia_monai.losses.perceptual import LPIPS, CXRPerceptualLoss, make_perceptual_loss
from gmia_monai.losses.retrieval import MemoryContrastive
from gmia_monai.losses.style import crop_grams, local_style
from gmia_monai.losses.utility import utility_drift
from gmia_monai.losses.verification import PairBCE

__all__ = [
    "LPIPS",
    "ArcFace",
    "CXRPerceptualLoss",
    "MaskedBCE",
    "MemoryContrastive",
    "PairBCE",
    "PathLengthPenalty",
    "cosine",
    "crop_grams",
    "discriminator_logistic_loss",
    "generator_logistic_loss",
    "identity_hinge",
    "local_style",
    "make_perceptual_loss",
    "positive_weights",
    "r1_penalty",
    "utility_drift",
]
