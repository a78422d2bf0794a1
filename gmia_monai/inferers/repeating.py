"""What inferers that draw share: seeds that begin anew with each run of an evaluator, so that validations compare."""

from __future__ import annotations

from ignite.engine import Engine, Events
from monai.inferers import Inferer

__all__ = ["RepeatingInferer"]


class RepeatingInferer(Inferer):
    """Draws the same noise in each validation, and other noise in each of its batches; what it draws, subclasses say.

    Args:
        seed: of the noise.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed
        self._number = 0

    def attach(self, engine: Engine) -> None:
        """Lets each run of an evaluator begin with the same noise."""
        engine.add_event_handler(Events.STARTED, self._restart)

    def _restart(self, engine: Engine) -> None:
        self._number = 0

    def _next_seed(self, n: int = 1) -> int:
        """The first of the ``n`` consecutive seeds that come next in this run."""
        first = self.seed * 1_000_003 + self._number
        self._number += n
        return first
