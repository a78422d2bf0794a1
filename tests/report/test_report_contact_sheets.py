"""Contact sheets of systems show for each source the image that stands for it."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from gmia_monai.data.release import Release
from gmia_monai.errors import UsageError
from gmia_monai.report.contact_sheets import losses_sheet, reconstructions_sheet, shown_images, systems_sheet

RNG = np.random.default_rng(0)
SOURCES = RNG.random((4, 1, 16, 16)).astype(np.float32)


def _release(n: int, sources: tuple[tuple[int, ...], ...]) -> Release:
    pixels = np.full((n, 1, 16, 16), 0.0, np.float32)
    pixels[:] = (np.arange(n) / 255)[:, None, None, None]
    return Release("a", pixels, sources, "")


def _levels(images: list[np.ndarray]) -> list[int]:
    return [round(float(image[0, 0]) * 255) for image in images]


def test_the_image_of_a_source_is_shown_whatever_the_kind_of_release():
    one = _release(4, ((2,), (0,), (3,), (1,)))
    assert _levels(shown_images(one, [0, 1, 2])) == [1, 3, 0]
    several = _release(3, ((0, 1), (1, 2), (4, 5)))
    assert several.kind == "k_to_one"
    assert _levels(shown_images(several, [1, 2, 3])) == [0, 1, 0] and not shown_images(several, [3])[0].any()
    generated = _release(3, ((), (), ()))
    assert _levels(shown_images(generated, [7, 8])) == [0, 1] and len(shown_images(generated, [0] * 5)) == 5


def test_a_sheet_has_a_row_a_system_below_the_sources(tmp_path):
    releases = {"kept": Release("kept", SOURCES, tuple((i,) for i in range(4)), "")}
    path = tmp_path / "sheet.png"
    systems_sheet([SOURCES[i, 0] for i in (0, 2)], releases, [0, 2], path, heading="h", cell_px=64, groups=1)
    sheet = np.asarray(Image.open(path))
    half = [sheet[y : y + 64] for y in range(sheet.shape[0] - 64)]
    same = [i for i in range(len(half)) if i + 80 < len(half) and half[i][:, 8:140].std() > 30]
    assert sheet.ndim == 2 and same, "rows of images are there"
    with pytest.raises(UsageError, match="GM-U386"):
        systems_sheet([SOURCES[0, 0]], releases, [0, 1], path, heading="h")
    with pytest.raises(UsageError, match="GM-U386"):
        systems_sheet([SOURCES[0, 0]], {}, [0], path, heading="h")


def test_figures_of_the_paper_have_their_columns(tmp_path):
    images = list(SOURCES[:, 0])
    reconstructions_sheet(images, {"co-training": images, "E-training": images}, tmp_path / "two.png", heading="h")
    losses_sheet(
        images,
        images,
        {"utility": images, "identity": images},
        {"utility": [0.9] * 4, "identity": [-0.5] * 4},
        tmp_path / "three.png",
        heading="h",
        cell_px=64,
    )
    two, three = (Image.open(tmp_path / name) for name in ("two.png", "three.png"))
    assert two.width > 6 * 128 and three.width > 6 * 64 and three.height > 4 * 64
    grey = np.asarray(three)[40:1000]
    assert (grey == 128).mean() > 0.1, "an unchanged image is mid-grey in the columns of changes"
