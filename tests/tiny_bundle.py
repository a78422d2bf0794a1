"""Small networks and settings with which the whole anonymization runs in seconds; shared by several test files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gmia_monai.data.phantom import Acquisition, Identity, phantom_image
from gmia_monai.networks import AEGAN, AnonymizerNet, IdentityNet, UtilityNet, save_network

REPOSITORY = Path(__file__).resolve().parents[1]
CONFIG = str(REPOSITORY / "bundle" / "configs" / "inference.yaml")
SIZE = 32
_AEGAN: dict[str, Any] = {"image_size": SIZE, "latent_dim": 512, "channel_base": 256, "channel_max": 32}
_IDENTITY: dict[str, Any] = {"image_size": SIZE, "architecture": "small", "embedding_dim": 512}
_UTILITY: dict[str, Any] = {"n_findings": 3, "architecture": "small"}


def tiny_network(seed: int = 0) -> AnonymizerNet:
    """Untrained networks of the real classes, frozen."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = AnonymizerNet(AEGAN(**_AEGAN), IdentityNet(**_IDENTITY), UtilityNet(**_UTILITY))
    return network.eval().requires_grad_(False)


def save_tiny(folder: Path, seed: int = 0) -> Path:
    """A models folder with weights of the real classes."""
    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        save_network(folder / "aegan.safetensors", AEGAN(**_AEGAN), _AEGAN)
        save_network(folder / "identity.safetensors", IdentityNet(**_IDENTITY), _IDENTITY)
        save_network(folder / "utility.safetensors", UtilityNet(**_UTILITY), _UTILITY, half=True)
    return folder


def overrides(models_dir: Path, **more: Any) -> dict[str, Any]:
    """What makes ``inference.yaml`` run with :func:`save_tiny`, three steps an image."""
    return {
        "models_dir": str(models_dir),
        "image_size": SIZE,
        "device": "cpu",
        "logging_file": False,
        "network_def#aegan#channel_base": _AEGAN["channel_base"],
        "network_def#aegan#channel_max": _AEGAN["channel_max"],
        "network_def#identity#architecture": "small",
        "network_def#utility#n_findings": 3,
        "optimization#max_steps": 3,
        **more,
    }


def phantoms(n: int, size: int = SIZE, dtype: torch.dtype = torch.float32) -> Tensor:
    """``[n, 1, size, size]``: drawn radiographs of ``n`` patients."""
    images = [phantom_image(Identity.from_seed(i), Acquisition.from_seed(i), (size, size)) for i in range(n)]
    return torch.from_numpy(np.stack(images)).to(dtype)[:, None]


class _Synthesis(nn.Module):
    def __init__(self, size: int, latent_dim: int) -> None:
        super().__init__()
        self.size = size
        self.linear = nn.Linear(latent_dim, size * size)
        self.noise = nn.Parameter(0.05 * torch.randn(size * size))

    def forward(self, w: Tensor, noise_mode: str = "const") -> Tensor:
        flat = 0.5 + 0.6 * self.linear(w) + (self.noise if noise_mode == "const" else 0.0)
        return flat.reshape(-1, 1, self.size, self.size)


class _Identity(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(size * size, 24), nn.Tanh(), nn.Linear(24, 12, bias=False))

    def forward(self, image: Tensor) -> Tensor:
        return self.layers(4.0 * (image - 0.5))


class _Utility(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(size * size, 5)

    def features(self, image: Tensor) -> Tensor:
        return torch.tanh(self.linear(image.flatten(1)))


class ToyNet(nn.Module):
    """The four parts of an anonymizer as single layers: fast, and all that the optimisation knows of a network."""

    def __init__(self, size: int = 8, latent_dim: int = 16, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(size * size, latent_dim), nn.LeakyReLU(0.2))
            self.synthesis = _Synthesis(size, latent_dim)
            self.identity = _Identity(size)
            self.utility = _Utility(size)
        self.eval().requires_grad_(False)


def parts_of(network: Any) -> tuple[Callable[..., Tensor], ...]:
    """Arguments of ``optimize_latents`` after the image."""
    return network.encoder, network.synthesis, network.identity, network.utility.features
