"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def cxr_dir() -> Path:
    """Folder with the real development radiographs (``GMIA_CXR_DIR``, or ``../shared/cxr``); skips where absent."""
    root = Path(os.environ.get("GMIA_CXR_DIR", Path(__file__).parents[2] / "shared" / "cxr"))
    if not (root / "metadata.csv").is_file():
        pytest.skip(f"real radiographs not found: {root.name}/metadata.csv is absent; set GMIA_CXR_DIR")
    return root
