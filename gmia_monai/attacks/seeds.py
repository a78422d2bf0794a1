"""Attackers of several seeds: fitted by name, and asked once where another seed gives the same one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from jaxtyping import Shaped

from gmia_monai.attacks.attackers.base import EmbeddingAttacker
from gmia_monai.attacks.base import AttackerKnowledge
from gmia_monai.attacks.pool import AttackerPool
from gmia_monai.errors import UsageError

__all__ = ["Statistics", "checked_seeds", "embedding_attackers", "shared_statistics"]

Statistics = Callable[[np.ndarray], Sequence[float]]
"""Maps one weight an image, a patient or a pair to figures."""
_Made = TypeVar("_Made")


def checked_seeds(seeds: Sequence[int]) -> tuple[int, ...]:
    """The seeds.

    Raises:
        UsageError: ``GM-U316`` where there is none.
    """
    if not seeds:
        raise UsageError("GM-U316", "an attack needs at least one seed")
    return tuple(seeds)


def embedding_attackers(
    attackers: AttackerPool, seeds: Sequence[int], knowledge: AttackerKnowledge
) -> dict[str, list[EmbeddingAttacker]]:
    """Those that embed images, fitted: name to one attacker a seed, for those that every seed has."""
    per_seed = [attackers.embedding(seed, knowledge) for seed in seeds]
    names = [name for name in per_seed[0] if all(name in fitted for fitted in per_seed)]
    return {name: [fitted[name] for fitted in per_seed] for name in names}


def shared_statistics(
    scores: Sequence[Shaped[np.ndarray, "..."]], make: Callable[[Shaped[np.ndarray, "..."]], _Made]
) -> list[_Made]:
    """What ``make`` gives for the scores of each seed's attacker; for equal scores the very same object.

    An attacker without chance scores alike with every seed; the bootstrap computes a statistic that comes several times
    once (:func:`gmia_monai.metrics.intervals.pair_bootstrap_figures`).
    """
    made: list[_Made] = []
    for i, of_seed in enumerate(scores):
        known = [k for k in range(i) if np.array_equal(scores[k], of_seed)]
        made.append(made[known[0]] if known else make(of_seed))
    return made
