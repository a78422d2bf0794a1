"""Handlers: checkpoints, seeds, gradients, progress, tracking, validation metrics."""

from __future__ import annotations

from gmia_monai.handlers.anonymization import AnonymizationWriter
from gmia_monai.handlers.attacks import AttackLines
from gmia_monai.handlers.checkpoint import ResumableCheckpoint
from gmia_monai.handlers.determinism import EpochSeed
from gmia_monai.handlers.findings import FindingsMetric
from gmia_monai.handlers.generation import NegativeKID
from gmia_monai.handlers.gradients import GradientHandler
from gmia_monai.handlers.progress import ProgressLine
from gmia_monai.handlers.reconstruction import ReconstructionPictures, quality_metrics
from gmia_monai.handlers.retrieval import RetrievalMAP
from gmia_monai.handlers.tracking import RunTracker
from gmia_monai.handlers.verification import VerificationAUC

__all__ = [
    "AnonymizationWriter",
    "AttackLines",
    "EpochSeed",
    "FindingsMetric",
    "GradientHandler",
    "NegativeKID",
    "ProgressLine",
    "ReconstructionPictures",
    "ResumableCheckpoint",
    "RetrievalMAP",
    "RunTracker",
    "VerificationAUC",
    "quality_metrics",
]
