"""A cohort with the roles of the protocol, and the plan of a benchmark of seconds; shared by several test files."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attack_cohorts import SIZE, real_images
from PIL import Image

from gmia_monai.data.manifest import read_manifest
from gmia_monai.evaluation.benchmark import BenchmarkPlan
from gmia_monai.evaluation.command import Judgement
from gmia_monai.networks import IdentityNet, save_network
from gmia_monai.report.evaluation import report_handlers

_ROLES = {"s": "S", "a": "A", "v": "V2", "t": "T"}
SYSTEMS: dict[str, dict[str, Any]] = {
    "unchanged": {"name": "identity"},
    "noise": {"name": "noise"},
    "gmia_m0": {"name": "gmia", "margin_cos": 0.0, "needs": ["aegan", "identity", "utility"]},
}
ATTACKS = ["cost", "singling_out", "linkability"]


def write_cohort(folder: Path, n_patients: int = 8) -> Path:
    """Images of each role as files; gives their manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [["image", "patient_id", "view", "sex", "age", "split"]]
    for name, role in _ROLES.items():
        real = real_images(name, n_patients)
        for i, record in enumerate(real.cohort):
            file = f"{name}_{i}.png"
            Image.fromarray(np.round(real.pixels[i, 0] * 255).astype(np.uint8)).save(folder / file)
            rows.append([file, record.patient_id, record.view, record.sex, str(record.age), role])
    manifest = folder / "manifest.csv"
    with manifest.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(rows)
    return manifest


def write_models(folder: Path) -> Path:
    """A frozen attacker, and nothing else."""
    arguments = {"image_size": SIZE, "architecture": "small", "embedding_dim": 16}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_network(folder / "identity.safetensors", IdentityNet(**arguments), arguments)
    return folder


def tiny_plan(manifest: Path, models: Path, out: Path, **more: Any) -> BenchmarkPlan:
    """A plan with short attacks; ``more`` are its fields, or those of its judgement."""
    judgement = {
        "attacks": ATTACKS,
        "attackers": ["metadata", "frozen"],
        "seeds": [0],
        "refit": {"steps": 2},
        "n_boot": 5,
        "n_members": 0,
        "more_handlers": report_handlers,
    }
    fields = {"systems": SYSTEMS, "image_size": SIZE, "cost_images": 4, "results_dir": out / "lines"}
    for key, value in more.items():
        (judgement if key in Judgement.__dataclass_fields__ else fields)[key] = value
    return BenchmarkPlan(read_manifest(manifest), judgement=Judgement(models, **judgement), output_dir=out, **fields)
