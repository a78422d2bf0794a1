"""Classifiers that judge a release by what can be learned from it: one short recipe for every training list.

All are trained alike, from scratch, whatever their images: real ones or released. The checkpoint is the one with the
best macro AUROC on real images of a choice role (V2 of the protocol), which no system learns from and no figure is
made on. What a classifier says of a list of images is kept in a folder under the content of everything that decides
it, so that the classifiers of the real list are trained once for all releases of that list.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32
from scipy.special import expit
from torch import Tensor

from gmia_monai.attacks.base import TooLittleDataError
from gmia_monai.attacks.training import Schedule, train
from gmia_monai.data.release import hash_pixels
from gmia_monai.dicom.atomic import atomic_path
from gmia_monai.errors import UsageError
from gmia_monai.inferers.autocast import AutocastInferer, computes_bfloat16
from gmia_monai.losses.classification import MaskedBCE
from gmia_monai.metrics.verification import roc_auc
from gmia_monai.networks.utility import UtilityNet
from gmia_monai.transforms.augmentation import BatchAugmentation
from gmia_monai.typing import PathLike
from gmia_monai.weights import load_weights, save_weights

__all__ = ["ClassifierStore", "LabelledImages", "TransferRecipe"]

_log = logging.getLogger(__name__)

AUGMENTATION = {"shift_px": 3, "rotate_deg": 7.0, "zoom": 0.08, "contrast": 0.2}
_VERSION = 1  # raised whenever the same recipe gives another classifier
_CHOICE_POSITIVES = 10
_BATCH = 128


@dataclass(frozen=True)
class TransferRecipe:
    """How a classifier is trained; everything but seed and data.

    Attributes:
        architecture: one of :data:`gmia_monai.networks.utility.UTILITY_ARCHITECTURES`.
        steps: updates.
        lr: highest learning rate of AdamW.
        batch_size: images a step.
        dropout: before or in the head, as the architecture has it.
        validate_every: updates between two looks at the choice role.
        bfloat16: mixed precision where the device computes it faster; without effect elsewhere.
    """

    architecture: str = "small"
    steps: int = 400
    lr: float = 1e-3
    batch_size: int = 64
    dropout: float = 0.2
    validate_every: int = 50
    bfloat16: bool = True


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images with findings.

    Attributes:
        pixels: in [0, 1].
        labels: 0, 1 or ``nan`` for unknown.

    Raises:
        UsageError: ``GM-U346`` where the two differ in length, or there is no image.
    """

    pixels: Float32[np.ndarray, "n 1 h w"] = field(repr=False)
    labels: Float[np.ndarray, "m k"] = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.pixels) != len(self.labels) or len(self.pixels) == 0:
            raise UsageError("GM-U346", "images and labels do not fit", got=f"{len(self.pixels)}, {len(self.labels)}")

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of pixels and labels."""
        labels = np.ascontiguousarray(self.labels, dtype=np.float32)
        return hashlib.sha256(hash_pixels(self.pixels).encode() + labels.tobytes()).hexdigest()


class ClassifierStore:
    """Trains classifiers, and keeps what they say of lists of images.

    Args:
        folder: for ``<key>-<hash of the images>.npz``, logits, and ``<key>.safetensors``, weights.
        choice: real images on which checkpoints are chosen.
        device: where networks run.

    Attributes:
        seconds: what each training of this store took.

    Raises:
        UsageError: ``GM-U349`` where no finding has enough positives among ``choice``.
    """

    def __init__(self, folder: PathLike, choice: LabelledImages, device: str = "cpu") -> None:
        self.folder = Path(folder)
        self.choice = choice
        self.device = device
        self.seconds: list[float] = []
        positives, known = np.nansum(choice.labels, axis=0), (~np.isnan(choice.labels)).sum(axis=0)
        self._chosen_by = np.flatnonzero((positives >= _CHOICE_POSITIVES) & (positives < known))
        if len(self._chosen_by) == 0:
            raise TooLittleDataError(
                "GM-U349",
                "no finding has enough positives to choose a checkpoint by",
                got=int(positives.max(initial=0)),
                expected=f"at least {_CHOICE_POSITIVES} in the choice role",
            )

    def path(self, training: LabelledImages, recipe: TransferRecipe, seed: int, images: np.ndarray) -> Path:
        """Where the logits of some images are kept."""
        return self.folder / f"{self._key(training, recipe, seed)}-{hash_pixels(images)[:16]}.npz"

    def weights_path(self, training: LabelledImages, recipe: TransferRecipe, seed: int) -> Path:
        """Where the weights of a classifier are kept."""
        return self.folder / f"{self._key(training, recipe, seed)}.safetensors"

    def _key(self, training: LabelledImages, recipe: TransferRecipe, seed: int) -> str:
        facts = [training.content_hash, self.choice.content_hash, asdict(recipe), AUGMENTATION, seed]
        facts += [_VERSION, computes_bfloat16(self.device)]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]

    def probabilities(
        self,
        training: LabelledImages,
        recipe: TransferRecipe,
        seed: int,
        images: Sequence[Float32[np.ndarray, "_ 1 _ _"]],
        keep_weights: bool = False,
    ) -> list[Float[np.ndarray, "_ k"]]:
        """What the classifier of a training list says of lists of images; it is trained only where that is not known.

        Args:
            training: what it learns from.
            recipe: how.
            seed: of its first weights and of all draws.
            images: lists of images, in [0, 1].
            keep_weights: keep the weights, too, so that lists that come later need no training.

        Raises:
            UsageError: ``GM-U348`` where images of the lists differ in size.
        """
        sizes = {part.shape[1:] for part in (training.pixels, self.choice.pixels, *images)}
        if len(sizes) != 1:
            raise UsageError("GM-U348", "images of a classifier differ in size", got=sorted(sizes))
        paths = [self.path(training, recipe, seed, part) for part in images]
        missing = [i for i, path in enumerate(paths) if not path.is_file()]
        if missing:
            network = self._network(training, recipe, seed, keep_weights)
            for i in missing:
                with atomic_path(paths[i]) as temporary:
                    np.savez(temporary, logits=self._predict(network, images[i]))
        found = []
        for path in paths:
            with np.load(path, allow_pickle=False) as archive:
                found.append(expit(archive["logits"].astype(np.float64)))
        return found

    def kept(self, training: LabelledImages, recipe: TransferRecipe, seed: int) -> UtilityNet | None:
        """The classifier itself, where its weights are kept; it is not trained for that.

        Args:
            training: what it learned from.
            recipe: how.
            seed: of its first weights and of all draws.
        """
        there = self.weights_path(training, recipe, seed).is_file()
        return self._network(training, recipe, seed, keep_weights=True) if there else None

    def _network(self, training: LabelledImages, recipe: TransferRecipe, seed: int, keep_weights: bool) -> UtilityNet:
        path = self.weights_path(training, recipe, seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = UtilityNet(training.labels.shape[1], recipe.architecture, recipe.dropout)
        network.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if path.is_file():
            load_weights(network, path)
            return network.eval()
        started = time.monotonic()
        self._train(network, training, recipe, seed)
        self.seconds.append(time.monotonic() - started)
        if keep_weights:
            save_weights(path, network, {"recipe": asdict(recipe), "seed": seed})
        return network

    def _train(self, network: UtilityNet, training: LabelledImages, recipe: TransferRecipe, seed: int) -> None:
        mixed = recipe.bfloat16 and computes_bfloat16(self.device)
        augment, criterion, forward = BatchAugmentation(**AUGMENTATION), MaskedBCE(), AutocastInferer(mixed)
        pixels = torch.from_numpy(training.pixels)
        labels = torch.from_numpy(training.labels.astype(np.float32))

        def loss_of(rng: np.random.Generator) -> Tensor:
            drawn = torch.from_numpy(rng.integers(0, len(pixels), recipe.batch_size))
            images = augment(pixels[drawn].to(self.device)).contiguous(memory_format=torch.channels_last)
            return criterion(forward(images, network), labels[drawn].to(self.device))

        def validate() -> float:
            logits = self._predict(network, self.choice.pixels, autocast=mixed)
            return float(np.mean([self._auc(logits[:, k], self.choice.labels[:, k]) for k in self._chosen_by]))

        schedule = Schedule(recipe.steps, recipe.lr, validate_every=recipe.validate_every, bfloat16=recipe.bfloat16)
        train(network, loss_of, schedule, seed, validate, name=f"classifier {recipe.architecture}, seed {seed}")

    @staticmethod
    def _auc(logits: Float[np.ndarray, "n"], labels: Float[np.ndarray, "n"]) -> float:
        known = ~np.isnan(labels)
        return roc_auc(logits[known], labels[known] > 0.5)

    @torch.no_grad()
    def _predict(
        self, network: UtilityNet, pixels: Float32[np.ndarray, "n 1 h w"], autocast: bool = False
    ) -> Float32[np.ndarray, "n k"]:
        forward = AutocastInferer(autocast)  # bfloat16 logits are coarse enough for ties
        parts = [
            forward(batch.to(self.device).contiguous(memory_format=torch.channels_last), network).cpu()
            for batch in torch.from_numpy(pixels).split(_BATCH)
        ]
        return torch.cat(parts).numpy()
