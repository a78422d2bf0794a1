"""Seeds every epoch by itself, so that a resumed run continues as the uninterrupted one would have."""

from __future__ import annotations

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data.utils import set_rnd
from torch.utils.data import Dataset

__all__ = ["EpochSeed"]


class EpochSeed:
    """Sets the seeds of torch, NumPy and of the data set's random transforms when an epoch starts.

    Args:
        seed: seed of the run.
        dataset: data set whose random transforms run in this process (``num_workers=0``); workers are seeded by torch.
        rank: number of this process; processes draw different noise.
    """

    def __init__(self, seed: int, dataset: Dataset | None = None, rank: int = 0) -> None:
        self.seed = seed
        self.dataset = dataset
        self.rank = rank

    def attach(self, engine: Engine) -> None:
        """Registers the handler."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Seeds for the epoch in ``engine.state``."""
        seed = int(np.random.SeedSequence([self.seed, engine.state.epoch, self.rank]).generate_state(1)[0])
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - some transforms draw from the global state
        if self.dataset is not None:
            set_rnd(self.dataset, seed)
