"""The three training configs, in process, on a small drawn cohort: what they write and log, and how they resume."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.bundle import ConfigParser, ConfigWorkflow
from PIL import Image

from gmia_monai.data.phantom import generate_cohort
from gmia_monai.errors import ManifestError
from gmia_monai.handlers.checkpoint import find_last_checkpoint
from gmia_monai.networks.pretrained import load_network

CONFIGS = Path(__file__).parents[2] / "bundle" / "configs"
NAMES = {"aegan": "train.yaml", "identity": "train_identity.yaml", "utility": "train_utility.yaml"}
OVERRIDES = "manifest dataset_dir output_dir image_size max_epochs epoch_length batch_size seed device".split()
META = {"version": "0", "monai_version": "1", "pytorch_version": "2", "numpy_version": "2"}
COMMON: dict[str, Any] = {
    "image_size": 32,
    "max_epochs": 1,
    "epoch_length": 2,
    "batch_size": 4,
    "val_interval": 1,
    "device": "cpu",
}
SMALL: dict[str, dict[str, Any]] = {
    "aegan": {
        "aegan#latent_dim": 16,
        "aegan#channel_base": 256,
        "aegan#channel_max": 16,
        "aegan#perceptual": "none",
        "aegan#ema_kimg": 0.05,
        "aegan#r1_interval": 2,
        "aegan#path_length_interval": 2,
    },
    "identity": {"identity#embedding_dim": 16, "identity#margin_ramp_epochs": 2, "identity#dropout": 0.1},
    "utility": {"utility#min_positives_val": 1, "utility#contrast": 0.2, "utility#shift_px": 2},
}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate_cohort(tmp_path_factory.mktemp("phantom"), 12, 2, size=32, formats=("png",))


@pytest.fixture(scope="module")
def workflow(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., ConfigWorkflow]:
    meta = tmp_path_factory.mktemp("meta") / "metadata.json"
    meta.write_text(json.dumps(META))

    def make(kind: str, output_dir: Path | str, run_id: str = "training", **overrides: Any) -> ConfigWorkflow:
        values = COMMON | SMALL[kind] | {"manifest": str(manifest), "output_dir": str(output_dir)} | overrides
        return ConfigWorkflow(
            str(CONFIGS / NAMES[kind]), str(meta), False, run_id=run_id, workflow_type="train", **values
        )

    return make


@pytest.fixture(scope="module")
def runs(workflow: Callable[..., ConfigWorkflow], tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """One short training of each config, in the order in which they depend on each other."""
    root = tmp_path_factory.mktemp("runs")
    for kind in ("utility", "identity", "aegan"):
        extra = {}
        if kind == "aegan":
            weights = str(root / "utility" / "models" / "utility.safetensors")
            extra = {"aegan#perceptual": "lpips_cxr", "aegan#perceptual_weights": weights}
        w = workflow(kind, root / kind, **extra)
        w.initialize()
        w.run()
        w.finalize()
    client = mlflow.MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    logged = {}
    for kind in NAMES:
        experiment = client.get_experiment_by_name(kind)
        logged[kind] = client.search_runs([experiment.experiment_id])
    return SimpleNamespace(root=root, client=client, logged=logged)


def _train(w: ConfigWorkflow, stop: Callable[[Any], None] | None = None) -> list[dict[str, float]]:
    """Runs a workflow; the losses of each iteration. ``stop`` is called after each iteration and may raise."""
    w.initialize()
    trainer = w.parser.get_parsed_content("train#trainer")
    losses: list[dict[str, float]] = []

    @trainer.on(Events.ITERATION_COMPLETED)
    def record(engine: Any) -> None:
        out = engine.state.output
        row = {k: float(v) for k, v in out.items() if isinstance(v, float) or getattr(v, "ndim", 1) == 0}
        losses.append({"iteration": engine.state.iteration} | row)
        if stop is not None:
            stop(engine)

    trainer.run()
    return losses


def _runs_of(root: Path, name: str) -> list[Any]:
    client = mlflow.MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    return client.search_runs([client.get_experiment_by_name(name).experiment_id], order_by=["start_time ASC"])


@pytest.mark.parametrize("kind", NAMES)
def test_two_iterations_leave_a_checkpoint_and_weights_that_load(runs, kind):
    folder = runs.root / kind
    state = torch.load(find_last_checkpoint(folder / "checkpoints"), weights_only=True)
    assert state["engine"] == {"epoch": 1, "iteration": 2}
    network = load_network(folder / "models" / f"{kind}.safetensors")
    saved = network.state_dict()
    assert saved.keys() == state["network"].keys()
    assert all(torch.equal(v, state["network"][k]) for k, v in saved.items())
    assert all(torch.isfinite(v).all() for v in saved.values() if v.is_floating_point())


@pytest.mark.parametrize("kind", NAMES)
def test_the_mlflow_run_is_finished_with_parameters_metrics_and_settings(runs, kind):
    (run,) = runs.logged[kind]
    assert run.info.status == "FINISHED"
    assert run.info.run_name.startswith(f"{kind}-")
    assert {"image_size", "batch_size", "seed", "n_images"} <= run.data.params.keys()
    assert any(k.startswith(f"{kind}.") for k in run.data.params)
    names = {"aegan": "val_psnr", "identity": "val_verification_auc", "utility": "val_macro_auroc"}
    assert {"loss", names[kind]} <= run.data.metrics.keys()
    assert all(math.isfinite(v) for v in run.data.metrics.values())
    assert "settings.json" in [a.path for a in runs.client.list_artifacts(run.info.run_id)]


def test_the_aegan_logs_its_pictures_and_saves_its_discriminator(runs):
    (run,) = runs.logged["aegan"]
    (picture,) = runs.client.list_artifacts(run.info.run_id, "images")
    local = runs.root / "aegan" / "pictures" / Path(picture.path).name
    pixels = np.asarray(Image.open(local))
    assert pixels.shape == (3 * 32, 4 * 32)  # three rows of the four validation images
    assert pixels[:32].std() > 0
    assert {"perceptual_loss", "generator_loss", "discriminator_loss", "val_perceptual"} <= run.data.metrics.keys()
    assert run.data.metrics["perceptual_loss"] > 0
    load_network(runs.root / "aegan" / "models" / "discriminator.safetensors")


@pytest.mark.parametrize("kind", NAMES)
def test_nothing_that_is_logged_names_a_patient_or_a_folder(runs, manifest, kind):
    (run,) = runs.logged[kind]
    texts = [f"{k}={v}" for k, v in (run.data.params | run.data.tags).items()]
    texts.append((runs.root / kind / "settings.json").read_text())
    for text in texts:
        assert "PHX" not in text and str(manifest.parent) not in text and str(runs.root) not in text, text


@pytest.mark.parametrize("kind", NAMES)
def test_configs_have_the_promised_overrides_and_properties(workflow, tmp_path, kind):
    w = workflow(kind, tmp_path / kind)
    raw = ConfigParser.load_config_file(CONFIGS / NAMES[kind])
    assert set(OVERRIDES) <= raw.keys()
    w.initialize()
    assert w.check_properties() == []


@pytest.mark.parametrize("kind", NAMES)
def test_plain_run_trains_as_run_training_does(runs, workflow, tmp_path, kind):
    w = workflow(kind, tmp_path / kind, run_id="run", val_interval=9)
    w.initialize()
    w.run()
    assert w.parser.get_parsed_content("train#trainer").state.iteration == 2
    assert find_last_checkpoint(tmp_path / kind / "checkpoints") is not None


def test_a_manifest_without_validation_patients_is_refused(workflow, manifest, tmp_path):
    rows = manifest.read_text().splitlines()
    other = tmp_path / "manifest.csv"
    other.write_text("\n".join([rows[0], *(r for r in rows if r.endswith("train"))]))
    w = workflow("identity", tmp_path / "out", manifest=str(other), dataset_dir=str(manifest.parent))
    w.initialize()
    with pytest.raises(RuntimeError) as caught:  # MONAI wraps what happens in an expression
        w.run()
    assert isinstance(caught.value.__cause__, ManifestError) and caught.value.__cause__.code == "GM-M035"


def _without_stale(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    """The penalties of lazy regularisers are repeated until they are measured again; keeps them where they are."""
    every = {"r1_penalty": 2, "path_length_penalty": 2}
    return [{k: v for k, v in r.items() if (r["iteration"] - 1) % every.get(k, 1) == 0} for r in rows]


@pytest.mark.parametrize("kind", ["aegan", "identity", "utility"])
def test_a_resumed_run_has_the_losses_of_an_uninterrupted_one(workflow, tmp_path, kind):
    overrides = {"epoch_length": 3, "max_epochs": 3, "batch_size": 4}
    whole = _train(workflow(kind, tmp_path / "whole", **overrides))

    def stop(engine: Any) -> None:
        if engine.state.iteration == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _train(workflow(kind, tmp_path / "parts", **overrides), stop)
    folder = tmp_path / "parts" / "checkpoints"
    assert sorted(p.name for p in folder.iterdir() if p.name != "best.pt") == ["checkpoint_epoch=1.pt"]
    resumed = _train(workflow(kind, tmp_path / "parts", **overrides))
    assert [r["iteration"] for r in resumed] == [4, 5, 6, 7, 8, 9]
    assert len({r["loss"] for r in whole}) == 9  # else equality would say nothing
    assert _without_stale(resumed) == _without_stale(whole[3:])
    a, b = (torch.load(tmp_path / n / "checkpoints" / "checkpoint_epoch=3.pt") for n in ("whole", "parts"))
    for name in a.keys() - {"engine", "best", "g_scheduler", "lr_scheduler"}:
        for key, value in _tensors(a[name]).items():
            assert torch.equal(value, _tensors(b[name])[key]), (name, key)
    assert [r.info.status for r in _runs_of(tmp_path, kind)] == ["FINISHED", "KILLED", "FINISHED"]


def _tensors(state: dict[str, Any]) -> dict[str, torch.Tensor]:
    flat = {}
    for k, v in state.items():
        if isinstance(v, torch.Tensor):
            flat[str(k)] = v
        elif isinstance(v, dict):
            flat.update({f"{k}.{n}": t for n, t in _tensors(v).items()})
    return flat


def test_an_error_in_an_epoch_leaves_a_failed_run_and_a_whole_checkpoint(workflow, tmp_path):
    def stop(engine: Any) -> None:
        if engine.state.iteration == 3:
            raise ValueError("planted")

    with pytest.raises(ValueError, match="planted"):
        _train(workflow("identity", tmp_path / "run", max_epochs=2), stop)
    names = [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()]
    assert sorted(names) == ["best.pt", "checkpoint_epoch=1.pt"]
    assert [r["iteration"] for r in _train(workflow("identity", tmp_path / "run", max_epochs=2))] == [3, 4]
    runs = _runs_of(tmp_path, "identity")
    assert [r.info.status for r in runs] == ["FAILED", "FINISHED"]
    assert len({r.info.run_name for r in runs}) == 2


def test_a_finished_run_is_not_trained_again(runs, workflow, tmp_path):
    shutil.copytree(runs.root / "identity", tmp_path / "identity")
    assert _train(workflow("identity", tmp_path / "identity")) == []


PROFILES = sorted(p.name for p in (CONFIGS / "profiles").glob("*.yaml"))


def _base_of(profile: str) -> str:
    of_identity = ("identity", "attacker", "siamese", "verifier", "retrieval", "gate")
    parts = (
        {"gate_utility": "train_utility.yaml"}
        | dict.fromkeys(of_identity, "train_identity.yaml")
        | {
            "utility": "train_utility.yaml",
            "evaluate": "evaluate.yaml",
            "benchmark": "benchmark.yaml",
            "generator": "train_generator.yaml",
            "patients": "train_patients.yaml",
            "prichexy": "train_confusion.yaml",
            "privacy_net": "train_confusion.yaml",
            "diffusion": "train_diffusion.yaml",
        }
    )
    return next((v for k, v in parts.items() if k in profile), "train.yaml")


@pytest.mark.parametrize("profile", PROFILES)
def test_profiles_only_set_what_the_config_knows(profile):
    base = ConfigParser.load_config_file(CONFIGS / _base_of(profile))
    if "retrieval" in profile:  # some of its settings come with the network
        base |= {"retrieval": ConfigParser.load_config_file(CONFIGS / "systems" / "retrieval.yaml")["retrieval"]}
    for key, value in ConfigParser.load_config_file(CONFIGS / "profiles" / profile).items():
        if key.startswith("+"):
            assert value.keys() <= base[key[1:]].keys(), profile
        else:
            assert key in base and not isinstance(base[key], dict), (profile, key)


AVERAGED = [p for p in PROFILES if "ema" in ConfigParser.load_config_file(CONFIGS / _base_of(p))]


@pytest.mark.parametrize("profile", AVERAGED)
def test_weights_of_each_profile_can_be_averaged(profile):
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / _base_of(profile)), str(CONFIGS / "profiles" / profile)])
    # Ignite refuses a momentum of exactly 1, which a half-life far below a batch rounds to.
    assert 0.0 < parser.get_parsed_content("ema#momentum") < 1.0


@pytest.mark.parametrize("profile", ["cxr128.yaml", "cxr128_identity.yaml", "cxr128_utility.yaml"])
def test_networks_of_the_one_gpu_profiles_take_their_size(profile, manifest):
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / _base_of(profile)), str(CONFIGS / "profiles" / profile)])
    parser.update({"manifest": str(manifest), "device": "cpu"})
    network = parser.get_parsed_content("network_def").eval()
    size = parser.get_parsed_content("image_size")
    with torch.no_grad():
        out = network(torch.zeros(1, 1, size, size))
    assert size == 128 and out.shape[0] == 1 and torch.isfinite(out).all()
    assert parser.get_parsed_content("amp") is False


def test_the_paper_profile_trains_for_as_many_images_as_the_paper():
    config = ConfigParser.load_config_files([str(CONFIGS / "train.yaml"), str(CONFIGS / "profiles" / "cxr256.yaml")])
    images = config["max_epochs"] * config["epoch_length"] * config["batch_size"]
    assert images == pytest.approx(6_854_000, rel=0.005)
    assert config["epoch_length"] == 50_875 // config["batch_size"]


def test_the_paper_profile_takes_those_of_its_findings_that_the_data_have(manifest):
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / "train_utility.yaml"), str(CONFIGS / "profiles" / "cxr256_utility.yaml")])
    parser.update({"manifest": str(manifest)})
    known = parser.get_parsed_content("cohort").findings
    wanted = ["Lung Opacity", "Atelectasis", "Pleural Effusion", "Support Devices"]
    assert parser.get_parsed_content("findings") == ([f for f in wanted if f in known] or list(known))
