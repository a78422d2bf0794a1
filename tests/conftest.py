"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_CXR_DIR = Path(os.environ.get("GMIA_CXR_DIR", Path(__file__).parents[2] / "shared" / "cxr"))


@pytest.fixture(scope="session")
def maybe_cxr_dir() -> Path | None:
    """As ``cxr_dir``; None where absent, for tests that can do without."""
    return _CXR_DIR if (_CXR_DIR / "metadata.csv").is_file() else None


@pytest.fixture(scope="session")
def cxr_dir(maybe_cxr_dir: Path | None) -> Path:
    """Folder with the real development radiographs (``GMIA_CXR_DIR``, or ``../shared/cxr``); skips where absent."""
    if maybe_cxr_dir is None:
        pytest.skip(f"real radiographs not found: {_CXR_DIR.name}/metadata.csv is absent; set GMIA_CXR_DIR")
    return maybe_cxr_dir
