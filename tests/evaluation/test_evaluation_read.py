"""Real images are read once, each in its place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from gmia_monai.data.cohort import Cohort, ImageRecord
from gmia_monai.evaluation.read import read_real


def _cohort(folder: Path, n: int) -> Cohort:
    records = []
    for i in range(n):
        path = folder / f"{i}.png"
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (64, 64), dtype=np.uint8)).save(path)
        records.append(ImageRecord(path, f"p{i}"))
    return Cohort(tuple(records))


def test_known_images_are_not_read_again(tmp_path):
    cohort = _cohort(tmp_path, 6)
    whole = read_real(cohort, 64)
    np.testing.assert_allclose(whole.pixels[2, 0] * 255, np.array(Image.open(tmp_path / "2.png")), atol=1e-3)
    known = whole.take([1, 3])
    for i in (1, 3):  # reading them would now fail
        (tmp_path / f"{i}.png").write_bytes(b"")
    again = read_real(cohort, 64, known=known)
    np.testing.assert_array_equal(again.pixels, whole.pixels)
