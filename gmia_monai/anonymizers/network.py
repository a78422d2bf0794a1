"""PriCheXy-Net and Privacy-Net as systems under judgement: one pass of a trained network an image.

Neither has any chance in it: who holds the network makes of an image the very release.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gmia_monai.anonymizers.base import ImageAnonymizer, Outcome
from gmia_monai.errors import UsageError
from gmia_monai.networks.deformation import DeformationNet
from gmia_monai.networks.image_translation import TranslationNet
from gmia_monai.networks.pretrained import load_recorded
from gmia_monai.typing import PathLike
from gmia_monai.weights import read_index

__all__ = ["NetworkAnonymizer", "PriCheXy", "PrivacyNet"]


class NetworkAnonymizer(ImageAnonymizer):
    """Releases what a network makes of the image; without chance.

    Args:
        network: maps ``[b, 1, h, w]`` in [0, 1] to the same; put into eval mode.
        name: of the system and of the setting that sets it apart.
        fingerprint: hash of the settings and the weights.
        device: where it runs.
        unit_size: images at a time.
    """

    def __init__(
        self, network: nn.Module, name: str, fingerprint: str, device: str = "cpu", unit_size: int = 64
    ) -> None:
        super().__init__(name, fingerprint, "pseudonymous", unit_size)
        self.network = network.to(device).eval().requires_grad_(False)
        self.device = device

    @torch.no_grad()
    def anonymize_batch(
        self, images: Float[Tensor, "b 1 h w"], seeds: Sequence[int]
    ) -> tuple[Float[Tensor, "b 1 h w"], list[Outcome]]:
        """Changed images in [0, 1]."""
        return self.network(images.to(self.device)).clamp(0.0, 1.0), [Outcome()] * len(images)


class PriCheXy(NetworkAnonymizer):
    """PriCheXy-Net (Packhäuser et al., MICCAI 2023): the image, deformed by at most ``mu``.

    Its name says ``mu``, and ``legacy`` for the operator of the released code.
    """

    @classmethod
    def from_weights(
        cls, models_dir: PathLike, weights: str = "prichexy", legacy: bool | None = None, **settings: Any
    ) -> PriCheXy:
        """From a folder of recorded weights.

        Args:
            models_dir: the folder.
            weights: name of the weights; one a ``mu``.
            legacy: the operator of the released code; None: the one that the network was trained with.
            settings: ``device`` and ``unit_size`` of :class:`NetworkAnonymizer`.

        Raises:
            IntegrityError: ``GM-W001`` … ``GM-W006``.
            UsageError: ``GM-U069`` where the weights are of another network.
        """
        network, sha256 = _recorded(models_dir, weights, DeformationNet, "PriCheXy-Net")
        network.legacy = network.legacy if legacy is None else legacy
        name = f"prichexy mu={network.mu:g}{' legacy' if network.legacy else ''}"
        return cls(network, name, _fingerprint("prichexy", sha256, legacy=network.legacy), **settings)


class PrivacyNet(NetworkAnonymizer):
    """Privacy-Net (Kim et al., IEEE TMI 2021) in two dimensions, with classification as its task.

    ``minimax`` was trained with its own objective, ``port`` with that of PriCheXy-Net, which calls that Privacy-Net.
    """

    @classmethod
    def from_weights(cls, models_dir: PathLike, variant: str = "minimax", **settings: Any) -> PrivacyNet:
        """From a folder of recorded weights.

        Args:
            models_dir: the folder, with ``privacy_net`` or ``privacy_net_port``.
            variant: ``minimax`` or ``port``.
            settings: ``device`` and ``unit_size`` of :class:`NetworkAnonymizer`.

        Raises:
            IntegrityError: ``GM-W001`` … ``GM-W006``.
            UsageError: ``GM-U069`` for another variant, or where the weights are of another network.
        """
        weights = {"minimax": "privacy_net", "port": "privacy_net_port"}
        if variant not in weights:
            raise _no_network("Privacy-Net", variant, " or ".join(weights))
        network, sha256 = _recorded(models_dir, weights[variant], TranslationNet, "Privacy-Net")
        return cls(network, f"privacy-net {variant}", _fingerprint("privacy-net", sha256, variant=variant), **settings)


def _no_network(system: str, got: str, expected: str) -> UsageError:
    return UsageError("GM-U069", f"no such network of {system}", got=got, expected=expected)


def _recorded(models_dir: PathLike, name: str, kind: type[nn.Module], system: str) -> tuple[Any, str]:
    """A recorded network and the sha256 of its weights."""
    network = load_recorded(models_dir, name)
    if not isinstance(network, kind):
        raise _no_network(system, f"{type(network).__name__} under the name {name}", kind.__name__)
    return network, str(read_index(models_dir)[name]["sha256"])


def _fingerprint(system: str, sha256: str, **settings: object) -> str:
    return f"{system} {json.dumps([sha256, settings], sort_keys=True)}"
