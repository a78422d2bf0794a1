"""Every learned system: two iterations of its training config on the drawn cohort, then through the benchmark."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from tiny_bundle import save_tiny
from tiny_diffusion import ARGUMENTS as DIFFUSION

from gmia_monai.data import load_cohort
from gmia_monai.data.phantom import generate_cohort
from gmia_monai.metrics.results import read_results
from gmia_monai.networks import IdentityNet, UtilityNet, save_network
from gmia_monai.weights import read_index
from gmia_monai.workflows import BenchmarkWorkflow

CONFIGS = Path(__file__).parents[2] / "bundle" / "configs"
META = {"version": "0", "monai_version": "1", "pytorch_version": "2", "numpy_version": "2"}
SIZES = {"latent_dim": 512, "channel_base": 256, "channel_max": 32}
COMMON: dict[str, Any] = {
    "image_size": 32, "max_epochs": 1, "epoch_length": 2, "batch_size": 4, "val_interval": 1, "device": "cpu",
}  # fmt: skip
CONFUSION = {
    "amp": False,
    "confusion#features": [4, 4, 8, 8, 8, 4],
    "confusion#pretraining": 1,
    "confusion#val_images": 8,
}
# Short settings in the place of those of benchmark.yaml.
SHORT: dict[str, dict[str, Any]] = {
    "gmia": {"max_steps": 2, "min_steps": 1, "compiled": False, "bfloat16": False},
    "gmia_e": {"max_steps": 2, "min_steps": 1, "compiled": False, "bfloat16": False},
    "falco": {"n_steps": 2, "n_synthetic": 8},
    "k_salsa": {"n_steps": 2},
    "plan": {"steps": 2},
    "latent_diffusion": {"n_steps": 2},
    "robust": {"steps": 2},
    "robust_groups": {"steps": 2},
}
ROLES = ("S", "S", "A", "V1", "V2", "T", "T")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:parsing config")]


def _collect(folder: Path, models: Path) -> None:
    """Takes the weights of a training into the models folder."""
    index = read_index(models) | read_index(folder)
    for file in folder.glob("*.safetensors"):
        shutil.copy(file, models / file.name)
    (models / "index.json").write_text(json.dumps(index))


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    path = generate_cohort(tmp_path_factory.mktemp("phantom"), 77, 2, size=32, formats=("png",))
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    number = {patient: i for i, patient in enumerate(dict.fromkeys(table["patient_id"]))}
    table["split"] = [ROLES[number[patient] % len(ROLES)] for patient in table["patient_id"]]
    table.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def models(manifest, tmp_path_factory) -> Path:
    """Reference networks without training, and all that ``train_systems.sh`` makes, two iterations each."""
    root = tmp_path_factory.mktemp("trained")
    (root / "metadata.json").write_text(json.dumps(META))
    folder = save_tiny(root / "models")
    findings = list(load_cohort(manifest).findings or ())
    arguments = {"n_findings": len(findings), "architecture": "small"}
    save_network(folder / "utility.safetensors", UtilityNet(**arguments), arguments, findings=findings)
    shape = {"image_size": 32, "architecture": "small_pooled", "embedding_dim": 16}
    save_network(folder / "identity.safetensors", IdentityNet(**shape), shape)

    def train(name: str, *files: str, **values: Any) -> Path:
        places = {"manifest": str(manifest), "output_dir": str(root / name)}
        workflow = ConfigWorkflow(
            [str(CONFIGS / file) for file in files],
            str(root / "metadata.json"),
            False,
            run_id="training",
            workflow_type="train",
            **COMMON | places | values,
        )
        workflow.initialize()
        workflow.run()
        workflow.finalize()
        _collect(root / name / "models", folder)
        return root / name / "models"

    def recorded(name: str) -> str:
        return str(folder / f"{name}.safetensors")

    generator = {f"generator#{key}": value for key, value in SIZES.items()} | {"generator#mapping_layers": 2}
    train("generator", "train_generator.yaml", **generator, **{"generator#features": recorded("utility")})
    train(
        "e_training",
        "train.yaml",
        "systems/e_training.yaml",
        **{f"aegan#{key}": value for key, value in SIZES.items()},
        **{"aegan#perceptual": "none", "aegan#adversarial_weight": 0.0, "aegan#path_length_interval": 0},
        **{"e_training#generator": recorded("generator")},
    )
    encoder = {"identity#embedding_dim": 16, "identity#min_images_per_patient": 2, "amp": False}
    train(
        "verifier",
        *("train_identity.yaml", "systems/siamese.yaml", "profiles/cxr64_verifier.yaml"),
        **encoder,
    )
    train(
        "retrieval",
        *("train_identity.yaml", "systems/retrieval.yaml", "profiles/cxr64_retrieval.yaml"),
        **encoder,
        **{"retrieval#grid": 2, "retrieval#hidden": 16},
    )
    train("identity_second", "train_identity.yaml", "profiles/cxr64_identity_second.yaml", **encoder)
    train(
        "plan_identity",
        *("train_patients.yaml", "profiles/cxr64_patients.yaml"),
        **{"patients#embedding_dim": 16, "amp": False, "patients#min_images_held_out": 2},
    )
    for name in ("prichexy", "privacy_net", "privacy_net_port"):
        train(name, "train_confusion.yaml", f"profiles/cxr64_{name}.yaml", models_dir=str(folder), **CONFUSION)
    diffusion = {f"diffusion#{k}": v for k, v in DIFFUSION.items() if k not in ("image_size", "findings")} | {
        "diffusion#val_steps": 2,
        "diffusion#val_images": 4,
        "diffusion#features": recorded("utility"),
        "diffusion#perceptual_weights": recorded("utility"),
    }
    first = train("diffusion_autoencoder", "train_diffusion.yaml", **diffusion, stage="autoencoder")
    start = {"diffusion#init_from": str(first / "latent_diffusion.safetensors")}
    train("latent_diffusion", "train_diffusion.yaml", **diffusion, **start, stage="diffusion")
    for name, autoencoder in (("prior", "aegan"), ("prior_e", "aegan_e")):
        workflow = ConfigWorkflow(
            str(CONFIGS / "train_prior.yaml"),
            str(root / "metadata.json"),
            False,
            run_id="training",
            workflow_type="train",
            **{"manifest": str(manifest), "output_dir": str(root / name), "models_dir": str(folder), "device": "cpu"},
            **{"image_size": 32, "prior#rank": 4, "prior#name": name, "prior#autoencoder": autoencoder},
        )
        workflow.run()
        _collect(root / name / "models", folder)
    return folder


def test_every_system_goes_through_the_benchmark(manifest, models, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # the config sets its own
    systems = ConfigParser.load_config_file(str(CONFIGS / "benchmark.yaml"))["systems"]
    for entry in systems.values():
        entry |= {key: value for key, value in SHORT.get(entry["name"], {}).items() if entry.get("steps") != 0}
    changed = tmp_path / "short.json"
    changed.write_text(json.dumps({"systems": systems}))
    with torch.random.fork_rng():
        workflow = BenchmarkWorkflow(
            [str(CONFIGS / "benchmark.yaml"), str(changed)],
            logging_file=False,
            real=str(manifest),
            dataset_dir="",
            models_dir=str(models),
            output_dir=str(tmp_path / "out"),
            docs_dir=str(tmp_path / "docs"),
            image_size=32,
            device="cpu",
            pages=False,
            **{
                "suite#attacks": ["cost", "singling_out", "presence"],
                "suite#attackers": ["metadata", "frozen"],
                "suite#seeds": [0],
                "suite#n_boot": 5,
                "suite#n_members": 0,
                "suite#cost_images": 24,
            },
        )
        workflow.initialize()
        workflow.run()
    outcome = workflow.outcome
    assert not outcome.left_out and not outcome.failed, (outcome.left_out, outcome.failed)
    assert set(outcome.done) == set(systems)
    lines = tmp_path / "docs" / "results" / "systems"
    names = {}
    for system in systems:
        found = read_results(lines / f"{system}.jsonl")
        names[system] = {line.system for line in found}
        assert {"cost_seconds_per_image.v1"} < {line.name for line in found}, system
    assert len(set.union(*names.values())) == len(systems), "a name of its own for each"
