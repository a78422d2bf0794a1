"""Networks rebuilt from safetensors files that say which network they hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from gmia_monai.errors import IntegrityError
from gmia_monai.networks.aegan import AEGAN
from gmia_monai.networks.anonymizer import AnonymizerNet
from gmia_monai.networks.deformation import DeformationNet
from gmia_monai.networks.discriminator import Discriminator
from gmia_monai.networks.generator import MappedGenerator
from gmia_monai.networks.identity import IdentityNet
from gmia_monai.networks.image_translation import TranslationNet
from gmia_monai.networks.known_images import KnownImages
from gmia_monai.networks.latent_diffusion import LatentDiffusionNet
from gmia_monai.networks.patient_classifier import PatientClassifier
from gmia_monai.networks.prior import LatentPrior
from gmia_monai.networks.retrieval import RetrievalNet
from gmia_monai.networks.siamese import SiameseVerifier
from gmia_monai.networks.utility import UtilityNet
from gmia_monai.typing import PathLike
from gmia_monai.weights import load_weights, read_index, read_metadata, save_weights, update_index

__all__ = [
    "NETWORKS",
    "fill_anonymizer",
    "load_anonymizer",
    "load_network",
    "load_recorded",
    "save_network",
    "weights_hashes",
]

ANONYMIZER_PARTS = ("aegan", "identity", "utility")

NETWORKS: dict[str, type[nn.Module]] = {
    "AEGAN": AEGAN,
    "DeformationNet": DeformationNet,
    "Discriminator": Discriminator,
    "IdentityNet": IdentityNet,
    "KnownImages": KnownImages,
    "LatentDiffusionNet": LatentDiffusionNet,
    "LatentPrior": LatentPrior,
    "MappedGenerator": MappedGenerator,
    "PatientClassifier": PatientClassifier,
    "RetrievalNet": RetrievalNet,
    "SiameseVerifier": SiameseVerifier,
    "TranslationNet": TranslationNet,
    "UtilityNet": UtilityNet,
}


def save_network(
    path: PathLike,
    network: nn.Module,
    arguments: dict[str, Any],
    half: bool = False,
    patients: str = "",
    **facts: Any,
) -> str:
    """Writes weights together with the class and the constructor arguments of their network, and records the file.

    Args:
        path: file to write; ``index.json`` beside it gets its sha256 under the file's stem.
        network: one of :data:`NETWORKS`.
        arguments: arguments that build it again.
        half: store in float16.
        patients: :attr:`gmia_monai.data.Cohort.patients_hash` of whom it learned from, for the index; empty: unsaid.
        facts: more metadata, e.g. names of findings.

    Returns:
        sha256 of the file.
    """
    path = Path(path)
    metadata = {"network": type(network).__name__, "arguments": arguments, **facts}
    sha256 = save_weights(path, network, metadata, half=half)
    learned = {"patients": patients} if patients else {}
    update_index(path.parent, path.stem, path.name, network=type(network).__name__, arguments=arguments, **learned)
    return sha256


def load_network(path: PathLike, sha256: str | None = None) -> nn.Module:
    """Builds the network that a file describes, and loads its weights; frozen, in eval mode.

    Raises:
        IntegrityError: ``GM-W006`` if the file names no network of ours, or as
            :func:`gmia_monai.weights.load_weights`.
    """
    metadata = read_metadata(path, sha256)
    name, arguments = metadata.get("network"), metadata.get("arguments")
    if not isinstance(name, str) or name not in NETWORKS:
        raise IntegrityError(
            "GM-W006", f"{Path(path).name} does not say which network it holds", got=name, expected=", ".join(NETWORKS)
        )
    try:
        network = NETWORKS[name](**arguments)
    except TypeError as error:
        raise IntegrityError("GM-W006", f"{Path(path).name} does not say how its {name} is built") from error
    load_weights(network, path)
    return network.eval().requires_grad_(False)


def load_recorded(folder: PathLike, name: str) -> nn.Module:
    """A network of a folder of weights, whose file must have the sha256 in ``index.json``.

    Raises:
        IntegrityError: ``GM-W001`` if it is not in the index, or as :func:`load_network`.
    """
    index = read_index(folder)
    if name not in index:
        raise IntegrityError(
            "GM-W001",
            f"no {name} weights in {Path(folder).name}/index.json",
            got=", ".join(index) or "an empty index",
            next_step="train them, or give models_dir the folder that holds them",
        )
    return load_network(Path(folder) / index[name]["file"], index[name]["sha256"])


def load_anonymizer(folder: PathLike, autoencoder: str = "aegan") -> AnonymizerNet:
    """The three recorded networks of latent optimisation in one module: an auto-encoder, ``identity``, ``utility``.

    Args:
        folder: with ``index.json``.
        autoencoder: name of the auto-encoder; ``aegan_e`` is that of E-training.
    """
    parts = [load_recorded(folder, name) for name in (autoencoder, *ANONYMIZER_PARTS[1:])]
    return AnonymizerNet(*parts).eval().requires_grad_(False)


def weights_hashes(folder: PathLike, autoencoder: str = "aegan") -> dict[str, str]:
    """sha256 of the three recorded networks of latent optimisation; empty where one is not recorded.

    Args:
        folder: with ``index.json``.
        autoencoder: as :func:`load_anonymizer`.

    Raises:
        IntegrityError: ``GM-W001`` … ``GM-W003`` where a recorded file is not there or is another one: better now than
            when keys and links have been written.
    """
    index = read_index(folder)
    names = (autoencoder, *ANONYMIZER_PARTS[1:])
    for name in names:
        if name in index:
            read_metadata(Path(folder) / index[name]["file"], index[name]["sha256"])
    return {name: index[name]["sha256"] if name in index else "" for name in names}


def fill_anonymizer(network: AnonymizerNet, folder: PathLike) -> AnonymizerNet:
    """Loads the recorded weights of a folder into a network; frozen, in eval mode.

    Raises:
        IntegrityError: ``GM-W001`` … ``GM-W006``; ``GM-W004`` where the config describes other networks.
    """
    filled = load_anonymizer(folder)
    own, given = network.state_dict(), filled.state_dict()
    if {k: v.shape for k, v in own.items()} != {k: v.shape for k, v in given.items()}:
        raise IntegrityError(
            "GM-W004",
            "the recorded weights are not of the networks in the config",
            next_step="copy the arguments in models/index.json into network_def, and check image_size",
        )
    network.load_state_dict(given)
    return network.eval().requires_grad_(False)
