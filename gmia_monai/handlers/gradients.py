"""What happens to gradients between MONAI's backward pass and the optimizer's step."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from torch import nn

from gmia_monai.engines.optimizers import average_gradients, broadcast_parameters
from gmia_monai.errors import ResourceError

__all__ = ["GradientHandler"]


class GradientHandler:
    """Averages gradients over processes, clips their norm, and leaves out updates that are not finite.

    For MONAI's ``SupervisedTrainer``, which steps without a look. In runs of several processes parameters and buffers
    are also made those of process 0 when an epoch starts and ends, so that batch-normalisation statistics agree when
    the network is validated and saved.

    Args:
        modules: networks and losses with parameters that are trained together.
        max_norm: largest norm of the gradient of each module; None or 0 for no limit.
        max_skipped: updates with a non-finite gradient in a row after which training stops.

    Raises:
        ResourceError: ``GM-R030`` (while running) when ``max_skipped`` updates in a row are not finite.
    """

    def __init__(self, modules: Sequence[nn.Module], max_norm: float | None = None, max_skipped: int = 10) -> None:
        self.modules = list(modules)
        self.max_norm = max_norm
        self.max_skipped = max_skipped
        self._skipped = 0
        self.logger = logging.getLogger(__name__)

    def attach(self, engine: Engine) -> None:
        """Registers the handler. Attach it before handlers that validate or save."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._share)
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._share)

    def _share(self, engine: Engine) -> None:
        broadcast_parameters(self.modules)

    def __call__(self, engine: Engine) -> None:
        """Works on the gradients as they are after the backward pass."""
        average_gradients([p for module in self.modules for p in module.parameters()])
        scaled = getattr(engine, "amp", False) and getattr(engine, "scaler", None) is not None
        if scaled:
            engine.scaler.unscale_(engine.optimizer)
        finite = True
        for module in self.modules:
            grads = [p.grad for p in module.parameters() if p.grad is not None]
            norm = torch.nn.utils.get_total_norm(grads)
            finite = finite and bool(torch.isfinite(norm))
            if self.max_norm:
                torch.nn.utils.clip_grads_with_norm_(
                    [p for p in module.parameters() if p.grad is not None], self.max_norm, norm
                )
        # A gradient scaler expects overflows while it looks for its scale, and leaves those steps out by itself.
        if finite or scaled:
            self._skipped = 0
            return
        # Optimizers pass over parameters without gradient: neither the weights nor the moments move.
        for module in self.modules:
            for p in module.parameters():
                p.grad = None
        self._skipped += 1
        self.logger.warning("iteration %d: gradient is not finite, update left out", engine.state.iteration)
        if self._skipped >= self.max_skipped:
            raise ResourceError(
                "GM-R030",
                f"training diverged: {self._skipped} updates in a row were not finite",
                next_step="resume from the last checkpoint with a lower learning rate, or without --amp",
            )
