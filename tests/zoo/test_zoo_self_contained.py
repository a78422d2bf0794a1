"""An exported bundle trains and infers where gmia_monai is not installed: with the package in its own folder."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

# Written into the log by the run itself: where the package came from.
WHERE = "+finalize:\n- $print('PACKAGE', gmia_monai.__file__)\n"


@pytest.fixture(scope="module")
def bare():
    """Environment of a Python that has all packages but ours: -S skips the hook of an editable install."""
    paths = {sysconfig.get_paths()[kind] for kind in ("purelib", "platlib")}
    if any((Path(path) / "gmia_monai").exists() for path in paths):
        pytest.skip("gmia_monai is installed as a copy, which cannot be hidden")
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "MLFLOW", "GMIA"))}
    return {**keep, "PYTHONPATH": os.pathsep.join(sorted(paths)), "PYTHONDONTWRITEBYTECODE": "1"}


def python(arguments, cwd, env):
    command = [sys.executable, "-S", *arguments]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300)


def run_bundle(bundle, env, where, config, *arguments):
    files = f"['configs/{config}.yaml','{where}']"
    command = ["-m", "monai.bundle", "run", *(["training"] if "train" in config else []), "--config_file", files]
    done = python([*command, "--device", "cpu", *arguments], bundle, env)
    assert done.returncode == 0, done.stderr[-3000:]
    found = [line.split(" ", 1)[1] for line in done.stdout.splitlines() if line.startswith("PACKAGE ")]
    assert [Path(line).resolve() for line in found] == [(bundle / "gmia_monai" / "__init__.py").resolve()]


@pytest.fixture
def where(tmp_path):
    path = tmp_path / "where.yaml"
    path.write_text(WHERE)
    return path


def test_package_is_not_importable_elsewhere(bare, tmp_path):
    done = python(["-c", "import pydicom, gmia_monai"], tmp_path, bare)
    assert done.returncode != 0 and "No module named 'gmia_monai'" in done.stderr


def test_exported_bundle_infers(exported, bare, where, cohort, tmp_path):
    images = tmp_path / "in"
    images.mkdir()
    source = sorted((cohort.parent / "images").iterdir())[:2]
    for path in source:
        (images / path.name).write_bytes(path.read_bytes())
    out = tmp_path / "out"
    settings = ["--input", str(images), "--output_dir", str(out), "--optimization#max_steps", "2"]
    run_bundle(exported, bare, where, "inference", *settings)
    with (out / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 and all((out / row["file"]).is_file() for row in rows)
    assert all(1 <= int(row["steps"]) <= 2 for row in rows)


def test_exported_bundle_trains(exported, bare, where, cohort, tmp_path):
    out = tmp_path / "runs" / "aegan"
    settings = ["--manifest", str(cohort), "--output_dir", str(out), "--max_epochs", "1", "--epoch_length", "2"]
    settings += ["--batch_size", "2", "--aegan#channel_base", "64", "--val_interval", "1"]
    run_bundle(exported, bare, where, "train", *settings)
    assert (out / "models" / "aegan.safetensors").is_file()
