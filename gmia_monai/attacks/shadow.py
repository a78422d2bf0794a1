"""Shadow models: stand-ins for the judged system, trained by the attacker on people whose membership is known.

Shokri et al., "Membership inference attacks against machine learning models", IEEE S&P 2017, section V. Each shadow
learns from half of the *patients*, and shadows come in pairs that share no patient, so that each image has as many
shadows that learned from its patient as such that did not (as Carlini et al., IEEE S&P 2022, section VI, have it).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Shaped
from torch import Tensor, nn

from gmia_monai.attacks.base import Pixels
from gmia_monai.attacks.training import Schedule, train
from gmia_monai.data.release import RealImages
from gmia_monai.errors import UsageError

__all__ = ["AutoencoderTrainer", "Reconstruct", "Shadow", "SmallAutoencoder", "TrainShadow", "patient_halves"]

_log = logging.getLogger(__name__)
_PATCH = 4
_BATCH = 128

Reconstruct = Callable[[Pixels], Pixels]
TrainShadow = Callable[[Pixels, int], Reconstruct]
"""Trains a system like the judged one on images, with a seed, and gives what it makes of an image."""


class SmallAutoencoder(nn.Module):
    """Two convolutions and a linear code of 64 numbers, on patches of 4 x 4 pixels: seconds on one core.

    Args:
        image_size: side of the images, a multiple of 8.
        code: numbers in the code.

    Raises:
        UsageError: ``GM-U343`` for another size.
    """

    def __init__(self, image_size: int, code: int = 64) -> None:
        super().__init__()
        if image_size % (2 * _PATCH):
            raise UsageError(
                "GM-U343", "shadow models take sizes that are multiples of 8", got=image_size, next_step="resize, or "
                "give a trainer of your own",
            )  # fmt: skip
        side, patch = image_size // (2 * _PATCH), _PATCH**2
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(_PATCH),
            nn.Conv2d(patch, 64, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64 * side**2, code),
        )
        self.decoder = nn.Sequential(
            nn.Linear(code, 64 * side**2),
            nn.ReLU(),
            nn.Unflatten(1, (64, side, side)),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(64, 64, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(64, patch, 3, padding=1),
            nn.PixelShuffle(_PATCH),
        )

    def forward(self, image: Tensor) -> Tensor:
        """``[b, 1, h, w]`` in [0, 1] to the same shape, not clipped."""
        return self.decoder(self.encoder(image - 0.5)) + 0.5


@dataclass(frozen=True)
class AutoencoderTrainer:
    """Trains a :class:`SmallAutoencoder` with mean squared error; the default shadow.

    Attributes:
        schedule: how long; long enough to learn its images by heart, as an attacker would choose it.
        batch_size: images a step.
        device: where it runs.
    """

    schedule: Schedule = Schedule(steps=600, lr=2e-3, weight_decay=0.0)
    batch_size: int = 32
    device: str = "cpu"

    def __call__(self, images: Pixels, seed: int) -> Reconstruct:
        """Trains on images; the same images and seed give the same model."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = SmallAutoencoder(images.shape[-1]).to(self.device)

        def loss_of(rng: np.random.Generator) -> Tensor:
            batch = torch.from_numpy(images[rng.integers(0, len(images), self.batch_size)]).to(self.device)
            return F.mse_loss(network(batch), batch)

        train(network, loss_of, self.schedule, seed, name="shadow model")

        @torch.no_grad()
        def reconstruct(pixels: Pixels) -> Pixels:
            parts = torch.from_numpy(pixels).split(_BATCH)
            return torch.cat([network(part.to(self.device)).clamp(0, 1).cpu() for part in parts]).numpy()

        return reconstruct


def patient_halves(
    patients: Sequence[str] | Shaped[np.ndarray, "n"], n_models: int, seed: int
) -> Bool[np.ndarray, "m n"]:
    """Which images each model learns from: models 2 i and 2 i + 1 share the patients out between them.

    Args:
        patients: patient of each image.
        n_models: an even number, at least 4: an image then has two models of either kind.
        seed: of the draws.

    Raises:
        UsageError: ``GM-U343`` for another number of models, or fewer than two patients.
    """
    names, member = np.unique(np.asarray(patients), return_inverse=True)
    if n_models < 4 or n_models % 2 or len(names) < 2:
        raise UsageError(
            "GM-U343",
            "shadow models cannot be dealt out",
            got=f"{n_models} models, {len(names)} patients",
            expected="an even number of models, at least 4, and two patients",
        )
    rng = np.random.default_rng(seed)
    halves = []
    for _ in range(n_models // 2):
        inside = rng.permutation(len(names)) < len(names) // 2
        halves += [inside[member], ~inside[member]]
    return np.stack(halves)


@dataclass(frozen=True, eq=False)
class Shadow:
    """One shadow model.

    Attributes:
        reconstruct: what it makes of images.
        learned_from: identifiers of the patients it learned from.
    """

    reconstruct: Reconstruct
    learned_from: frozenset[str]

    def knows(self, patients: Sequence[str]) -> Bool[np.ndarray, "n"]:
        """Whether it learned from each of these patients."""
        return np.array([p in self.learned_from for p in patients], dtype=bool)

    @classmethod
    def train_all(cls, real: RealImages, trainer: TrainShadow, n_models: int, seed: int) -> tuple[Shadow, ...]:
        """Trains shadows on halves of the patients of ``real``, which ``seed`` draws.

        Shadow ``i`` is trained with the seed ``seed * n_models + i``: two attackers have no initialisation in common.

        Raises:
            UsageError: ``GM-U343`` as :func:`patient_halves`, or where a model changes the size of an image.
        """
        patients = np.array([record.patient_id for record in real.cohort])
        shadows = []
        for i, inside in enumerate(patient_halves(patients, n_models, seed)):
            reconstruct = trainer(real.pixels[inside], seed * n_models + i)
            out = reconstruct(real.pixels[:1])
            if out.shape != real.pixels[:1].shape:
                raise UsageError(
                    "GM-U343", "a shadow model changes the size of images", got=out.shape, expected="the same size"
                )
            shadows.append(cls(reconstruct, frozenset(patients[inside].tolist())))
            _log.info("shadow model %d of %d", i + 1, n_models)
        return tuple(shadows)
