"""``prepare_batch`` of the training configs: what a network gets of a batch, and what it is to give back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["AugmentedBatch", "batch_as_target"]


def batch_as_target(
    batch: Mapping[str, Tensor], device: torch.device | None = None, non_blocking: bool = False, **kwargs: Any
) -> tuple[Tensor, Tensor]:
    """``prepare_batch`` of auto-encoders: the image is its own target."""
    image = batch["image"].to(device, non_blocking=non_blocking, **kwargs)
    return image, image


class AugmentedBatch:
    """``prepare_batch`` that changes the images on the device.

    Args:
        augmentation: takes and gives ``[b, 1, h, w]``.
        mirrored_classes: number of classes, where a mirrored patient is to be learned as another patient: half of the
            images are flipped, and their class number is raised by this. 0: no such classes. Left and right of a chest
            differ, so this doubles the patients to be told apart without new images.
    """

    def __init__(self, augmentation: Callable[[Tensor], Tensor], mirrored_classes: int = 0) -> None:
        self.augmentation = augmentation
        self.mirrored_classes = mirrored_classes

    def __call__(
        self, batch: Mapping[str, Tensor], device: torch.device | None = None, non_blocking: bool = False, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Images and labels of a batch; without labels the changed image is its own target."""
        image = self.augmentation(batch["image"].to(device, non_blocking=non_blocking, **kwargs))
        if "label" not in batch:
            return image, image
        label = batch["label"].to(device, non_blocking=non_blocking)
        if self.mirrored_classes:
            mirrored = (torch.rand(len(image)) < 0.5).to(image.device)
            image = torch.where(mirrored[:, None, None, None], image.flip(-1), image)
            label = label + mirrored.to(label) * self.mirrored_classes
        return image, label
