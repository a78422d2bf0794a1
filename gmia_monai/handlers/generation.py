"""Validation of generators: the kernel distance of drawn images from real ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from ignite.metrics import Metric
from ignite.metrics.metric import reinit__is_reduced
from torch import Tensor

from gmia_monai.metrics.kid import KernelDistance

__all__ = ["NegativeKID"]


class NegativeKID(Metric):
    """Minus the kernel distance (KID) of ``pred`` from ``label``, so that the highest value is the best.

    Args:
        features: maps images ``[b, 1, h, w]`` to ``[b, d]``, e.g. ``UtilityNet.features``.
        output_transform: from the engine's output to (drawn, real); by default from its ``pred`` and ``label``.
    """

    def __init__(
        self,
        features: Callable[[Tensor], Tensor],
        output_transform: Callable[[Any], tuple[Tensor, Tensor]] = lambda out: (out["pred"], out["label"]),
    ) -> None:
        self._features = features
        super().__init__(output_transform=output_transform)

    @reinit__is_reduced
    def reset(self) -> None:
        """Forgets what it has seen."""
        self._real: list[np.ndarray] = []
        self._drawn: list[np.ndarray] = []

    @reinit__is_reduced
    @torch.no_grad()
    def update(self, output: tuple[Tensor, Tensor]) -> None:
        """Takes a batch of drawn and real images."""
        for kept, images in zip((self._drawn, self._real), output, strict=True):
            kept.append(self._features(torch.as_tensor(images).float()).float().cpu().numpy())

    def compute(self) -> float:
        """The distance with its sign turned, each image once.

        Raises:
            UsageError: ``GM-U351`` for fewer than two images.
        """
        real, drawn = np.concatenate(self._real), np.concatenate(self._drawn)
        units = np.arange(len(real)), len(real) + np.arange(len(drawn))
        return -KernelDistance(real, drawn, *units)()
