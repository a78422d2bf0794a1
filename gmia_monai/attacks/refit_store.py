"""Refitted networks by the hash of all that decides them: attackers that share one refit it once, and a run that was
stopped goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

from gmia_monai.attacks.refit import Side
from gmia_monai.attacks.refit_pair import RefitPair
from gmia_monai.typing import PathLike
from gmia_monai.weights import load_weights, save_weights

__all__ = ["RefitStore", "refit_key"]


def refit_key(facts: Mapping[str, object], *sides: Side) -> str:
    """Hash of settings and of images.

    Args:
        facts: what JSON can hold.
        sides: what is learned from.
    """
    digest = hashlib.sha256(json.dumps(dict(facts), sort_keys=True).encode())
    for side in sides:
        for array in (side.pixels, side.patient, side.exposure, side.stratum):
            if array is None:
                digest.update(b"none")
                continue
            digest.update(f"{array.shape} {array.dtype}".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


class RefitStore:
    """Keeps refitted pairs of networks.

    Args:
        folder: files are kept there; None: in memory.
    """

    def __init__(self, folder: PathLike | None = None) -> None:
        self.folder = None if folder is None else Path(folder)
        self._kept: dict[str, dict[str, Tensor]] = {}

    def fill(self, key: str, pair: RefitPair) -> bool:
        """Loads what was kept under a key into a pair; False where there is nothing.

        Raises:
            IntegrityError: ``GM-W003``, ``GM-W004`` for a file that is not what was kept.
        """
        if self.folder is None:
            if key not in self._kept:
                return False
            pair.load_state_dict(self._kept[key])
        else:
            path = self.folder / f"{key}.safetensors"
            if not path.is_file():
                return False
            load_weights(pair, path)
        pair.eval()
        return True

    def keep(self, key: str, pair: RefitPair) -> None:
        """Keeps a pair."""
        if self.folder is None:
            self._kept[key] = {name: tensor.detach().cpu().clone() for name, tensor in pair.state_dict().items()}
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
            save_weights(self.folder / f"{key}.safetensors", pair, {"key": key})
