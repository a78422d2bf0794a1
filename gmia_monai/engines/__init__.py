"""Engines: AE-GAN co-training, and what the training configs are wired with."""

from __future__ import annotations

from gmia_monai.engines.aegan import AEGANTrainer
from gmia_monai.engines.datasets import (
    batch_as_target,
    disjoint_roles,
    identity_datalist,
    make_dataset,
    scored_findings,
    select_findings,
)
from gmia_monai.engines.finish import save_trained, start_from
from gmia_monai.engines.optimizers import lazy_adam, make_optimizer, warm_up_decay
from gmia_monai.engines.sampling import EpochSampler, patient_balanced_weights

__all__ = [
    "AEGANTrainer",
    "EpochSampler",
    "batch_as_target",
    "disjoint_roles",
    "identity_datalist",
    "lazy_adam",
    "make_dataset",
    "make_optimizer",
    "patient_balanced_weights",
    "save_trained",
    "scored_findings",
    "select_findings",
    "start_from",
    "warm_up_decay",
]
