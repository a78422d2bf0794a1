"""Pictures are read back and looked at where their content is known."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from gmia_monai.errors import UsageError
from gmia_monai.report.figures import (
    change_image,
    contact_sheet,
    optimization_caption,
)


def _read(path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def test_contact_sheet_shows_the_images_in_their_order(tmp_path):
    path = tmp_path / "sheet.png"
    rows = [[np.full((64, 64), level, np.float32) for level in row] for row in ([0.25, 0.5], [0.75, 1.0])]
    contact_sheet(rows, ["before", "after"], path, captions=["cosine 0.9 → 0.0", "b"], heading="h", cell_px=96)
    picture = Image.open(path)
    assert picture.mode == "L"
    pixels = np.asarray(picture)
    places = {level: np.argwhere(pixels == round(level * 255)) for level in (0.25, 0.5, 0.75, 1.0)}
    assert all(len(place) >= 96 * 96 for place in places.values())
    centre = {level: np.median(place, axis=0) for level, place in places.items()}
    # within a few pixels: letters share a grey value here and there
    assert centre[0.25][1] < centre[0.5][1] - 90 and abs(centre[0.25][0] - centre[0.5][0]) < 3
    assert centre[0.25][0] < centre[0.75][0] - 90 and abs(centre[0.75][0] - centre[1.0][0]) < 3
    assert [p.name for p in tmp_path.iterdir()] == ["sheet.png"]


def test_captions_leave_ink(tmp_path):
    rows = [[np.zeros((32, 32), np.float32)]]
    for name, caption in (("with", "cosine 0.93 to 0.01, 8 steps"), ("without", "")):
        contact_sheet(rows, ["source"], tmp_path / f"{name}.png", captions=[caption], cell_px=256)
    ink = {name: (_read(tmp_path / f"{name}.png") > 120).sum() for name in ("with", "without")}
    assert ink["with"] > ink["without"] + 100


def test_groups_make_a_broad_sheet_and_long_text_is_cut(tmp_path):
    rows = [[np.ones((40, 80), np.float32) * 0.5]] * 5
    contact_sheet(rows, ["a very long title that cannot fit"], tmp_path / "one.png", cell_px=64)
    contact_sheet(rows, ["a very long title that cannot fit"], tmp_path / "two.png", cell_px=64, groups=2)
    one, two = (Image.open(tmp_path / f"{name}.png").size for name in ("one", "two"))
    assert two[0] > 1.8 * one[0] - 20 and two[1] < one[1]


def test_contact_sheet_refuses_what_does_not_fit(tmp_path):
    image = np.zeros((8, 8), np.float32)
    for rows, captions in (([[image]], None), ([[image, image]], ["a", "b"]), ([], None)):
        with pytest.raises(UsageError, match="GM-U281"):
            contact_sheet(rows, ["a", "b"], tmp_path / "x.png", captions=captions)
    with pytest.raises(UsageError, match="GM-U282"):
        contact_sheet([[np.full((8, 8), np.nan, np.float32)]], ["a"], tmp_path / "x.png")
    assert not list(tmp_path.iterdir())


def test_change_is_grey_where_nothing_changed():
    before = np.full((4, 4), 0.5, np.float32)
    after = before.copy()
    after[0, 0], after[1, 1] = 0.7, 0.0
    change = change_image(before, after)
    assert change.dtype == np.float32
    assert change[0, 0] == pytest.approx(0.7) and change[1, 1] == pytest.approx(0.0) and change[2, 2] == 0.5


def test_caption_says_when_an_image_did_not_converge():
    assert optimization_caption(0.931, -0.02, 8, True) == "cosine 0.93 to -0.02 · 8 steps"
    assert "not converged" in optimization_caption(0.9, 0.3, 1000, False)


def test_importing_the_room_loads_no_drawing_library():
    code = (
        "import sys, gmia_monai.report.figures, gmia_monai.report.tables; "
        "print([m for m in ('matplotlib', 'PIL', 'torch', 'monai') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
