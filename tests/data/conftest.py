"""Small trees for the tests of this room."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def make_image() -> Callable[[Path], Path]:
    """Writes an 8 x 8 grey image, with the folders above it; the suffix chooses PNG or JPEG."""

    def write(path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
        Image.fromarray(grey).save(path, format="PNG" if path.suffix == ".png" else "JPEG")
        return path

    return write
