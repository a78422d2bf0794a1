"""The check of the text detector counts what it plants."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SCRIPT = Path(__file__).parents[1] / "scripts" / "check_text_detection.py"


def _main():
    spec = importlib.util.spec_from_file_location("check_text_detection", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.mark.skipif(shutil.which("tesseract") is None, reason="tesseract is not installed")
def test_shares_are_of_what_was_planted_and_of_clean_images(tmp_path, capsys):
    y, x = np.mgrid[:512, :512] / 512
    rng = np.random.default_rng(0)
    for i in range(2):
        image = 0.4 + 0.1 * np.cos((5 + i) * x) * np.sin(4 * y) + rng.normal(0, 0.005, x.shape)
        Image.fromarray((np.clip(image, 0, 1) * 255).astype(np.uint8)).save(tmp_path / f"{i}.png")
    assert _main()([str(tmp_path), "--n_planted", "8"]) == 0
    lines = {line["what"]: line for line in map(json.loads, capsys.readouterr().out.splitlines())}
    assert lines["as they are, text seen"]["share"] == 0.0 and lines["as they are, text seen"]["n"] == 2
    assert lines["planted"]["n"] == 8 and lines["planted"]["share"] >= 0.5
    assert sum(line["n"] for what, line in lines.items() if "px" in what) == 8


def test_a_folder_without_radiographs_is_an_error(tmp_path, capsys):
    assert _main()([str(tmp_path)]) == 2
    assert "no radiographs" in capsys.readouterr().err
