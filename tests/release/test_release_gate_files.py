"""Calibration of the gate from images: what is written, what it says, and what it is for."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from benchmark_cohort import write_cohort

from gmia_monai.data.load import load_cohort
from gmia_monai.errors import IntegrityError, UsageError
from gmia_monai.evaluation.read import read_real
from gmia_monai.networks import IdentityNet, UtilityNet, load_recorded, save_network
from gmia_monai.release.calibration import read_calibration
from gmia_monai.release.gate_files import CALIBRATION, calibrate_gate
from gmia_monai.release.watching import NetworkWatch

N = 130  # patients of each role: tails of strangers need many pairs


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return load_cohort(write_cohort(tmp_path_factory.mktemp("real"), N), image_size=32)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    for name, network, arguments in (
        ("gate", IdentityNet, {"image_size": 32, "architecture": "small_dense_pooled", "embedding_dim": 16}),
        ("gate_utility", UtilityNet, {"n_findings": 3, "architecture": "small_densenet"}),
    ):
        save_network(folder / f"{name}.safetensors", network(**arguments), arguments)
    return folder


@pytest.fixture(scope="module")
def figures(cohort, models):
    return calibrate_gate(cohort, models, 32)


def test_what_is_written_is_read_by_the_gate(figures, models, cohort):
    watch = NetworkWatch.from_weights(models)
    calibration, digest = read_calibration(models / CALIBRATION, watch.weights)
    assert digest == figures.sha256 and calibration == figures.calibration
    assert set(watch.weights) == {"gate.safetensors", "gate_utility.safetensors", "gate_known.safetensors"}
    assert calibration.n_patients == N and calibration.image_size == 32
    learned = read_real(cohort.role("S"), 32).pixels[:, 0]
    assert watch.nearest_copy(learned[:20]).min() > 0.999
    assert len(load_recorded(models, "gate_known").learned) == len(learned)


def test_limits_are_quantiles_of_strangers(figures, models, cohort):
    """Restated with the network alone, over other draws of strangers."""
    real = read_real(cohort.role("V2"), 32)
    with torch.no_grad():
        embedded = torch.nn.functional.normalize(load_recorded(models, "gate")(torch.from_numpy(real.pixels))).numpy()
    patient = real.cohort.patient_index
    cosines = embedded @ embedded.T
    apart = cosines[patient[:, None] != patient[None]]
    low, high = figures.calibration.limits["0.1"]
    assert np.quantile(apart, [0.1, 0.9]) == pytest.approx([low, high], abs=0.05)
    assert 0 <= figures.calibration.held_strangers[0] <= 0.1
    assert figures.strange == pytest.approx(0.01, abs=0.01) and figures.copies[0] < figures.copies[2] < 1


def test_another_network_under_the_name_is_refused(models, tmp_path):
    shutil.copytree(models, tmp_path / "models")
    save_network(
        tmp_path / "models" / "gate.safetensors", UtilityNet(2, "small"), {"n_findings": 2, "architecture": "small"}
    )
    with pytest.raises(IntegrityError, match="GM-W309"):
        NetworkWatch.from_weights(tmp_path / "models")


def test_a_calibration_of_other_networks_is_refused(figures, models, tmp_path):
    watch = NetworkWatch.from_weights(models)
    with pytest.raises(IntegrityError, match="GM-W307"):
        read_calibration(models / CALIBRATION, watch.weights | {"gate.safetensors": "0" * 64})
    assert json.loads((models / CALIBRATION).read_text())["protocol"] == "v1"


def test_too_few_patients_are_refused(models, tmp_path):
    few = load_cohort(write_cohort(tmp_path / "few", 21), image_size=32)
    folder = tmp_path / "models"
    folder.mkdir()
    for name in ("gate.safetensors", "gate_utility.safetensors", "index.json"):
        shutil.copy(models / name, folder)
    with pytest.raises(UsageError, match="GM-U421"):
        calibrate_gate(few, folder, 32)
    assert not (folder / CALIBRATION).exists() and not (folder / "gate_known.safetensors").exists()
