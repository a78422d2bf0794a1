"""The gate that ships: its limits are those that were measured, for its own networks, and what it lacks is said."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy_release import KEY

from gmia_monai.data.phantom import generate_cohort
from gmia_monai.dicom.text import TextDetector
from gmia_monai.errors import IntegrityError, ResourceError, UsageError
from gmia_monai.release.batch import BatchAttack
from gmia_monai.release.gate_files import CALIBRATION
from gmia_monai.release.layout import ODD
from gmia_monai.release.ledger import read_ledger
from gmia_monai.release.opening import Opening, open_parts
from gmia_monai.release.parts import Parts
from gmia_monai.release.places import places_of
from gmia_monai.release.policy import Batch, Checks, Policy, System
from gmia_monai.release.runner import Runner
from gmia_monai.release.verify import verify_folder
from gmia_monai.release.watching import NetworkWatch
from gmia_monai.release.workers import Alone
from gmia_monai.weights import INDEX, read_index

MODELS = Path(__file__).parents[2] / "bundle" / "models"


@pytest.fixture
def no_tesseract(monkeypatch):
    """What is tested here needs no detector but its name."""
    monkeypatch.setattr(TextDetector, "path", "tesseract")
    monkeypatch.setattr(TextDetector, "__call__", lambda self, image: [])


@pytest.fixture(scope="module")
def parts() -> Parts:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TextDetector, "path", "tesseract")
        return open_parts(Policy(), MODELS)


def test_limits_are_those_that_were_measured(parts, no_tesseract):
    measured = json.loads((MODELS / CALIBRATION).read_text())
    assert parts.gate.limits["identity"] == measured["limits"]["0.01"]
    assert parts.gate.limits["contrast"] == [0.05, None] and parts.gate.limits["header"] == [None, 0.0]
    assert parts.rates["held_same"] == measured["held_same"] and parts.rates["n_patients"] == 150
    strict = open_parts(Policy(checks=Checks(identity_share=0.1)), MODELS).gate.limits["identity"]
    assert parts.gate.limits["identity"][0] < strict[0] < strict[1] < parts.gate.limits["identity"][1]


def test_the_networks_that_judge_are_recorded_and_have_no_part_in_making(parts):
    recorded = {entry["sha256"] for entry in read_index(MODELS).values()}
    assert set(parts.watch.weights.values()) <= recorded and len(parts.watch.weights) == 3
    assert set(parts.redraw.weights.values()) <= recorded
    assert not set(parts.watch.weights.values()) & set(parts.redraw.weights.values())


def test_the_attack_on_the_whole_is_built_as_the_policy_says(parts, no_tesseract):
    assert parts.batch is None
    asked = Policy(batch=Batch(attack="report", max_auc=0.7, min_patients=30, folds=4, steps=9))
    attack = open_parts(asked, MODELS).batch
    assert isinstance(attack, BatchAttack) and attack.weights.name == "arcface.safetensors"
    assert (attack.max_auc, attack.min_patients, attack.folds, attack.steps) == (0.7, 30, 4, 9)


def test_what_does_not_fit_is_said(no_tesseract, tmp_path):
    with pytest.raises(IntegrityError, match="GM-W310"):
        open_parts(Policy(system=System(image_size=128)), MODELS)
    with pytest.raises(UsageError, match="GM-U422"):
        open_parts(Policy(checks=Checks(identity_share=0.0001)), MODELS)
    with pytest.raises(UsageError, match="GM-U419"):
        open_parts(Policy(system=System(name="noise")), MODELS)
    for name in (INDEX, *(entry["file"] for entry in read_index(MODELS).values() if "gate" in entry["file"])):
        shutil.copyfile(MODELS / name, tmp_path / name)
    with pytest.raises(IntegrityError, match="GM-W307"):
        open_parts(Policy(), tmp_path)
    measured = json.loads((MODELS / CALIBRATION).read_text())
    measured["weights"] = {name: "0" * 64 for name in measured["weights"]}
    (tmp_path / CALIBRATION).write_text(json.dumps(measured))
    with pytest.raises(IntegrityError, match="GM-W307"):
        open_parts(Policy(), tmp_path)


def test_without_a_detector_of_text_nothing_is_opened(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(NetworkWatch, "from_weights", lambda *given: pytest.fail("networks are opened"))
    with pytest.raises(ResourceError, match="GM-R089"):
        open_parts(Policy(), MODELS)


def test_a_drawn_cohort_goes_through_the_gate_that_ships(no_tesseract, tmp_path):
    generate_cohort(tmp_path / "in", n_patients=6, images_per_patient=1, seed=3)
    places = places_of(tmp_path / "in", tmp_path / "out")
    opening = Opening(KEY, Policy(), places, MODELS)
    assert KEY.hex() not in repr(opening) and repr(KEY) not in repr(opening)
    workshop = opening()
    assert workshop.seed == opening().seed != replace(opening, key=bytes(32))().seed
    try:
        outcome = Runner(workshop, Alone(workshop)).run()
    finally:
        workshop.close()
    released = list((tmp_path / "out" / "images").rglob("*.*"))
    assert outcome.ends["released"] == len(released) > 0 and sum(outcome.ends.values()) > 6
    assert verify_folder(tmp_path / "out", KEY).good
    bodies = [e.body for e in read_ledger(tmp_path / "out" / "ledger.jsonl", KEY) if e.kind == "instance"]
    low, high = workshop.parts.gate.limits["identity"]
    scores = [body["scores"]["identity"] for body in bodies if body["state"] == "released"]
    assert all(low <= found[0] <= found[1] <= high for found in scores)


def test_real_images_are_known_and_what_is_not_a_chest_upright_is_not(parts, cxr_dir):
    files = sorted((cxr_dir / "nih64").glob("*.*"))[:120]
    real = np.stack([np.asarray(Image.open(f).convert("L"), np.float32) / 255 for f in files])
    assert (parts.watch.strangeness(real) <= 1).mean() > 0.95
    for change in ODD.values():
        assert (parts.watch.strangeness(np.ascontiguousarray(change(real))) > 1).mean() > 0.97
