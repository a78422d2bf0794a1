"""Probes are run like attacks: what they need, what they leave out, and that they give the lines of what they wrap."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from attack_cohorts import SIZE, judged, knowledge, real_images, released

from gmia_monai.attacks.base import Judged, TooLittleDataError
from gmia_monai.data.release import Convergence
from gmia_monai.errors import UsageError
from gmia_monai.evaluation.case import Case
from gmia_monai.evaluation.classifiers import TransferRecipe
from gmia_monai.evaluation.probes import SMALL_RECIPES, FidelityProbe, ReleaseProbe, TransferProbe, transfer_recipes
from gmia_monai.evaluation.suite import attack_engine, member_fingerprints, run_attacks
from gmia_monai.handlers.attacks import AttackLines
from gmia_monai.metrics.intervals import patient_bootstrap_figures
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


def test_converged_images_are_counted_by_patient():
    plain = judged("noise")
    n = len(plain.release)
    converged = np.arange(n) % 6 < 3  # every other patient
    found = Convergence(converged, np.full(n, 7), {"lr": 0.1}, "in words")
    probe = ReleaseProbe(n_boot=50)
    probe.fit(knowledge("noise"))
    (line,) = probe.score(Judged(plain.real, replace(plain.release, convergence=found)), CONTEXT)
    assert (line.name, line.value, line.n_images, line.n_patients) == ("release_converged.v1", 0.5, n, n // 3)
    (expected,) = patient_bootstrap_figures(
        [lambda w: (float(np.average(converged, weights=w)),)], plain.real.cohort.patient_index, 50
    )
    assert (line.low, line.high) == pytest.approx(expected[1:], abs=1e-6) and line.low < 0.4
    assert line.extra == {"mean_steps": 7.0, "settings": {"lr": 0.1}, "description": "in words"}
    with pytest.raises(TooLittleDataError, match="GM-U357"):
        probe.score(plain, CONTEXT)


def test_converged_images_of_several_sources_are_counted_one_by_one():
    plain = judged("noise")
    release = plain.release.take([0, 1, 2, 3])
    found = Convergence(np.array([True, True, True, False]), np.full(4, 5), {})
    release = replace(release, sources=((0, 4), (1, 7), (2, 10), (3, 13)), convergence=found)
    (line,) = ReleaseProbe(n_boot=20).score(Judged(plain.real, release), CONTEXT)
    assert (line.value, line.n_images) == (0.75, 4) and line.low < 0.75 <= line.high
    assert line.n_patients == len(set(plain.real.cohort.patient_index[[0, 4, 1, 7, 2, 10, 3, 13]].tolist()))


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


def test_another_network_than_that_in_the_loss_is_taken_where_the_utility_probe_left_one(tmp_path, models, caplog):
    caplog.set_level("WARNING")
    recipe = TransferRecipe("small_densenet", steps=2, batch_size=8, validate_every=1)
    known, training = knowledge("noise"), released(real_images("s", 60), "noise")
    where = {"training": training, "cache_dir": tmp_path, "recipe": recipe}
    findings = training.real.cohort.findings
    probes = FidelityProbe(None, n_boot=5, **where), FidelityProbe.from_weights(models, 5, **where)
    for probe in probes:
        probe.fit(known)
        assert "other" not in probe.networks
    assert "holds no small_densenet" in caplog.text and "are not those of the one in the loss" in caplog.text
    FidelityProbe.from_weights(models, 5).fit(known)
    assert "no release of patients of the training role" in caplog.text
    utility = TransferProbe(training, tmp_path, [recipe], seeds=(0,), n_boot=5)
    utility.fit(known)
    utility.score(judged("noise"), CONTEXT)
    kept = sorted(tmp_path.iterdir())
    probe = probes[0]
    probe.fit(known)
    lines = {line.name: line for line in probe.score(judged("noise"), CONTEXT)}
    assert lines["kid.other.v1"].value > 0 and lines["feature_drift.other.v1"].value > 0
    assert set(lines["logit_drift.other.v1"].extra["per_finding"]) == set(findings)
    assert sorted(tmp_path.iterdir()) == kept, "nothing is trained for it"
    probes[1].fit(known)
    assert set(probes[1].networks) == {"loss"}, "other findings have other logits"


def test_training_on_the_release_itself_loses_nothing(tmp_path):
    recipe = TransferRecipe("small", steps=2, batch_size=8, validate_every=1)
    training = released(real_images("s", 60), "unchanged")
    probe = TransferProbe(training, tmp_path, [recipe], seeds=(0,), n_boot=5)
    known = knowledge("unchanged")
    probe.fit(known)
    lines = probe.score(judged("unchanged"), CONTEXT)
    assert _values(lines)["utility_macro_auroc_loss.released_to_real.small.v1"] == 0.0
    assert all(line.extra["in_loss"] for line in lines)
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


def test_the_first_recipe_is_of_the_network_in_the_loss(models, tmp_path):
    assert transfer_recipes(None) == transfer_recipes(models) == SMALL_RECIPES
    found = {}
    for architecture in ("small_densenet", "densenet121"):
        arguments = {"n_findings": 2, "architecture": architecture}
        save_network(tmp_path / architecture / "utility.safetensors", UtilityNet(**arguments), arguments)
        recipes = transfer_recipes(tmp_path / architecture)
        found[architecture] = [recipe.architecture for recipe in recipes]
        assert FidelityProbe.from_weights(tmp_path / architecture, 5).recipe == recipes[1]
        assert len(TransferProbe(None, tmp_path, recipes).own_facts(knowledge("noise"))) == 8
    assert found == {"small_densenet": ["small_densenet", "small"], "densenet121": ["densenet121", "small"]}
    assert TransferProbe(None, tmp_path).own_facts(knowledge("noise")) == "", "as it was"


def test_lines_of_the_first_recipe_alone_are_marked(tmp_path):
    recipes = [TransferRecipe(name, steps=1, batch_size=8, validate_every=1) for name in ("small_densenet", "small")]
    probe = TransferProbe(released(real_images("s", 60), "unchanged"), tmp_path, recipes, seeds=(0,), n_boot=5)
    probe.fit(knowledge("unchanged"))
    lines = probe.score(judged("unchanged"), CONTEXT)
    marked = {line.name.split(".")[2] for line in lines if "in_loss" in line.extra}
    assert marked == {"small_densenet"} != {line.name.split(".")[2] for line in lines}


def test_fidelity_is_done_again_when_its_other_network_has_turned_up(tmp_path):
    training = released(real_images("s", 60), "noise")
    known = replace(knowledge("noise"), members=training)
    case = Case(known, judged("noise"), "ab" * 32, "cd" * 32)
    recipe = TransferRecipe("small_densenet", steps=2, batch_size=8, validate_every=1)
    where = {"training": training, "cache_dir": tmp_path / "classifiers"}

    def run(*names):
        made = {
            "utility": TransferProbe(recipes=[recipe], seeds=(0,), n_boot=5, **where),
            "fidelity": FidelityProbe(n_boot=5, recipe=recipe, **where),
        }
        context = replace(CONTEXT, config_hash="ef" * 8)
        engine = attack_engine(case, made, context)
        lines = AttackLines(tmp_path / "out", "ef" * 8, names, member_fingerprints(case, "ef" * 8))
        results = {line.name: line for line in run_attacks(engine, lines)}
        return results, lines.pending()

    alone, pending = run("fidelity")
    assert "kid.other.v1" not in alone and pending == []
    both, pending = run("utility", "fidelity")
    assert both["kid.other.v1"].value > 0 and pending == []
    assert both["kid.other.v1"].config_hash.startswith(alone["fidelity_psnr.v1"].config_hash)
    assert both["kid.other.v1"].config_hash != alone["fidelity_psnr.v1"].config_hash
    for path in (tmp_path / "classifiers").glob("*.safetensors"):
        path.unlink()
    again, _ = run("fidelity")
    assert "kid.other.v1" not in again, "lines are those of the network that is there"
