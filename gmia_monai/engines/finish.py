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
from gmia_monai.networks.aegan import AEGAN
from gmia_monai.networks.generator import MappedGenerator
from gmia_monai.networks.identity import IdentityNet
from gmia_monai.networks.pretrained import load_network, save_network
from gmia_monai.networks.siamese import SiameseVerifier
from gmia_monai.typing import PathLike
from gmia_monai.weights import load_weights

__all__ = ["save_trained", "start_from", "start_verifier_from", "with_frozen_synthesis"]

_log = logging.getLogger(__name__)
# Mean differences of sigmoids of unit normal numbers: 0.23 between strangers; below this value, one person.
_MIDDLE = 0.18
_SLOPE = 64.0


def start_from(network: nn.Module, path: PathLike | None) -> nn.Module:
    """Fills a network from a weights file before training; an empty path leaves it as it was initialised.

    Raises:
        IntegrityError: as :func:`gmia_monai.weights.load_weights`.
    """
    return load_weights(network, path) if path else network


def with_frozen_synthesis(network: AEGAN, path: PathLike) -> AEGAN:
    """Gives an auto-encoder the synthesis of a trained generator, frozen: what E-training starts from.

    Raises:
        IntegrityError: as :func:`gmia_monai.networks.load_network`.
        UsageError: ``GM-U048`` for a file of another class or of other sizes.
    """
    given = load_network(path)
    fits = isinstance(given, MappedGenerator) and {k: v.shape for k, v in given.synthesis.state_dict().items()} == {
        k: v.shape for k, v in network.synthesis.state_dict().items()
    }
    if not fits:
        raise UsageError(
            "GM-U048",
            f"{Path(path).name} is no generator with the synthesis of this auto-encoder",
            next_step="train the generator with the same image_size, latent_dim and channels",
        )
    network.synthesis.load_state_dict(given.synthesis.state_dict())
    network.synthesis.requires_grad_(False)
    return network


def start_verifier_from(network: SiameseVerifier, path: PathLike | None) -> SiameseVerifier:
    """Fills a verifier from an identity encoder before training; an empty path leaves it as it was initialised.

    The trunk is taken as it is, and the last layer with its batch normalisation folded in, so that features are the
    sigmoid of normalised embeddings. The head begins as a threshold on their mean difference.

    Raises:
        IntegrityError: as :func:`gmia_monai.networks.load_network`.
        UsageError: ``GM-U046`` for a file of another class, trunk or number of features.
    """
    if not path:
        return network
    given = load_network(path)
    shapes = [
        {name: tensor.shape for name, tensor in net.state_dict().items() if name.startswith(("trunk.", "fc."))}
        for net in (network, given)
    ]
    if not isinstance(given, IdentityNet) or shapes[0] != shapes[1]:
        raise UsageError(
            "GM-U046",
            f"{Path(path).name} is no encoder with the trunk and the features of the verifier",
            next_step="give init_from an identity encoder of the same architecture and embedding_dim",
        )
    network.trunk.load_state_dict(given.trunk.state_dict())
    norm = given.norm
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    with torch.no_grad():
        network.fc.weight.copy_(scale[:, None] * given.fc.weight)
        network.fc.bias.copy_(scale * (given.fc.bias - norm.running_mean) + norm.bias)
        # Else the first steps would pull the features apart to make up for a head that is too weak.
        network.head.weight.fill_(-_SLOPE / network.head.in_features)
        network.head.bias.fill_(_SLOPE * _MIDDLE)
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
        facts: more metadata, and ``patients``, as :func:`gmia_monai.networks.save_network` takes them.

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
