"""Text in pixels is found where it stands, markers and anatomy are none, and a missing detector is an error."""

from __future__ import annotations

import shutil
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from gmia_monai.dicom import text as module
from gmia_monai.dicom.text import TextDetector
from gmia_monai.errors import ResourceError

FONT = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
needs_tesseract = pytest.mark.skipif(shutil.which("tesseract") is None, reason="tesseract is not installed")


def _chest(seed: int = 0, side: int = 512) -> np.ndarray:
    """Smooth shapes with grain, as a radiograph has."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    image = 0.5 + 0.15 * np.cos(6 * x) * np.sin(5 * y) + 0.05 * np.cos(40 * y + 8 * x)
    return np.clip(image + rng.normal(0, 0.01, image.shape), 0, 1)


def _with(
    image: np.ndarray, text: str, size: int = 20, at: tuple[int, int] = (60, 90), grey: float = 0.95
) -> np.ndarray:
    picture = Image.new("L", image.shape[::-1])
    ImageDraw.Draw(picture).text(at, text, fill=255, font=ImageFont.truetype(str(FONT), size))
    mask = np.asarray(picture) / 255
    return image * (1 - mask) + grey * mask


@needs_tesseract
@pytest.mark.parametrize("text", ["DOE JANE", "1960-05-01", "ID 4711-22", "ST MARY HOSPITAL"])
@pytest.mark.parametrize(("size", "grey"), [(16, 0.95), (28, 0.05), (28, 0.75), (40, 1.0)])
def test_planted_text_is_found(text, size, grey):
    words = TextDetector()(_with(_chest(), text, size, grey=grey))
    found = "".join(word.text for word in words)
    wanted = "".join(c for c in text if c.isalnum())
    assert any(wanted[i : i + 3] in found for i in range(len(wanted) - 2))
    top, left, bottom, right = words[0].box
    assert 55 <= left < right <= 512 and 85 <= top < bottom <= 100 + 2 * size


@needs_tesseract
def test_a_clean_image_and_markers_of_side_and_view_have_none():
    detector = TextDetector()
    for seed in range(3):
        assert detector(_chest(seed)) == []
    for marker in ("L", "R", "PORTABLE", "AP ERECT"):
        assert detector(_with(_chest(), marker, 36)) == [], marker
    assert TextDetector(markers=("L",))(_with(_chest(), "PORTABLE", 36))


@needs_tesseract
def test_sizes_at_either_end():
    detector = TextDetector()
    [word, *_] = detector(_with(_chest(side=2600), "DOE JANE 1960", 60, (300, 400)))
    assert 280 <= word.box[1] <= 320 and 390 <= word.box[0] <= 430 and word.box[2] <= 480
    assert detector(_chest(side=64)) == [] and detector(np.zeros((40, 40))) == []


@pytest.mark.parametrize("program", ["no-such-program", "false"])
def test_a_detector_that_is_missing_or_fails_is_an_error_even_on_text(program):
    with pytest.raises(ResourceError, match="GM-R089"):
        TextDetector(program=program)(_with(_chest(), "DOE JANE", 30))
    if program != "false":
        with pytest.raises(ResourceError, match="GM-R089"):
            TextDetector(program=program)(np.zeros((64, 64)))


def test_a_detector_that_hangs_is_an_error(monkeypatch, tmp_path):
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nexec sleep 30\n")
    slow.chmod(0o755)
    monkeypatch.setattr(module, "_SECONDS", 0.5)
    with pytest.raises(TimeoutError):
        TextDetector(program=str(slow))(_with(_chest(), "DOE JANE", 30))
