"""Probes are run like attacks: what they need, what they leave out, and that they give the lines of what they wrap."""

from __future__ import annotations

import pytest
import torch
from attack_cohorts import SIZE, judged, knowledge, real_images, released

from gmia_monai.errors import UsageError
from gmia_monai.evaluation.classifiers import TransferRecipe
from gmia_monai.evaluation.probes import SMALL_RECIPES, FidelityProbe, TransferProbe
from gmia_monai.metrics.results import RunContext
from gmia_monai.networks import UtilityNet, save_network

CONTEXT = RunContext("unchanged", "test")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        arguments = {"n_findings": 2, "architecture": "small"}
        save_network(folder / "utility.safetensors", UtilityNet(**arguments), arguments, findings=["Effusion", "Mass"])
    return folder


def _values(results):
    return {line.name: line.value for line in results}


def test_fidelity_takes_the_recorded_network_and_is_perfect_for_unchanged_images(models):
    probe = FidelityProbe.from_weights(models, n_boot=5)
    probe.fit(knowledge("unchanged"))
    values = _values(probe.score(judged("unchanged"), CONTEXT))
    assert values["fidelity_ssim.v1"] == pytest.approx(1.0) and values["feature_drift.loss.v1"] == 0.0
    assert values["fidelity_lpips_cxr.v1"] == pytest.approx(0.0, abs=1e-6)
    worse = _values(probe.score(judged("noise"), CONTEXT))
    assert worse["fidelity_ssim.v1"] < 0.5 and worse["feature_drift.loss.v1"] > 0 and worse["kid.loss.v1"] > 0


def test_without_weights_fidelity_is_of_pixels_alone():
    names = _values(FidelityProbe.from_weights(None, n_boot=5).score(judged("unchanged"), CONTEXT)).keys()
    assert "fidelity_psnr.v1" in names and not any("loss" in name or "lpips" in name for name in names)


def test_training_on_the_release_itself_loses_nothing(tmp_path):
    recipe = TransferRecipe("small", steps=2, batch_size=8, validate_every=1)
    training = released(real_images("s", 60), "unchanged")
    probe = TransferProbe(training, tmp_path, [recipe], seeds=(0,), n_boot=5)
    known = knowledge("unchanged")
    probe.fit(known)
    values = _values(probe.score(judged("unchanged"), CONTEXT))
    assert values["utility_macro_auroc_loss.released_to_real.small.v1"] == 0.0
    assert list(tmp_path.iterdir()), "kept for the next release"


def test_training_needs_a_release_to_learn_from(tmp_path):
    probe = TransferProbe(None, tmp_path)
    probe.fit(knowledge("unchanged"))
    with pytest.raises(UsageError, match="GM-U331"):
        probe.score(judged("unchanged"), CONTEXT)


def test_the_two_recipes_are_of_unlike_architectures():
    for recipe in SMALL_RECIPES:
        assert UtilityNet(2, recipe.architecture)(torch.rand(1, 1, SIZE * 2, SIZE * 2)).shape == (1, 2)
    assert len({recipe.architecture for recipe in SMALL_RECIPES}) == 2
