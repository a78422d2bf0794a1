"""What trainings with several optimizers share: guarded updates and autocast."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from monai.engines import Trainer
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from gmia_monai.engines.batches import batch_as_target
from gmia_monai.engines.optimizers import average_gradients
from gmia_monai.errors import ResourceError

__all__ = ["GuardedTrainer"]


class GuardedTrainer(Trainer):
    """The iteration is left to subclasses; their updates go through :meth:`_step`.

    Args:
        device: where to train.
        max_epochs: number of epochs.
        train_data_loader: batches, as the subclass says.
        max_skipped: updates of one phase with a non-finite gradient in a row after which training stops.
        epoch_length: iterations an epoch; the length of the loader if None.
        amp: bfloat16 autocast.
        train_handlers: MONAI or Ignite handlers.
        non_blocking: asynchronous copies to the device.
        prepare_batch: takes a batch, the device and ``non_blocking``, gives the images first; for subclasses that use
            it.

    Raises:
        ResourceError: ``GM-R030`` (while running) when ``max_skipped`` updates of a phase in a row are not finite.
    """

    def __init__(
        self,
        device: torch.device | str,
        max_epochs: int,
        train_data_loader: Iterable | DataLoader,
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
        self.max_skipped = max_skipped
        self._skipped: dict[str, int] = {}

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
