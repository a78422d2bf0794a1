"""Positive controls on real radiographs: what is planted, and that the lines of the full run ring."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from attack_cohorts import real_images

from gmia_monai.metrics.results import RunContext, read_results

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def check():
    spec = importlib.util.spec_from_file_location("check_controls", ROOT / "scripts" / "check_controls.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("change", ["exact", "noise", "blur", "shift", "mirror"])
def test_every_fifth_image_is_a_training_image(check, change):
    real, training = real_images("t"), real_images("s")
    release = check.planted(real, training, change, 0)
    places = np.arange(0, len(real), 5)
    others = np.setdiff1d(np.arange(len(real)), places)
    assert release.kind == "generated" and np.array_equal(release.pixels[others], real.pixels[others])
    distance = np.abs(release.pixels[places, None] - training.pixels[None]).mean(axis=(2, 3, 4)).min(1)
    assert (distance == 0).all() if change == "exact" else (distance > 0.01).all()


def test_an_auto_encoder_that_knows_its_images_by_heart_rings(check):
    parts = {"training": real_images("s", 16), "own": real_images("a"), "choice": real_images("v")}
    parts |= {"judged": real_images("t"), "members": real_images("s", 16)}
    lines = check.membership_control(parts, 400, 50, RunContext("by heart", "cxr32"))
    worst = next(line for line in lines if line.name == "membership_auc.worst.v1")
    assert worst.value > 0.7 and worst.system == "by heart"


def test_the_lines_of_the_full_run_ring():
    lines = read_results(ROOT / "bundle/docs/results/controls.jsonl")
    worst = next(line for line in lines if line.name == "membership_auc.worst.v1")
    assert worst.low > 0.5
    for change in ("exact", "noise", "blur", "shift", "mirror"):
        system = f"planted copies, {change}"
        found = next(line for line in lines if (line.name, line.system) == ("memorised_excess.pixels.v1", system))
        assert found.low > 0.15
