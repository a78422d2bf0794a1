"""The command that plants copies: from a drawn cohort and recorded weights to result lines."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from tiny_diffusion import SIZE, save_diffusion

from gmia_monai.data.phantom import generate_cohort
from gmia_monai.evaluation.planted_copies import KINDS, NETWORK_KINDS
from gmia_monai.metrics.results import read_results
from gmia_monai.networks.latent_diffusion import LatentDiffusionNet
from gmia_monai.networks.pretrained import NETWORKS

PATH = Path(__file__).parents[1] / "scripts" / "check_privacy_filter.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("check_privacy_filter", PATH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_lines_for_every_kind_of_copy(script, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(NETWORKS, "LatentDiffusionNet", LatentDiffusionNet)
    manifest = generate_cohort(tmp_path / "phantom", 12, 2, size=SIZE, formats=("png",))
    models, output = save_diffusion(tmp_path / "models"), tmp_path / "lines.jsonl"
    common = [f"--manifest={manifest}", f"--image_size={SIZE}", f"--output={output}", "--n_copied=3", "--n_steps=10"]
    assert script.main([*common, f"--models_dir={models}", "--rate=0.3"]) == 0
    lines = read_results(output)
    assert len(lines) == len(KINDS) + len(NETWORK_KINDS) + 1
    assert {line.system for line in lines} == {"latent diffusion filter nearest rate=0.3 k=1"}
    assert "tau" in capsys.readouterr().out
    assert script.main([*common, f"--models_dir={tmp_path / 'none'}"]) == 3
    assert "GM-W001" in capsys.readouterr().err
