"""scripts/prichexy_protocol.py: result lines of a small drawn cohort, and its refusals."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

from gmia_monai.data import load_cohort
from gmia_monai.data.phantom import generate_cohort
from gmia_monai.metrics.results import read_results
from gmia_monai.networks import UtilityNet, save_network

SCRIPT = Path(__file__).parents[1] / "scripts" / "prichexy_protocol.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("prichexy_protocol", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    root = tmp_path_factory.mktemp("cohort")
    manifest = generate_cohort(root, 9, 2, size=32, formats=("png",))
    rows = list(csv.DictReader(manifest.open()))
    patients = list(dict.fromkeys(row["patient_id"] for row in rows))
    for row in rows:
        row["split"] = ("A", "V2", "T")[patients.index(row["patient_id"]) % 3]
    with manifest.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    findings = list(load_cohort(manifest).findings or ())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        utility = {"n_findings": len(findings), "architecture": "small"}
        save_network(root / "models" / "utility.safetensors", UtilityNet(**utility), utility, findings=findings)
    places = {"manifest": manifest, "models_dir": root / "models", "output_dir": root, "results": root / "results"}
    small = {"seeds": 2, "steps": 2, "n_boot": 10, "image_size": 32}
    return [part for key, value in (places | small).items() for part in (f"--{key}", str(value))]


def test_lines_of_a_system_are_written(script, arguments):
    assert script.main([*arguments, "--systems", "unchanged"]) == 0
    folder = Path(arguments[arguments.index("--results") + 1])
    lines = {line.name: line for line in read_results(folder / "prichexy_protocol_unchanged.jsonl")}
    assert set(lines) == {"prichexy_protocol_auc.v1", "prichexy_protocol_macro_auroc.v1"}
    auc = lines["prichexy_protocol_auc.v1"]
    assert auc.system == "unchanged" and len(auc.extra["aucs"]) == 2 and auc.n_patients == 3
    assert "--systems unchanged --seeds 2 --steps 2" in auc.command and auc.config_hash


def test_missing_weights_are_named(script, arguments, capsys):
    assert script.main([*arguments, "--systems", "prichexy"]) == 3
    assert "GM-W001" in capsys.readouterr().err
