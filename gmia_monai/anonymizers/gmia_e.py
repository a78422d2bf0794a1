"""GMIA on an E-training encoder, the baseline of GMIA's section 3.1.

There an unconditional StyleGAN2 is trained first, then an encoder for it while it stays as it is.
"""

from __future__ import annotations

from typing import Any

from gmia_monai.anonymizers.controls import Reconstruction
from gmia_monai.anonymizers.gmia import GMIA
from gmia_monai.networks.pretrained import load_anonymizer, weights_hashes
from gmia_monai.typing import PathLike

__all__ = ["GMIAE", "ReconstructionE"]

_AUTOENCODER = "aegan_e"


class GMIAE(GMIA):
    """:class:`GMIA` with the weights ``aegan_e`` in the place of ``aegan``."""

    @classmethod
    def from_weights(cls, models_dir: PathLike, **settings: Any) -> GMIAE:
        """From a folder of recorded weights.

        Raises:
            IntegrityError: ``GM-W001`` … ``GM-W006``.
        """
        network = load_anonymizer(models_dir, _AUTOENCODER)
        found = cls(network, weights_hashes(models_dir, _AUTOENCODER), **settings)
        if "name" not in settings:
            found.name = found.name.replace("gmia", "gmia-e", 1)
        return found


class ReconstructionE(Reconstruction):
    """:class:`Reconstruction` by the E-training auto-encoder."""

    @classmethod
    def from_weights(cls, models_dir: PathLike, device: str = "cpu") -> ReconstructionE:
        """From a folder of recorded weights.

        Raises:
            IntegrityError: ``GM-W001`` … ``GM-W006``.
        """
        network = load_anonymizer(models_dir, _AUTOENCODER).to(device)
        found = cls(network, weights_hashes(models_dir, _AUTOENCODER)[_AUTOENCODER], device)
        found.name = "reconstruction e-training"
        return found
