"""``train_patients.yaml`` in process, two iterations on a small drawn cohort."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow

from gmia_monai.data.phantom import generate_cohort
from gmia_monai.handlers.checkpoint import find_last_checkpoint
from gmia_monai.networks import IdentityNet, load_recorded, pretrained, save_network
from gmia_monai.networks.patient_classifier import PatientClassifier
from gmia_monai.weights import read_index

CONFIGS = Path(__file__).parents[2] / "bundle" / "configs"
CONFIG = str(CONFIGS / "train_patients.yaml")
PROFILE = str(CONFIGS / "profiles" / "cxr64_patients.yaml")
META = {"version": "0", "monai_version": "1", "pytorch_version": "2", "numpy_version": "2"}
SMALL: dict[str, Any] = {
    "image_size": 32,
    "max_epochs": 1,
    "epoch_length": 2,
    "batch_size": 4,
    "val_interval": 1,
    "device": "cpu",
    "amp": False,
    "patients#embedding_dim": 16,
}


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    monkeypatch.setitem(pretrained.NETWORKS, "PatientClassifier", PatientClassifier)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate_cohort(tmp_path_factory.mktemp("phantom"), 12, 3, size=32, formats=("png",))


def _workflow(manifest: Path, folder: Path, **overrides: Any) -> ConfigWorkflow:
    meta = folder / "metadata.json"
    meta.write_text(json.dumps(META))
    values = SMALL | {"manifest": str(manifest), "output_dir": str(folder / "out")} | overrides
    return ConfigWorkflow(
        [CONFIG, PROFILE], str(meta), logging_file=False, run_id="training", workflow_type="train", **values
    )


def test_two_iterations_leave_a_classifier_of_all_patients(manifest, tmp_path):
    arguments = {"image_size": 32, "architecture": "small_pooled", "embedding_dim": 16, "dropout": 0.1}
    start = IdentityNet(**arguments)
    save_network(tmp_path / "identity.safetensors", start, arguments)
    workflow = _workflow(manifest, tmp_path, **{"patients#init_from": str(tmp_path / "identity.safetensors")})
    workflow.initialize()
    assert workflow.check_properties() == []
    workflow.run()
    workflow.finalize()
    parser = workflow.parser
    roles = parser.get_parsed_content("roles")
    learned, held = parser.get_parsed_content("train_items"), parser.get_parsed_content("val_items")
    n_patients = len(roles["S"].patients)
    assert list(roles) == ["S"] and n_patients > 1
    assert len(held) == n_patients and len(learned) == 2 * n_patients, "one of three images is held out of each"
    assert not {i["key"] for i in learned} & {i["key"] for i in held}

    network = load_recorded(tmp_path / "out" / "models", "plan_identity")
    assert isinstance(network, PatientClassifier) and network.head.out_features == n_patients
    recorded = read_index(tmp_path / "out" / "models")["plan_identity"]
    assert recorded["patients"] == roles["S"].patients_hash
    state = torch.load(find_last_checkpoint(tmp_path / "out" / "checkpoints"), weights_only=True)
    assert state["engine"] == {"epoch": 1, "iteration": 2}
    assert all(torch.equal(v, state["network"][k]) for k, v in network.state_dict().items())
    moved = (network.encoder.fc.weight - start.fc.weight).abs()
    assert 0 < moved.max() < 0.1, "it started from the encoder that was given"
    evaluator = parser.get_parsed_content("validate#evaluator")
    with torch.no_grad():
        images = torch.stack([evaluator.data_loader.dataset[i]["image"] for i in range(len(held))])
        right = network(images).argmax(1) == torch.tensor([item["label"] for item in held])
    assert evaluator.state.metrics["held_out_accuracy"] == pytest.approx(float(right.float().mean()))


def test_the_profile_only_sets_what_the_config_knows():
    base, profile = ConfigParser.load_config_file(CONFIG), ConfigParser.load_config_file(PROFILE)
    for key, value in profile.items():
        if key.startswith("+"):
            assert value.keys() <= base[key[1:]].keys()
        else:
            assert key in base and not isinstance(base[key], dict), key
    parser = ConfigParser()
    parser.read_config([CONFIG, PROFILE])
    assert 0.0 < parser.get_parsed_content("ema#momentum") < 1.0
