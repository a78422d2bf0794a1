"""Inferers: reconstruction and latent optimisation."""

from __future__ import annotations

from gmia_monai.inferers.autocast import AutocastInferer, computes_bfloat16
from gmia_monai.inferers.drawing import DrawingInferer
from gmia_monai.inferers.latent_inferer import LatentOptimizationInferer
from gmia_monai.inferers.latent_optimization import LatentOptimizationResult, optimize_latents
from gmia_monai.inferers.reconstruction import ReconstructionInferer

__all__ = [
    "AutocastInferer",
    "DrawingInferer",
    "LatentOptimizationInferer",
    "LatentOptimizationResult",
    "ReconstructionInferer",
    "computes_bfloat16",
    "optimize_latents",
]
