"""train_confusion.yaml on a small drawn cohort: the three trainings, their weights, their resuming, their profiles."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
from ignite.engine import Events
from monai.bundle import ConfigParser, ConfigWorkflow

from gmia_monai.data import load_cohort
from gmia_monai.data.phantom import generate_cohort
from gmia_monai.errors import UsageError
from gmia_monai.handlers.checkpoint import find_last_checkpoint
from gmia_monai.networks import SiameseVerifier, UtilityNet, save_network
from gmia_monai.networks.deformation import DeformationNet
from gmia_monai.networks.image_translation import TranslationNet
from gmia_monai.networks.pretrained import NETWORKS, load_recorded

CONFIGS = Path(__file__).parents[2] / "bundle" / "configs"
CONFIG = CONFIGS / "train_confusion.yaml"
PROFILES = {"prichexy": DeformationNet, "privacy_net": TranslationNet, "privacy_net_port": TranslationNet}
META = {"version": "0", "monai_version": "1", "pytorch_version": "2", "numpy_version": "2"}
SMALL: dict[str, Any] = {
    "image_size": 32,
    "max_epochs": 1,
    "epoch_length": 2,
    "batch_size": 4,
    "val_interval": 1,
    "device": "cpu",
    "amp": False,
    "confusion#features": [4, 4, 8, 8, 8, 4],
    "confusion#pretraining": 1,
    "confusion#val_images": 8,
}


@pytest.fixture(scope="module", autouse=True)
def known_networks() -> None:
    for kind in PROFILES.values():
        NETWORKS.setdefault(kind.__name__, kind)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate_cohort(tmp_path_factory.mktemp("phantom"), 12, 2, size=32, formats=("png",))


@pytest.fixture(scope="module")
def models(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, findings = tmp_path_factory.mktemp("models"), list(load_cohort(manifest).findings or ())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        verifier = {"architecture": "small", "features": 8, "dropout": 0.1}
        save_network(folder / "verifier.safetensors", SiameseVerifier(**verifier), verifier)
        utility = {"n_findings": len(findings), "architecture": "small", "dropout": 0.1}
        save_network(folder / "utility.safetensors", UtilityNet(**utility), utility, findings=findings)
    return folder


@pytest.fixture(scope="module")
def workflow(manifest: Path, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., ConfigWorkflow]:
    meta = tmp_path_factory.mktemp("meta") / "metadata.json"
    meta.write_text(json.dumps(META))

    def make(profile: str, output_dir: Path, run_id: str = "training", **overrides: Any) -> ConfigWorkflow:
        places = {"manifest": str(manifest), "models_dir": str(models), "output_dir": str(output_dir)}
        files = [str(CONFIG), str(CONFIGS / "profiles" / f"cxr64_{profile}.yaml")]
        return ConfigWorkflow(
            files, str(meta), False, run_id=run_id, workflow_type="train", **SMALL | places | overrides
        )

    return make


def _train(w: ConfigWorkflow, stop_at: int = 0) -> list[dict[str, float]]:
    """Runs a workflow; the losses of each iteration. An interruption comes after iteration ``stop_at``."""
    w.initialize()
    trainer = w.parser.get_parsed_content("train#trainer")
    losses: list[dict[str, float]] = []

    @trainer.on(Events.ITERATION_COMPLETED)
    def record(engine: Any) -> None:
        losses.append({"iteration": engine.state.iteration} | dict(engine.state.output))
        if engine.state.iteration == stop_at:
            raise KeyboardInterrupt

    trainer.run()
    return losses


@pytest.mark.parametrize("profile", PROFILES)
def test_two_iterations_of_each_leave_weights_that_load(workflow, tmp_path, profile):
    w = workflow(profile, tmp_path / profile)
    w.initialize()
    assert w.check_properties() == []
    w.run()
    w.finalize()
    state = torch.load(find_last_checkpoint(tmp_path / profile / "checkpoints"), weights_only=True)
    assert state["engine"] == {"epoch": 1, "iteration": 2}
    # the loss of minimax is lowest where the verifier errs most, so that no epoch is its best
    assert ("best" in state) == (profile != "privacy_net")
    assert math.isfinite(state.get("best", {"metric": 0.0})["metric"])
    network = load_recorded(tmp_path / profile / "models", profile)
    assert type(network) is PROFILES[profile]
    assert all(torch.equal(v, state["network"][k]) for k, v in network.state_dict().items())
    images = torch.rand(2, 1, 32, 32)
    out = network(images)
    assert out.shape == images.shape and 0.0 <= out.min() and out.max() <= 1.0
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("confusion").experiment_id])
    assert run.info.status == "FINISHED" and run.data.params["confusion.name"] == profile
    assert {"loss", "verifier_loss", "val_total_loss", "val_verifier_loss"} <= run.data.metrics.keys()


def test_the_critics_start_from_their_weights_and_the_best_epoch_has_the_lowest_loss(workflow, tmp_path, models):
    w = workflow("prichexy", tmp_path / "run", max_epochs=3, **{"confusion#pretraining": 0})
    w.initialize()
    verifier = w.parser.get_parsed_content("verifier")
    start = load_recorded(models, "verifier").state_dict()
    assert all(torch.equal(v, start[k]) for k, v in verifier.state_dict().items())
    evaluator, seen = w.parser.get_parsed_content("validate#evaluator"), []
    evaluator.add_event_handler(Events.COMPLETED, lambda e: seen.append(e.state.metrics["total_loss"]))
    w.run()
    assert any(not torch.equal(v, start[k]) for k, v in verifier.state_dict().items())
    best = torch.load(tmp_path / "run" / "checkpoints" / "best.pt", weights_only=True)
    assert len(set(seen)) == 3 and best["best"]["epoch"] == seen.index(min(seen)) + 1


def test_the_identity_of_the_first_phase_is_not_chosen(workflow, tmp_path):
    w = workflow("prichexy", tmp_path / "run", max_epochs=3, **{"confusion#pretraining": 4})
    w.initialize()
    evaluator, seen = w.parser.get_parsed_content("validate#evaluator"), []
    evaluator.add_event_handler(Events.COMPLETED, lambda e: seen.append(e.state.epoch))
    w.run()
    best = torch.load(tmp_path / "run" / "checkpoints" / "best.pt", weights_only=True)
    assert seen == [3] and best["best"]["epoch"] == best["engine"]["epoch"] == 3


@pytest.mark.parametrize("profile", ["prichexy", "privacy_net"])
def test_a_resumed_run_has_the_losses_of_an_uninterrupted_one(workflow, tmp_path, profile):
    overrides = {"epoch_length": 2, "max_epochs": 3, "confusion#pretraining": 3}
    whole = _train(workflow(profile, tmp_path / "whole", **overrides))
    with pytest.raises(KeyboardInterrupt):
        _train(workflow(profile, tmp_path / "parts", **overrides), stop_at=5)
    resumed = _train(workflow(profile, tmp_path / "parts", **overrides))
    assert [r["iteration"] for r in resumed] == [5, 6] and len({r["loss"] for r in whole}) == 6
    assert resumed == whole[4:]
    assert [r["verifier_loss"] > 0 for r in whole] == [False] * 3 + [True] * 3


def test_a_classifier_without_names_is_refused(workflow, tmp_path, models):
    arguments = {"n_findings": 3, "architecture": "small"}
    save_network(models / "unnamed.safetensors", UtilityNet(**arguments), arguments)
    w = workflow("prichexy", tmp_path / "out", **{"confusion#classifier": "unnamed"})
    w.initialize()
    with pytest.raises(RuntimeError) as caught:  # MONAI wraps what happens in an expression
        w.run()
    cause: BaseException | None = caught.value
    while cause is not None and not isinstance(cause, UsageError):
        cause = cause.__cause__
    assert isinstance(cause, UsageError) and cause.code == "GM-U049"


@pytest.mark.parametrize("profile", PROFILES)
def test_profiles_only_set_what_the_config_knows(profile):
    base = ConfigParser.load_config_file(CONFIG)
    for key, value in ConfigParser.load_config_file(CONFIGS / "profiles" / f"cxr64_{profile}.yaml").items():
        if key.startswith("+"):
            assert value.keys() <= base[key[1:]].keys()
        else:
            assert key in base and not isinstance(base[key], dict), key
    assert base["confusion"]["mu"] == 0.01 and base["confusion"]["features"] == [32, 64, 128, 256, 512, 32]
