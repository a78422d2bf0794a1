"""What was learned on V2, asked about V2: by parts of the patients, each asked of what the others taught.

Read on what it was fitted on, whatever has freedom looks better than what has none; a choice among them would then fall
on the one that learned most by heart.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from gmia_monai.attacks.base import TooLittleDataError

__all__ = ["CrossFitted"]

_PARTS = 5

Model = TypeVar("Model", bound=Callable[..., Float[np.ndarray, "m"]])


class CrossFitted(Generic[Model]):
    """A model of all patients, and one without each part of them.

    Args:
        learn: fits a model on some of the rows.
        positive: which rows are positive.
        first: patient of each row.
        second: patient of the other image of a pair; None: there is none.

    Attributes:
        all: the model of all patients.
    """

    def __init__(
        self,
        learn: Callable[[Bool[np.ndarray, "n"]], Model],
        positive: Bool[np.ndarray, "n"],
        first: Int[np.ndarray, "n"],
        second: Int[np.ndarray, "n"] | None = None,
    ) -> None:
        second = first if second is None else second
        patients = np.unique([first, second])
        parts = np.random.default_rng(0).permutation(len(patients)) % _PARTS
        self._part_of = dict(zip(patients.tolist(), parts.tolist(), strict=True))
        self.all = learn(np.ones(len(positive), dtype=bool))
        self._without: dict[int, Model] = {}
        of_first, of_second = self._parts(first), self._parts(second)
        for part in range(_PARTS):
            learnt = (of_first != part) & (of_second != part)
            if min((positive & learnt).sum(), (~positive & learnt).sum()) >= 2:
                with suppress(TooLittleDataError):  # rows without a weight teach nothing
                    self._without[part] = learn(learnt)

    def _parts(self, patients: Int[np.ndarray, "m"]) -> Int[np.ndarray, "m"]:
        return np.array([self._part_of.get(p, -1) for p in patients.tolist()], dtype=np.int64)

    def left_out(self, scores: Shaped[np.ndarray, "m ..."], first: Int[np.ndarray, "m"]) -> Float[np.ndarray, "m"]:
        """What the model says that has learned from nothing with the (first) patient of each row.

        Those who are not of V2 are scored by all of it, and so is a part whose absence leaves too little to learn from:
        fewer than two rows of a kind, or what ``learn`` itself calls too little.
        """
        part, found = self._parts(first), self.all(scores)
        for left, without in self._without.items():
            if (part == left).any():
                found[part == left] = without(scores[part == left])
        return found
