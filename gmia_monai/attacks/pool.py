"""Attackers that several attacks share: each is fitted once for a seed and what is known."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from gmia_monai.attacks.attackers.base import (
    Attacker,
    CombiningAttacker,
    EmbeddingAttacker,
    fit_attacker,
    with_enough_data,
)
from gmia_monai.attacks.base import AttackerKnowledge, TooLittleDataError
from gmia_monai.errors import UsageError

__all__ = ["AttackerPool"]

_log = logging.getLogger(__name__)


class AttackerPool:
    """Attackers by name, made and fitted when first asked for.

    Args:
        makers: name to a function that makes the attacker anew.

    Raises:
        UsageError: ``GM-U316`` without an attacker.
    """

    def __init__(self, makers: Mapping[str, Callable[[], Attacker]]) -> None:
        if not makers:
            raise UsageError("GM-U316", "an attack needs at least one attacker")
        self._makers = dict(makers)
        self._fitted: dict[tuple[str, int], Attacker] = {}
        self._lacking: dict[tuple[str, int], TooLittleDataError] = {}
        self._knowledge: AttackerKnowledge | None = None

    def __contains__(self, name: object) -> bool:
        return name in self._makers

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def make(self, name: str) -> Attacker:
        """An attacker that is not fitted and not shared."""
        return self._makers[name]()

    def fitted(self, name: str, seed: int, knowledge: AttackerKnowledge) -> Attacker:
        """The attacker of this name and seed; other knowledge than before begins anew.

        Raises:
            TooLittleDataError: where the attacker finds too little; it is tried, and named in the log, once.
        """
        if knowledge is not self._knowledge:
            self._fitted.clear()
            self._lacking.clear()
            self._knowledge = knowledge
        if (name, seed) in self._lacking:
            raise self._lacking[name, seed].with_traceback(None)
        if (name, seed) not in self._fitted:
            started = time.monotonic()
            attacker = self._makers[name]()
            if isinstance(attacker, CombiningAttacker):
                attacker.fitted = self.fitted
            try:
                fit_attacker(attacker, knowledge, seed)
            except TooLittleDataError as error:
                self._lacking[name, seed] = error
                raise
            self._fitted[name, seed] = attacker
            _log.info("attacker %s, seed %d: fitted in %.0f s", name, seed, time.monotonic() - started)
        return self._fitted[name, seed]

    def of_seeds(self, seeds: Sequence[int], knowledge: AttackerKnowledge) -> dict[str, list[Attacker]]:
        """One attacker a seed by name, without names that have too little data with any seed.

        Raises:
            TooLittleDataError: where none is left.
        """
        return with_enough_data(self._makers, lambda name: [self.fitted(name, seed, knowledge) for seed in seeds])

    def embedding(self, seed: int, knowledge: AttackerKnowledge) -> dict[str, EmbeddingAttacker]:
        """Those that embed images, by name; one that embeds as another does only where it is alone.

        Raises:
            TooLittleDataError: where others have too little data and none of those that are left embeds.
        """
        fitted = {name: attacker for name, [attacker] in self.of_seeds([seed], knowledge).items()}
        found = {name: attacker for name, attacker in fitted.items() if isinstance(attacker, EmbeddingAttacker)}
        if self._lacking and not found:
            raise next(iter(self._lacking.values()))
        return {name: attacker for name, attacker in found.items() if attacker.offered} or found
