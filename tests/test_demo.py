"""The demo: synthetic cohort to anonymized images, table and contact sheet."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image
from tiny_bundle import REPOSITORY

from gmia_monai.inferers import LatentOptimizationInferer
from gmia_monai.weights import read_index


@pytest.fixture(scope="module")
def demo() -> ModuleType:
    spec = importlib.util.spec_from_file_location("demo", REPOSITORY / "scripts" / "demo.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:parsing config")
def test_the_demo_leaves_images_table_and_sheet_and_a_second_run_reuses_them(
    demo: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not {"aegan", "identity", "utility"} <= read_index(REPOSITORY / "bundle" / "models").keys():
        pytest.skip("bundle/models lacks the reference weights")
    out = tmp_path / "demo_out"
    arguments = ["--output_dir", str(out), "--n_patients", "2", "--images_per_patient", "2"]
    # The config names its folders from the repository's root, as all commands of the README do.
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr("sys.excepthook", __import__("sys").excepthook)
    assert demo.main(arguments) == 0
    with (out / "table.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["status"] for row in rows] == ["anonymized"] * 4
    assert all((out / "anonymized" / row["file"]).is_file() for row in rows)
    assert all(float(row["cos_optimized"]) < float(row["cos_before"]) for row in rows)
    assert any(row["converged"] == "1" for row in rows)
    sheet = np.asarray(Image.open(out / "contact_sheet.png"))
    assert min(sheet.shape[:2]) > 200 and sheet.std() > 10
    assert {p.name for p in out.iterdir()} >= {"anonymized", "anonymized.key", "anonymized.links.csv", "cohort"}
    assert "[4/4]" in capsys.readouterr().out
    report = (out / "evaluation" / "report.html").read_text(encoding="utf-8")
    assert "Another image of the person (T1)" in report and '<b class="good">' not in report, "a demo proves nothing"

    images = {path.name: path.read_bytes() for path in (out / "anonymized" / "images").iterdir()}

    def fail(*args: object, **kwargs: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(LatentOptimizationInferer, "optimize", fail)
    (out / "contact_sheet.png").unlink()
    assert demo.main(arguments) == 0
    assert {path.name: path.read_bytes() for path in (out / "anonymized" / "images").iterdir()} == images
    assert (out / "contact_sheet.png").is_file()


def test_a_coded_error_ends_the_demo_with_its_exit_code(
    demo: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "REPOSITORY", tmp_path / "elsewhere")
    arguments = ["--output_dir", str(tmp_path / "demo_out"), "--n_patients", "1", "--images_per_patient", "1"]
    assert demo.main(arguments) == 2
    assert "GM-U080" in capsys.readouterr().err
