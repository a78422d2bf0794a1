"""The retrieval network of Packhäuser et al.: its config on the drawn cohort, and that it learns to find people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from ignite.engine import Events
from monai.bundle import ConfigParser, ConfigWorkflow

from gmia_monai.attacks.attackers.trained import TrainedAttacker
from gmia_monai.data.phantom import generate_cohort
from gmia_monai.networks import RetrievalNet
from gmia_monai.networks.pretrained import load_recorded

CONFIGS = Path(__file__).parents[2] / "bundle" / "configs"
FILES = [str(CONFIGS / name) for name in ("train_identity.yaml", "systems/retrieval.yaml")]
PROFILE = str(CONFIGS / "profiles" / "cxr64_retrieval.yaml")
META = {"version": "0", "monai_version": "1", "pytorch_version": "2", "numpy_version": "2"}
ROLES = ("S", "S", "A", "V1", "V2", "T")
pytestmark = pytest.mark.filterwarnings("ignore:parsing config")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    path = generate_cohort(tmp_path_factory.mktemp("phantom"), 24, 3, size=32, formats=("png",))
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    number = {patient: i for i, patient in enumerate(dict.fromkeys(table["patient_id"]))}
    table["split"] = [ROLES[number[patient] % len(ROLES)] for patient in table["patient_id"]]
    table.to_csv(path, index=False)
    return path


def _workflow(manifest: Path, root: Path, **values: Any) -> ConfigWorkflow:
    (root / "metadata.json").write_text(json.dumps(META))
    small = {
        "manifest": str(manifest), "output_dir": str(root / "retrieval"), "image_size": 32, "max_epochs": 1,
        "epoch_length": 2, "batch_size": 8, "val_interval": 1, "device": "cpu", "amp": False,
        "identity#architecture": "small", "retrieval#grid": 1, "retrieval#hidden": 16, "retrieval#memory_size": 16,
    }  # fmt: skip
    files = [*FILES, PROFILE]
    return ConfigWorkflow(
        files, str(root / "metadata.json"), False, run_id="training", workflow_type="train", **small | values
    )


def test_two_iterations_leave_weights_that_search(manifest, tmp_path):
    workflow = _workflow(manifest, tmp_path)
    workflow.initialize()
    workflow.run()
    evaluator = workflow.parser.get_parsed_content("validate#evaluator")
    assert evaluator.state.key_metric_name == "map_at_r" and 0 <= evaluator.state.best_metric <= 1
    learned = workflow.parser.get_parsed_content("learned")
    assert len(learned) == 36, "three images of each patient of S and A"
    workflow.finalize()
    network = load_recorded(tmp_path / "retrieval" / "models", "retrieval")
    assert isinstance(network, RetrievalNet)
    attacker = TrainedAttacker("retrieval", [tmp_path / "retrieval" / "models" / "retrieval.safetensors"])
    attacker.fit(None, 0)
    pixels = np.random.default_rng(0).random((3, 1, 32, 32), dtype=np.float32)
    found = attacker.embed_real(pixels)
    scores = attacker.compare_all(found, found)
    distance = np.linalg.norm(found[:, None] - found[None], axis=-1)
    np.testing.assert_allclose(scores, -distance, atol=1e-4)


def test_the_loss_falls_and_a_frozen_trunk_stays(manifest, tmp_path):
    """The images as they are: what is drawn anew at each step is for longer trainings."""
    still = {f"identity#{key}": 0.0 for key in ("rotate_deg", "zoom", "contrast", "erase_prob")}
    values: dict[str, Any] = still | {"identity#shift_px": 0} | {
        "identity#mirrored_patients": False, "retrieval#dropout": [0.0, 0.0], "retrieval#hidden": 64,
        "retrieval#memory_size": 64, "batch_size": 16,
    }  # fmt: skip
    losses: dict[bool, list[float]] = {}
    for frozen, steps in ((False, 60), (True, 2)):
        root = tmp_path / str(frozen)
        root.mkdir()
        workflow = _workflow(manifest, root, **values, **{"retrieval#frozen_trunk": frozen, "epoch_length": steps})
        workflow.initialize()
        trainer, network = (workflow.parser.get_parsed_content(name) for name in ("train#trainer", "network"))
        trunk, head = (module.weight.detach().clone() for module in (network.trunk.conv1, network.squeeze))
        found = losses[frozen] = []
        trainer.add_event_handler(
            Events.ITERATION_COMPLETED, lambda engine, kept=found: kept.append(float(engine.state.output["loss"]))
        )
        workflow.run()
        assert torch.equal(trunk, network.trunk.conv1.weight) == frozen
        assert not torch.equal(head, network.squeeze.weight) and len(found) == steps
    assert np.mean(losses[False][-10:]) < 0.8 * np.mean(losses[False][:10]), losses[False]


def test_the_paper_profile_trains_for_as_many_images_and_rises_as_high():
    config = ConfigParser.load_config_files([*FILES, str(CONFIGS / "profiles" / "cxr1024_retrieval.yaml")])
    assert config["epoch_length"] == 61_755 // config["batch_size"]
    parser = ConfigParser(config)
    parser["train_items"] = [{"label": 0}] * 2  # no images are read
    parser["device"] = "cpu"
    parser["network_def"] = RetrievalNet("small", grid=1, hidden=8)
    scheduler, optimizer = (parser.get_parsed_content(name) for name in ("lr_scheduler", "optimizer"))
    assert isinstance(optimizer, torch.optim.SGD)
    steps = config["max_epochs"] * config["epoch_length"]
    rates = []
    for _ in range(0, 3000):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates[0] == pytest.approx(0.158489 / 25)
    rise = 0.3 * (steps + 1) - 1
    expected = rates[0] + (0.158489 - rates[0]) * (1 - np.cos(np.pi * 2999 / rise)) / 2
    assert rates[-1] == pytest.approx(expected)
    assert optimizer.param_groups[0]["momentum"] == pytest.approx(0.95, abs=0.01)
    assert optimizer.param_groups[0]["weight_decay"] == 1e-5 and optimizer.param_groups[1]["weight_decay"] == 0.0
