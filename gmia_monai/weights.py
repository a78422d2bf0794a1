"""Reading and writing of network weights as safetensors, with their sha256; nothing is ever unpickled here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from gmia_monai.dicom.atomic import atomic_path
from gmia_monai.dicom.hashing import sha256_of
from gmia_monai.errors import IntegrityError
from gmia_monai.typing import PathLike

__all__ = ["load_weights", "read_index", "read_metadata", "save_weights", "sha256_of", "update_index", "watched_reads"]

INDEX = "index.json"
NOT_FOUND = "GM-W001"  # for callers that go on without the weights
METADATA = "gmia_monai"
_watched: list[dict[str, str]] = []


def save_weights(
    path: PathLike, network: nn.Module | Mapping[str, Tensor], metadata: Mapping[str, Any], half: bool = False
) -> str:
    """Writes weights to a temporary file, then renames it.

    Args:
        path: file to write.
        network: network, or its state dict.
        metadata: what describes the network; values are stored as JSON.
        half: store floating-point tensors in float16.

    Returns:
        sha256 of the file.
    """
    state = network.state_dict() if isinstance(network, nn.Module) else network
    tensors = {
        name: (t.half() if half and t.is_floating_point() else t).detach().cpu().contiguous().clone()
        for name, t in state.items()
    }
    with atomic_path(path) as temporary:
        # One entry: safetensors writes several in any order, and the same weights must have the same hash.
        save_file(tensors, temporary, metadata={METADATA: json.dumps(dict(metadata))})
        temporary.chmod(0o644)  # safetensors makes its files readable by their owner only
    return sha256_of(path)


def _open(path: Path, sha256: str | None) -> Any:
    if not path.is_file():
        raise IntegrityError(
            NOT_FOUND, "weights not found", got=path.name, next_step="train them, or give the folder that holds them"
        )
    if sha256 is not None and (got := sha256_of(path)) != sha256:
        raise IntegrityError(
            "GM-W002",
            f"{path.name} is not the file that was recorded",
            got=f"sha256 {got[:16]}…",
            expected=f"sha256 {sha256[:16]}…",
            next_step="fetch the file again, or record it if you trained it yourself",
        )
    try:
        return safe_open(path, framework="pt", device="cpu")
    except (SafetensorError, OSError) as error:
        raise IntegrityError("GM-W003", f"{path.name} is no safetensors file", next_step="fetch it again") from error


def read_metadata(path: PathLike, sha256: str | None = None) -> dict[str, Any]:
    """What :func:`save_weights` stored as ``metadata``.

    Raises:
        IntegrityError: ``GM-W001`` absent, ``GM-W002`` wrong hash, ``GM-W003`` not readable.
    """
    with _open(Path(path), sha256) as file:
        stored = file.metadata() or {}
    try:
        found = json.loads(stored[METADATA]) if METADATA in stored else stored  # else by another writer
    except ValueError as error:
        raise IntegrityError("GM-W003", f"{Path(path).name} has unreadable metadata") from error
    return dict(found)


def load_weights(network: nn.Module, path: PathLike, sha256: str | None = None) -> nn.Module:
    """Loads weights into a network; every tensor must be there and fit.

    Args:
        network: network to fill; its own dtype is kept.
        path: safetensors file.
        sha256: hash that the file must have; None to take it as it is.

    Returns:
        ``network``.

    Raises:
        IntegrityError: ``GM-W001`` absent, ``GM-W002`` wrong hash, ``GM-W003`` not readable, ``GM-W004`` not of this
            network, ``GM-W008`` with NaN or infinity.
    """
    path = Path(path)
    with _open(path, sha256) as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    own = network.state_dict()
    wrong = sorted(set(own) ^ set(state)) + sorted(k for k in set(own) & set(state) if own[k].shape != state[k].shape)
    if wrong:
        name = wrong[0]
        raise IntegrityError(
            "GM-W004",
            f"{path.name} does not fit the network: {len(wrong)} tensors differ, first {name}",
            got="absent" if name not in state else tuple(state[name].shape),
            expected="absent" if name not in own else tuple(own[name].shape),
            next_step="check image_size and the channels or architecture in the config",
        )
    if not all(bool(torch.isfinite(t).all()) for t in state.values() if t.is_floating_point()):
        raise IntegrityError("GM-W008", f"{path.name} holds numbers that are not finite", next_step="fetch it again")
    network.load_state_dict({k: v.to(own[k].dtype) for k, v in state.items()})
    for read in _watched:
        read[path.name] = sha256_of(path)
    return network


@contextmanager
def watched_reads() -> Iterator[dict[str, str]]:
    """File name and sha256 of all weights that are loaded within: what a system is really made of."""
    read: dict[str, str] = {}
    _watched.append(read)
    try:
        yield read
    finally:
        _watched.remove(read)


def read_index(folder: PathLike) -> dict[str, dict[str, Any]]:
    """``index.json`` of a folder of weights: name -> file, sha256, bytes; empty if there is none.

    Raises:
        IntegrityError: ``GM-W005`` for an index that is no JSON object.
    """
    path = Path(folder) / INDEX
    if not path.is_file():
        return {}
    try:
        index = json.loads(path.read_text())
    except ValueError as error:
        raise IntegrityError("GM-W005", f"{INDEX} is not JSON", next_step="fetch the folder again") from error
    if not isinstance(index, dict) or not all(
        isinstance(entry, dict) and {"file", "sha256"} <= entry.keys() for entry in index.values()
    ):
        what = f"{INDEX} is not a JSON object of files with their sha256"
        raise IntegrityError("GM-W005", what, next_step="fetch the folder again")
    return index


def update_index(folder: PathLike, name: str, file: str, **facts: Any) -> None:
    """Records a file with its sha256 and size in ``index.json``."""
    folder = Path(folder)
    index = read_index(folder)
    path = folder / file
    index[name] = {"file": file, "sha256": sha256_of(path), "bytes": path.stat().st_size, **facts}
    with atomic_path(folder / INDEX) as temporary:
        temporary.write_text(json.dumps(dict(sorted(index.items())), indent=2) + "\n")
