"""What adversarial trainings share: the step of the discriminator, lazy R1, and the settings of both regularisers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from gmia_monai.engines.guarded import GuardedTrainer
from gmia_monai.engines.optimizers import broadcast_parameters
from gmia_monai.losses.adversarial import PathLengthPenalty, discriminator_logistic_loss, r1_penalty

__all__ = ["AdversarialTrainer"]


class AdversarialTrainer(GuardedTrainer):
    """A generator's side of a StyleGAN2 game is left to subclasses; the discriminator's is here.

    Args:
        device: where to train.
        max_epochs: number of epochs.
        train_data_loader: batches with ``image``, ``[b, 1, h, w]`` in [0, 1].
        generator: network to train.
        discriminator: its adversary.
        g_optimizer: optimizer of the generator.
        d_optimizer: optimizer of the discriminator.
        r1_gamma: weight of R1.
        r1_interval: iterations between two R1 steps; 0 for none.
        path_length_weight: weight of the path-length penalty.
        path_length_interval: iterations between two path-length steps; 0 for none.
        path_length_batch_shrink: divisor of the batch in path-length steps.
        path_length: penalty with its running mean, given from outside so that a checkpoint can hold it.
        shared: the further arguments of :class:`gmia_monai.engines.guarded.GuardedTrainer`.

    Raises:
        ResourceError: ``GM-R030`` as :class:`gmia_monai.engines.guarded.GuardedTrainer`.
    """

    def __init__(
        self,
        device: torch.device | str,
        max_epochs: int,
        train_data_loader: Iterable | DataLoader,
        generator: nn.Module,
        discriminator: nn.Module,
        g_optimizer: Optimizer,
        d_optimizer: Optimizer,
        *,
        r1_gamma: float = 1.0,
        r1_interval: int = 16,
        path_length_weight: float = 2.0,
        path_length_interval: int = 4,
        path_length_batch_shrink: int = 2,
        path_length: PathLengthPenalty | None = None,
        **shared: Any,
    ) -> None:
        super().__init__(device, max_epochs, train_data_loader, **shared)
        self.discriminator = discriminator
        self.g_optimizer = g_optimizer
        self.d_optimizer = d_optimizer
        self.r1_gamma = r1_gamma
        self.r1_interval = r1_interval
        self.path_length = path_length if path_length is not None else PathLengthPenalty()
        self.path_length_weight = path_length_weight
        self.path_length_interval = path_length_interval
        self.path_length_batch_shrink = path_length_batch_shrink
        self._last = {"r1_penalty": 0.0, "path_length_penalty": 0.0}
        broadcast_parameters([generator, discriminator])

    def _discriminator_phase(self, real: Tensor, fake: Tensor) -> float:
        # The reconstructions of the generator's phase serve again; the published code computes them twice.
        with self._autocast():
            loss = discriminator_logistic_loss(self.discriminator(real), self.discriminator(fake))
        self._step("discriminator", self.d_optimizer, loss)
        return loss.item()

    def _r1_phase(self, real: Tensor) -> None:
        real = real.detach().requires_grad_(True)
        penalty = r1_penalty(self.discriminator(real), real, self.r1_gamma)
        self._step("R1", self.d_optimizer, penalty * self.r1_interval)
        self._last["r1_penalty"] = penalty.item()
