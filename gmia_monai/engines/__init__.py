"""Engines: AE-GAN co-training, and what the training configs are wired with."""

from __future__ import annotations

from gmia_monai.engines.aegan import AEGANTrainer
from gmia_monai.engines.batches import AugmentedBatch, batch_as_target
from gmia_monai.engines.blocks import PatientBlockSampler
from gmia_monai.engines.datasets import (
    disjoint_roles,
    identity_datalist,
    make_dataset,
    scored_findings,
    select_findings,
)
from gmia_monai.engines.distributed import start_processes, stop_processes
from gmia_monai.engines.finish import save_trained, start_from, start_verifier_from, with_frozen_synthesis
from gmia_monai.engines.gan import GANTrainer
from gmia_monai.engines.optimizers import lazy_adam, make_optimizer, warm_up_decay
from gmia_monai.engines.prior import fit_prior, train_prior
from gmia_monai.engines.sampling import EpochSampler, PatientPairSampler, patient_balanced_weights
from gmia_monai.engines.units import UnitDataset, run_units, unit_batch, unit_loader

__all__ = [
    "AEGANTrainer",
    "AugmentedBatch",
    "EpochSampler",
    "GANTrainer",
    "PatientBlockSampler",
    "PatientPairSampler",
    "UnitDataset",
    "batch_as_target",
    "disjoint_roles",
    "fit_prior",
    "identity_datalist",
    "lazy_adam",
    "make_dataset",
    "make_optimizer",
    "patient_balanced_weights",
    "run_units",
    "save_trained",
    "scored_findings",
    "select_findings",
    "start_from",
    "start_verifier_from",
    "start_processes",
    "stop_processes",
    "train_prior",
    "unit_batch",
    "unit_loader",
    "warm_up_decay",
    "with_frozen_synthesis",
]
