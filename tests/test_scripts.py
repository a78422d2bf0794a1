"""Scripts that put the reference weights into the bundle: what they copy, record and refuse."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import subprocess
from pathlib import Path
from types import ModuleType

import pytest
import torch

from gmia_monai.evaluation.suite import attacker_weights
from gmia_monai.metrics.results import read_results
from gmia_monai.networks import IdentityNet, UtilityNet, load_recorded, save_network
from gmia_monai.weights import read_index, read_metadata

SCRIPTS = Path(__file__).parents[1] / "scripts"
BUNDLE = SCRIPTS.parent / "bundle"


def _script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_collected_weights_are_the_trained_ones_and_keep_what_describes_them(tmp_path):
    collect = _script("collect_weights")
    torch.manual_seed(0)
    identity, utility = IdentityNet(32, "small"), UtilityNet(2)
    for name, network, facts in (
        ("identity", identity, {"image_size": 32, "architecture": "small"}),
        ("utility", utility, {"n_findings": 2}),
    ):
        folder = tmp_path / "runs" / name / "models"
        save_network(folder / f"{name}.safetensors", network, facts, epoch=7, findings=["Mass", "Nodule"])
    models = tmp_path / "models"
    arguments = ["--output_dir", str(tmp_path / "runs"), "--models_dir", str(models), "--names", "identity", "utility"]
    assert collect.main(arguments) == 0
    assert sorted(read_index(models)) == ["identity", "utility"]
    assert read_metadata(models / "utility.safetensors")["findings"] == ["Mass", "Nodule"]
    assert read_metadata(models / "identity.safetensors")["epoch"] == 7
    x = torch.rand(2, 1, 32, 32)
    assert torch.equal(load_recorded(models, "identity")(x), identity.eval()(x))
    # The DenseNet121 is too large for the zoo in float32.
    torch.testing.assert_close(load_recorded(models, "utility")(x), utility.eval()(x), atol=1e-2, rtol=1e-2)
    assert (models / "utility.safetensors").stat().st_size < 15e6


def test_result_lines_are_of_the_weights_that_are_shipped():
    index = read_index(BUNDLE / "models")
    used = {"identity": ["identity"], "utility": ["utility"], "reconstruction": ["aegan"]}
    used["latent_optimization"] = ["aegan", "identity", "utility"]
    for part, models in used.items():
        text = "".join(index[model]["sha256"] for model in models)
        expected = hashlib.sha256(text.encode()).hexdigest()[:16]
        lines = read_results(BUNDLE / "docs" / "results" / f"{part}.jsonl")
        assert lines and {line.config_hash for line in lines} == {expected}


def test_missing_training_is_a_coded_error(tmp_path, capsys):
    collect = _script("collect_weights")
    code = collect.main(["--output_dir", str(tmp_path), "--models_dir", str(tmp_path / "models"), "--names", "aegan"])
    assert code == 3
    assert "GM-W001" in capsys.readouterr().err
    assert not (tmp_path / "models").exists()


def test_evaluation_lines_name_a_command_that_runs_anywhere(tmp_path, monkeypatch):
    evaluate = _script("evaluate_reference")
    save_network(tmp_path / "identity.safetensors", IdentityNet(32, "small"), {"image_size": 32})
    words = ["--dataset_dir", "/some/where", "--parts", "identity"]
    monkeypatch.setattr("sys.argv", ["evaluate_reference.py", *words])
    options = type("Options", (), {"dataset_dir": "/some/where", "models_dir": str(tmp_path)})
    context = evaluate.context(options, "identity_small", "identity")
    assert context.command == "python scripts/evaluate_reference.py --dataset_dir $GMIA_CXR_DIR --parts identity"
    assert len(context.config_hash) == 16


def test_evaluation_of_a_folder_that_is_not_there(tmp_path, capsys):
    evaluate = _script("evaluate_reference")
    assert evaluate.main(["--dataset_dir", str(tmp_path / "nowhere")]) == 2
    assert "GM-M003" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["train_reference.sh", "train_attackers.sh", "train_systems.sh"])
def test_shell_scripts_parse(name):
    assert subprocess.run(["bash", "-n", str(SCRIPTS / name)], check=False).returncode == 0


def test_the_benchmark_of_augmentation_reports_a_ratio(capsys):
    assert _script("benchmark_augmentation").main(["--batch_size", "2", "--image_size", "16", "--repeats", "1"]) == 0
    line = json.loads(capsys.readouterr().out)
    assert line["ratio"] == pytest.approx(line["monai_ms"] / line["batch_ms"])


def test_the_benchmark_of_prelu_reports_a_ratio(capsys):
    assert _script("benchmark_prelu").main(["--batch_size", "2", "--image_size", "8", "--repeats", "1"]) == 0
    line = json.loads(capsys.readouterr().out)
    assert line["ratio"] == pytest.approx(line["torch_ms"] / line["ours_ms"])


def test_attackers_of_several_seeds_are_collected_under_their_own_names(tmp_path):
    collect = _script("collect_weights")
    torch.manual_seed(0)
    arguments = {"image_size": 32, "architecture": "small"}
    networks = {name: IdentityNet(**arguments) for name in ("arcface", "arcface_1")}
    for name, network in networks.items():
        save_network(tmp_path / "runs" / name / "models" / "arcface.safetensors", network, arguments)
    options = ["--output_dir", str(tmp_path / "runs"), "--models_dir", str(tmp_path / "models"), "--names", *networks]
    assert collect.main(options) == 0
    for name, network in networks.items():
        found = load_recorded(tmp_path / "models", name)
        torch.testing.assert_close(found.fc.weight, network.fc.weight.half().float())
    assert [p.stem for p in attacker_weights(tmp_path / "models", "arcface")] == ["arcface", "arcface_1"]
