"""A small latent diffusion network and a models folder with it; shared by the tests of generated releases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from gmia_monai.networks import IdentityNet, SiameseVerifier, save_network
from gmia_monai.networks.latent_diffusion import LatentDiffusionNet
from gmia_monai.networks.pretrained import NETWORKS

SIZE = 32
FINDINGS = ["Effusion", "Nodule"]
ARGUMENTS: dict[str, Any] = {
    "image_size": SIZE,
    "findings": FINDINGS,
    "autoencoder_channels": [8, 16],
    "autoencoder_res_blocks": 1,
    "latent_channels": 2,
    "channels": [8, 16],
    "res_blocks": 1,
    "attention": [False, True],
    "head_channels": 8,
    "context_dim": 8,
    "norm_groups": 8,
}


def tiny_diffusion(seed: int = 0, **more: Any) -> LatentDiffusionNet:
    """Untrained, but for an output layer that is not zero, so that findings matter."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = LatentDiffusionNet(**(ARGUMENTS | more))
        for parameter in network.unet.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.2)
        network.tokens.data *= 3.0
    return network.eval().requires_grad_(False)


def save_diffusion(folder: Path, seed: int = 0) -> Path:
    """A models folder with ``latent_diffusion``, ``identity`` and ``verifier``."""
    folder.mkdir(parents=True, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        patch.setitem(NETWORKS, "LatentDiffusionNet", LatentDiffusionNet)
        torch.manual_seed(seed)
        save_network(folder / "latent_diffusion.safetensors", tiny_diffusion(seed), ARGUMENTS)
        arguments = {"image_size": SIZE, "architecture": "small", "embedding_dim": 16}
        save_network(folder / "identity.safetensors", IdentityNet(**arguments), arguments)
        save_network(folder / "verifier.safetensors", SiameseVerifier(features=16), {"features": 16})
    return folder
