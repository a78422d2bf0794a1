"""What adversarial trainings share: guarded updates, the step of the discriminator, lazy R1."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from monai.engines import Trainer
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from gmia_monai.engines.batches import batch_as_target
from gmia_monai.engines.optimizers import average_gradients, broadcast_parameters
from gmia_monai.errors import ResourceError
from gmia_monai.losses.adversarial import PathLengthPenalty, discriminator_logistic_loss, r1_penalty

__all__ = ["AdversarialTrainer"]


class AdversarialTrainer(Trainer):
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
        max_skipped: updates of one phase with a non-finite gradient in a row after which training stops.
        epoch_length: iterations an epoch; the length of the loader if None.
        amp: bfloat16 autocast.
        train_handlers: MONAI or Ignite handlers.
        non_blocking: asynchronous copies to the device.
        prepare_batch: takes a batch, the device and ``non_blocking``, gives the images first.

    Raises:
        ResourceError: ``GM-R030`` (while running) when ``max_skipped`` updates of a phase in a row are not finite.
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
        r1_gamma: float = 1.0,
        r1_interval: int = 16,
        path_length_weight: float = 2.0,
        path_length_interval: int = 4,
        path_length_batch_shrink: int = 2,
        path_length: PathLengthPenalty | None = None,
        max_skipped: int = 10,
        epoch_length: int | None = None,
        amp: bool = False,
        train_handlers: Sequence | None = None,
        non_blocking: bool = False,
        prepare_batch: Callable[..., Any] = batch_as_target,
    ) -> None:
        super().__init__(
            device=device,
            max_epochs=max_epochs,
            data_loader=train_data_loader,
            epoch_length=epoch_length,
            non_blocking=non_blocking,
            prepare_batch=prepare_batch,
            handlers=train_handlers,
            amp=amp,
            decollate=False,
        )
        self.discriminator = discriminator
        self.g_optimizer = g_optimizer
        self.d_optimizer = d_optimizer
        self.r1_gamma = r1_gamma
        self.r1_interval = r1_interval
        self.path_length = path_length if path_length is not None else PathLengthPenalty()
        self.path_length_weight = path_length_weight
        self.path_length_interval = path_length_interval
        self.path_length_batch_shrink = path_length_batch_shrink
        self.max_skipped = max_skipped
        self._skipped: dict[str, int] = {}
        self._last = {"r1_penalty": 0.0, "path_length_penalty": 0.0}
        broadcast_parameters([generator, discriminator])

    def _step(self, phase: str, optimizer: Optimizer, loss: Tensor) -> bool:
        """One update, left out where a gradient is not finite; each phase counts its own."""
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        params = [p for group in optimizer.param_groups for p in group["params"]]
        average_gradients(params)
        norm = torch.nn.utils.get_total_norm([p.grad for p in params if p.grad is not None])
        if torch.isfinite(norm):
            optimizer.step()
            self._skipped[phase] = 0
            return True
        self._skipped[phase] = self._skipped.get(phase, 0) + 1
        self.logger.warning("iteration %d: %s gradient is not finite, update left out", self.state.iteration, phase)
        if self._skipped[phase] >= self.max_skipped:
            raise ResourceError(
                "GM-R030",
                f"training diverged: {self._skipped[phase]} {phase} updates in a row were not finite",
                next_step="resume from the last checkpoint with a lower learning rate, or without --amp",
            )
        return False

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.state.device.type, dtype=torch.bfloat16, enabled=self.amp)

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
