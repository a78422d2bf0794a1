"""scripts/export_bundle.py: what it writes, what it refuses."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import yaml
from monai.apps.utils import HashCheckError
from monai.bundle import ConfigParser, download_large_files
from torch import nn

from gmia_monai.errors import IntegrityError, UsageError
from gmia_monai.networks import load_anonymizer
from gmia_monai.weights import read_index


def test_folder_holds_a_bundle_of_the_zoo(exported):
    for name in ("LICENSE", "configs/metadata.json", "configs/inference.yaml", "configs/train.yaml", "models/model.pt"):
        assert (exported / name).is_file(), name
    assert "Apache License" in (exported / "LICENSE").read_text()
    assert (
        list((exported / "configs" / "profiles").glob("*.yaml")) and (exported / "configs" / "logging.conf").is_file()
    )
    assert (exported / "gmia_monai" / "inferers" / "latent_optimization.py").is_file()
    assert not list(exported.rglob("__pycache__")) and not list(exported.parent.glob(".*"))


def test_configs_are_written_for_the_folder_itself(exported):
    for path in (exported / "configs").rglob("*.yaml"):
        text = path.read_text()
        assert "bundle/" not in text, path.name
        assert "bundle_root" not in text or "bundle_root: ." in text.splitlines(), path.name
    parser = ConfigParser()
    parser.read_config(exported / "configs" / "inference.yaml")
    assert parser.get_parsed_content("models_dir") == "./models"
    train = yaml.safe_load((exported / "configs" / "train.yaml").read_text())
    assert train["aegan"]["perceptual_weights"] == "models/utility.safetensors"


def test_paths_in_pages_are_rewritten_and_others_are_not(exporter):
    text = "run --config_file bundle/configs/train.yaml, see ['bundle/models/a', mybundle/docs, monai/bundle/docs]"
    expected = "run --config_file configs/train.yaml, see ['models/a', mybundle/docs, monai/bundle/docs]"
    assert exporter.from_inside(text) == expected
    assert exporter.from_inside("a: 1\nbundle_root: bundle  # here\nb: 2\n") == "a: 1\nbundle_root: .\nb: 2\n"


def test_weights_are_those_recorded(exported, models_dir):
    assert read_index(exported / "models") == read_index(models_dir)
    state = torch.load(exported / "models" / "model.pt", weights_only=True)
    source = load_anonymizer(models_dir).state_dict()
    assert list(state) == list(source)
    for name, tensor in source.items():
        given = state[name].to(tensor.dtype)
        exact = tensor.ndim < 2 or not tensor.is_floating_point() or state[name].dtype == torch.float32
        torch.testing.assert_close(given, tensor, **({"rtol": 0, "atol": 0} if exact else {"rtol": 1e-3, "atol": 1e-6}))


def test_every_file_over_the_limit_is_listed_with_its_hash(exported, exporter, tmp_path):
    large = {p.relative_to(exported).as_posix() for p in exported.rglob("*") if p.stat().st_size > exporter.MAX_BYTES}
    listed = exported / "large_files.yml"
    entries = yaml.safe_load(listed.read_text())["large_files"] if listed.exists() else []
    assert {entry["path"] for entry in entries} == large
    for entry in entries:
        assert entry["url"] == f"https://files.example.org/v1/{entry['path']}" and entry["hash_type"] == "sha256"
    if entries:
        download_large_files(bundle_path=str(exported))  # there already: checks the hashes only
        (tmp_path / "models").mkdir()
        shutil.copy(listed, tmp_path)
        (tmp_path / entries[0]["path"]).write_bytes(b"something else")
        with pytest.raises(HashCheckError):
            download_large_files(bundle_path=str(tmp_path))


@pytest.mark.parametrize(("limit", "dtype", "listed"), [(10_000, "32", 0), (4_500, "16", 0), (100, "16", 1)])
def test_model_goes_to_float16_and_then_to_the_list(exporter, tmp_path, limit, dtype, listed):
    network = nn.Linear(32, 32)
    with torch.no_grad():
        network.bias[0] = 1e6  # vectors stay as they are
    line = exporter._save_model(network, tmp_path / "model.pt", limit)
    assert f"float{dtype}" in line
    state = torch.load(tmp_path / "model.pt", weights_only=True)
    assert str(state["weight"].dtype) == f"torch.float{dtype}" and state["bias"][0] == 1e6
    lines = exporter._list_large_files(tmp_path, exporter.URL, limit)
    assert (tmp_path / "large_files.yml").exists() == bool(listed)
    assert len(lines) == 2 * listed and (not listed or "placeholder" in lines[-1])


def test_a_weight_beyond_float16_is_refused(exporter):
    with pytest.raises(IntegrityError, match="GM-W020"):
        exporter.halved({"weight": torch.full((2, 2), 1e6)})


def test_an_earlier_export_is_replaced_and_nothing_else(exporter, exported, models_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(exporter, "_network", lambda _: nn.Linear(2, 2))
    again = tmp_path / "again"
    shutil.copytree(exported / "configs", again / "configs")
    shutil.copytree(exported / "gmia_monai", again / "gmia_monai")
    (again / "configs" / "stale.yaml").write_text("a: 1\n")
    exporter.export_bundle(again, models_dir)
    assert not (again / "configs" / "stale.yaml").exists() and (again / "models" / "model.pt").is_file()

    (again / "output").mkdir()
    (again / "output" / "trained.safetensors").write_text("hours of work")
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("years of work")
    for folder in (
        again,
        other,
        other / "thesis.txt",
        exporter.SOURCE,
        exporter.SOURCE / "models" / "x",
        exporter.ROOT,
    ):
        with pytest.raises(UsageError, match="GM-U090"):
            exporter.export_bundle(folder, models_dir)
    assert (again / "output" / "trained.safetensors").is_file() and (other / "thesis.txt").is_file()
    (other / "thesis.txt").unlink()
    exporter.export_bundle(other, models_dir)
    assert (other / "LICENSE").is_file()


def test_a_failure_leaves_the_earlier_export_and_no_rubbish(exporter, models_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(exporter, "_network", lambda _: nn.Linear(2, 2))
    target = tmp_path / "bundle"
    exporter.export_bundle(target, models_dir)
    before = (target / "models" / "model.pt").read_bytes()

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(exporter, "_list_large_files", full)
    with pytest.raises(OSError, match="no space"):
        exporter.export_bundle(target, models_dir)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert (target / "models" / "model.pt").read_bytes() == before


def test_missing_or_changed_weights_give_one_line(exporter, models_dir, tmp_path, capsys):
    target = tmp_path / "out"
    (tmp_path / "none").mkdir()
    assert exporter.main(["--output_dir", str(target), "--models_dir", str(tmp_path / "none")]) == 3
    error = capsys.readouterr().err
    assert error.startswith("error: GM-W001") and error.count("\n") == 1

    changed = tmp_path / "changed"
    shutil.copytree(models_dir, changed)
    with (changed / "identity.safetensors").open("ab") as file:
        file.write(b"\0")
    assert exporter.main(["--output_dir", str(target), "--models_dir", str(changed)]) == 3
    assert "GM-W002" in capsys.readouterr().err
    assert not target.exists()


def test_metadata_of_another_image_size_is_refused(exporter, models_dir, tmp_path, monkeypatch):
    source = tmp_path / "bundle"
    shutil.copytree(exporter.SOURCE / "configs", source / "configs")
    path = source / "configs" / "metadata.json"
    metadata = json.loads(path.read_text())
    metadata["network_data_format"]["inputs"]["image"]["spatial_shape"] = [128, 128]
    path.write_text(json.dumps(metadata))
    monkeypatch.setattr(exporter, "SOURCE", source)
    with pytest.raises(IntegrityError, match="GM-W021"):
        exporter.export_bundle(tmp_path / "out", models_dir)
