"""Weights that learned from other people than the cohort's: what their figures do not say."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from attack_cohorts import SIZE, real_images

from gmia_monai.data import load_cohort
from gmia_monai.data.cohort import Cohort
from gmia_monai.evaluation.origin import origin_notes
from gmia_monai.networks import IdentityNet, save_network

COHORT = Cohort(real_images("origin", 40).cohort.records, findings=("Effusion",))
ROLES = {"members": "S", "training": "S+A"}
MODELS = Path(__file__).parents[2] / "bundle" / "models"


def _save(folder: Path, name: str, patients: str) -> None:
    arguments = {"image_size": SIZE, "architecture": "small_pooled", "embedding_dim": 16}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_network(folder / f"{name}.safetensors", IdentityNet(**arguments), arguments, patients=patients)


def test_weights_of_the_own_patients_need_no_note(tmp_path):
    assert origin_notes(COHORT, ROLES, None) == origin_notes(COHORT, ROLES, tmp_path) == {}
    _save(tmp_path, "identity", COHORT.role("S").patients_hash)
    _save(tmp_path, "arcface_1", COHORT.role("S+A").patients_hash)
    assert origin_notes(COHORT, ROLES, tmp_path) == {}


@pytest.mark.parametrize("of", ["", "T"])
def test_weights_of_others_or_of_nobody_knows_whom_are_named(tmp_path, of):
    patients = COHORT.role(of).patients_hash if of else ""
    _save(tmp_path, "identity", patients)
    assert set(origin_notes(COHORT, ROLES, tmp_path)) == {"members"}
    _save(tmp_path, "arcface_1", patients)
    notes = origin_notes(COHORT, ROLES, tmp_path)
    assert set(notes) == {"members", "trained_elsewhere"}
    assert "identity learned from other patients than those of role S" in notes["members"]
    assert notes["trained_elsewhere"].startswith("arcface_1 learned from other patients")


def test_the_order_of_images_does_not_change_whose_they_are():
    turned = Cohort(COHORT.records[::-1], findings=COHORT.findings)
    assert turned.patients_hash == COHORT.patients_hash != Cohort(COHORT.records[3:]).patients_hash


def test_the_weights_of_the_bundle_say_from_whom_they_learned():
    if not os.environ.get("GMIA_CXR_DIR"):
        pytest.skip("needs the development radiographs, GMIA_CXR_DIR")
    assert origin_notes(load_cohort(None, os.environ["GMIA_CXR_DIR"], 64), ROLES, MODELS) == {}
    assert set(origin_notes(COHORT, ROLES, MODELS)) == {"members", "trained_elsewhere"}
