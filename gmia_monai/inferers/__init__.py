"""Inferers: reconstruction and latent optimisation."""

from __future__ import annotations

from gmia_monai.inferers.reconstruction import ReconstructionInferer

__all__ = ["ReconstructionInferer"]
