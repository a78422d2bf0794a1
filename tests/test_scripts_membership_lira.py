"""The script of the likelihood-ratio attack: its lines, that it goes on where it was, and what is shipped."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from gmia_monai.data import Cohort, ImageRecord
from gmia_monai.data.release import RealImages
from gmia_monai.metrics.results import read_results

ROOT = Path(__file__).parents[1]
WORDS = ["--dataset_dir", "/some/where", "--n_shadows", "4", "--steps", "3", "--max_patients", "20"]


@pytest.fixture
def script(monkeypatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("membership_lira", ROOT / "scripts" / "membership_lira.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    records = tuple(ImageRecord(Path(f"/x/{i}.png"), f"NIH{7 * (i // 2):05d}", folder="x") for i in range(60))
    monkeypatch.setattr(module, "load_cohort", lambda **given: Cohort(records, role_scheme="number"))

    def read(cohort: Cohort, size: int) -> RealImages:
        pixels = np.stack([np.random.default_rng(int(r.image.stem)).random((1, size, size)) for r in cohort])
        return RealImages(cohort, pixels.astype(np.float32))

    monkeypatch.setattr(module, "read_real", read)
    return module


def test_lines_and_going_on(script, tmp_path, capsys, monkeypatch):
    folders = ["--output_dir", str(tmp_path / "out"), "--docs_dir", str(tmp_path / "docs")]
    assert script.main([*WORDS, *folders]) == 0
    lines = read_results(tmp_path / "docs" / "results" / "membership.jsonl")
    assert {line.name.split(".")[1] for line in lines} == {"lira", "loss_pixels", "loss_calibrated"}
    assert (
        len(lines) == 12 and {line.n_patients for line in lines} == {20} and {line.n_images for line in lines} == {40}
    )
    assert lines[0].command.startswith("python scripts/membership_lira.py --dataset_dir $GMIA_CXR_DIR --n_shadows 4")
    assert re.fullmatch("[0-9a-f]{16}", lines[0].config_hash) and lines[0].extra["members"] == 20
    kept = sorted((tmp_path / "out" / lines[0].config_hash).iterdir())
    assert [path.name for path in kept] == [f"model_{i:03d}.npy" for i in range(5)]
    trained = []
    honest = script.AutoencoderTrainer.__call__
    monkeypatch.setattr(
        script.AutoencoderTrainer, "__call__", lambda self, *given: trained.append(given[1]) or honest(self, *given)
    )
    kept[3].unlink()
    assert script.main([*WORDS, *folders]) == 0
    assert trained == [3]
    assert read_results(tmp_path / "docs" / "results" / "membership.jsonl") == lines
    assert "model 5 of 5" in capsys.readouterr().out


def test_too_few_shadows_are_a_coded_error(script, tmp_path, capsys):
    words = ["--dataset_dir", "x", "--n_shadows", "2", "--steps", "1", "--output_dir", str(tmp_path / "out")]
    assert script.main([*words, "--docs_dir", str(tmp_path)]) == 2
    assert "GM-U344" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_shipped_lines_are_of_one_run():
    lines = read_results(ROOT / "bundle" / "docs" / "results" / "membership.jsonl")
    figures = {line.name for line in lines if line.system == "small auto-encoder"}
    for signal in ("lira", "loss_pixels", "loss_calibrated"):
        assert {f"membership_auc.{signal}.v1", f"membership_tpr_at_fpr_1pct.{signal}.v1"} <= figures
    assert {line.command.split()[1] for line in lines} == {"scripts/membership_lira.py"}
    assert all("$GMIA_CXR_DIR" in line.command and line.config_hash for line in lines)
