"""From a weights file into a training, and from the chosen checkpoint back into a weights file."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gmia_monai.engines.distributed import is_writing_process
from gmia_monai.errors import UsageError
from gmia_monai.handlers.checkpoint import find_last_checkpoint
from gmia_monai.networks.pretrained import load_network, save_network
from gmia_monai.typing import PathLike
from gmia_monai.weights import load_weights

__all__ = ["save_trained", "start_from", "start_trunk_from"]

_log = logging.getLogger(__name__)


def start_from(network: nn.Module, path: PathLike | None) -> nn.Module:
    """Fills a network from a weights file before training; an empty path leaves it as it was initialised.

    Raises:
        IntegrityError: as :func:`gmia_monai.weights.load_weights`.
    """
    return load_weights(network, path) if path else network


def start_trunk_from(network: nn.Module, path: PathLike | None) -> nn.Module:
    """As :func:`start_from`, the ``trunk`` alone, from a file that may hold a network of another class.

    Raises:
        IntegrityError: as :func:`gmia_monai.networks.load_network`.
        UsageError: ``GM-U046`` where the trunks differ.
    """
    if path:
        given = load_network(path).trunk.state_dict()  # type: ignore[union-attr, operator]
        own = network.trunk.state_dict()  # type: ignore[union-attr, operator]
        if {k: v.shape for k, v in own.items()} != {k: v.shape for k, v in given.items()}:
            raise UsageError(
                "GM-U046",
                f"{Path(path).name} has another trunk",
                next_step="give init_from weights of the same architecture",
            )
        network.trunk.load_state_dict(given)  # type: ignore[union-attr, operator]
    return network


def save_trained(
    output_dir: PathLike, name: str, network: nn.Module, arguments: dict[str, Any], key: str = "network", **facts: Any
) -> Path | None:
    """Writes ``<output_dir>/models/<name>.safetensors`` from the best checkpoint, or the last where none is best.

    Args:
        output_dir: folder of the run, with ``checkpoints/``.
        name: name of the weights.
        network: network to fill and write; it keeps the chosen weights.
        arguments: constructor arguments, stored in the file.
        key: name of the network in the checkpoint.
        facts: more metadata.

    Returns:
        the file, or None where the run left no checkpoint, or another process writes it.
    """
    if not is_writing_process():
        return None
    folder = Path(output_dir) / "checkpoints"
    best = folder / "best.pt"
    source = best if best.is_file() else find_last_checkpoint(folder)
    if source is None:
        return None
    state = torch.load(source, map_location="cpu", weights_only=True)
    network.load_state_dict(state[key])
    path = Path(output_dir) / "models" / f"{name}.safetensors"
    save_network(path, network, arguments, epoch=state["engine"]["epoch"], **facts)
    _log.info("%s written from %s (epoch %d)", path, source.name, state["engine"]["epoch"])
    return path
