"""Where the bundle's folders are: below the working directory, or beside the package."""

from __future__ import annotations

from pathlib import Path

import gmia_monai
from gmia_monai.errors import UsageError
from gmia_monai.weights import INDEX

__all__ = ["models_folder"]

_ROOT = Path(gmia_monai.__file__).parents[1]
_MODELS = (Path("bundle/models"), _ROOT / "bundle" / "models", _ROOT / "models")


def models_folder(given: Path | None) -> Path:
    """The folder of recorded weights.

    Raises:
        UsageError: ``GM-U423`` where there is none.
    """
    for folder in _MODELS if given is None else (given,):
        if (folder / INDEX).is_file():
            return folder.resolve()
    raise UsageError(
        "GM-U423",
        "no recorded weights there",
        got=given.name if given is not None else None,
        expected=f"a folder with {INDEX}",
        next_step="name the bundle's folder of weights with --models-dir",
    )
