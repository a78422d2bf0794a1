"""Who scores a pair: the interface of attackers, and what those that embed images share.

A score is a number that is higher when the attacker thinks that two images show one person. Its sign is not trusted:
the verification attack tests both (a system may push an image to the far side of its own identity).
"""

from __future__ import annotations

import logging
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float64
from torch import Tensor, nn

from gmia_monai.attacks.base import AttackerKnowledge, Judged, Pixels, TooLittleDataError
from gmia_monai.data.pairs import Pairs
from gmia_monai.errors import UsageError

__all__ = [
    "Attacker",
    "CombiningAttacker",
    "CosineScore",
    "EmbeddingAttacker",
    "cosine_score",
    "fit_attacker",
    "with_enough_data",
]

_CHUNK = 1 << 15
_ROWS = 16
_log = logging.getLogger(__name__)
_Fitted = TypeVar("_Fitted")


@runtime_checkable
class Attacker(Protocol):
    """Learns what it may, then scores pairs."""

    name: str

    def fit(self, knowledge: AttackerKnowledge, seed: int) -> None:
        """Learns; the same knowledge and seed give the same attacker."""

    def score(self, judged: Judged, pairs: Pairs, threat: str) -> Float64[np.ndarray, "n"]:
        """One score a pair, higher for "same person"; positions of ``pairs`` are those of ``judged.real``."""


def fit_attacker(attacker: Attacker, knowledge: AttackerKnowledge, seed: int) -> None:
    """Fits, and says in the log which attacker has too little data.

    Raises:
        UsageError: as the attacker does.
    """
    try:
        attacker.fit(knowledge, seed)
    except TooLittleDataError as error:
        _log.warning("attacker %s, seed %d, is left out: %s", attacker.name, seed, error.what)
        raise


def with_enough_data(names: Iterable[str], fitted: Callable[[str], _Fitted]) -> dict[str, _Fitted]:
    """What ``fitted`` gives for each name, without those for whom there is too little data.

    Raises:
        TooLittleDataError: that of the last one, where none is left.
    """
    found: dict[str, _Fitted] = {}
    lacking: TooLittleDataError | None = None
    for name in names:
        try:
            found[name] = fitted(name)
        except TooLittleDataError as error:
            lacking = error
    if lacking is not None and not found:
        raise lacking
    return found


class CombiningAttacker:
    """An attacker who builds on others.

    Args:
        makers: name to a function that makes another attacker anew.

    Attributes:
        fitted: gives another attacker by name, seed and knowledge, fitted; a pool sets it, so that attackers are fitted
            once. None: they are made and fitted anew.
    """

    def __init__(self, makers: Mapping[str, Callable[[], Attacker]]) -> None:
        self._makers = dict(makers)
        self.fitted: Callable[[str, int, AttackerKnowledge], Attacker] | None = None

    def others(self, knowledge: AttackerKnowledge, seed: int) -> dict[str, Attacker]:
        """The others by name, fitted, without those that have too little data.

        Raises:
            TooLittleDataError: where none is left.
        """

        def fitted(name: str) -> Attacker:
            if self.fitted is not None:
                return self.fitted(name, seed, knowledge)
            attacker = self._makers[name]()
            fit_attacker(attacker, knowledge, seed)
            return attacker

        return with_enough_data(self._makers, fitted)


class CosineScore:
    """Cosine of embeddings, or its negative.

    Args:
        sign: 1, or -1 where the farthest image is the right one.
    """

    def __init__(self, sign: float = 1.0) -> None:
        self.sign = sign

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Score of each pair of embeddings, ``[..., d]`` each."""
        return self.sign * F.cosine_similarity(a, b, dim=-1)

    def all(self, a: Tensor, b: Tensor) -> Tensor:
        """Score of each of ``[n, d]`` with each of ``[m, d]``, as one product of matrices, ``[n, m]``."""
        return self.sign * F.normalize(a, dim=-1, eps=1e-8) @ F.normalize(b, dim=-1, eps=1e-8).T


cosine_score = CosineScore()


class EmbeddingAttacker(ABC):
    """An attacker that embeds each image once and compares embeddings.

    Args:
        name: as the protocol names it.
        compare: score of each pair of embeddings.

    Attributes:
        embed_released: embeds released images; set by ``fit``.
        embed_real: embeds real images.
        offered: whether attacks that only embed images have something from it; False where another attacker embeds
            alike.
    """

    def __init__(self, name: str, compare: Callable[[Tensor, Tensor], Tensor] = cosine_score) -> None:
        self.name = name
        self.compare = compare
        self.embed_released: Callable[[Pixels], np.ndarray] | None = None
        self.embed_real: Callable[[Pixels], np.ndarray] | None = None
        self.offered = True
        self._kept: dict[tuple[str, str], np.ndarray] = {}
        self._scored: tuple[weakref.ref[Pairs], tuple[str, ...], np.ndarray] | None = None

    @abstractmethod
    def fit(self, knowledge: AttackerKnowledge, seed: int) -> None:
        """Learns, and sets the embedders by :meth:`use`."""

    def use(self, released: Callable[[Pixels], np.ndarray], real: Callable[[Pixels], np.ndarray] | None = None) -> None:
        """Sets the embedders; what was embedded before is forgotten."""
        self.embed_released, self.embed_real = released, real or released
        self._kept.clear()
        self._scored = None

    def embeddings(self, judged: Judged) -> tuple[np.ndarray, np.ndarray]:
        """Embeddings of the released image of each real one (zeros' where there is none), and of the real images."""
        if self.embed_released is None or self.embed_real is None:
            raise UsageError("GM-U311", f"attacker {self.name} has not been fitted")
        kept: list[np.ndarray] = []
        for side, embed, pixels, key in (
            ("released", self.embed_released, judged.released_pixels, judged.release.content_hash),
            ("real", self.embed_real, lambda: judged.real.pixels, judged.real.content_hash),
        ):
            if (side, key) not in self._kept:
                self._kept[side, key] = embed(pixels())
            kept.append(self._kept[side, key])
        return kept[0], kept[1]

    def score(self, judged: Judged, pairs: Pairs, threat: str) -> Float64[np.ndarray, "n"]:
        """One score a pair; of the last pairs again without computing, since attackers who combine others ask, too."""
        key = (threat, judged.release.content_hash, judged.real.content_hash)
        if self._scored is None or self._scored[0]() is not pairs or self._scored[1] != key:
            released, real = self.embeddings(judged)
            found = self.compare_positions(released, released if threat == "T3" else real, pairs)
            self._scored = (weakref.ref(pairs), key, found)
        return self._scored[2].copy()

    @torch.no_grad()
    def compare_positions(self, left: np.ndarray, right: np.ndarray, pairs: Pairs) -> Float64[np.ndarray, "n"]:
        """Score of each pair from embeddings by position."""
        device = _device_of(self.compare)
        a, b = (torch.from_numpy(side).to(device) for side in (left, right))
        first, second = (torch.from_numpy(p).to(device).split(_CHUNK) for p in (pairs.first, pairs.second))
        scores = [self.compare(a[i], b[j]).cpu() for i, j in zip(first, second, strict=True)]
        return torch.cat(scores).double().numpy() if scores else np.zeros(0)

    @torch.no_grad()
    def compare_rows(self, left: np.ndarray, right: np.ndarray) -> Float64[np.ndarray, "n"]:
        """Score of each of ``left`` with the one of ``right`` in its place."""
        device = _device_of(self.compare)
        a, b = (torch.from_numpy(side).to(device) for side in (left, right))
        return self.compare(a, b).cpu().double().numpy()

    @torch.no_grad()
    def compare_all(self, left: np.ndarray, right: np.ndarray) -> Float64[np.ndarray, "n m"]:
        """Score of each of ``left`` with each of ``right``."""
        device = _device_of(self.compare)
        a, b = (torch.from_numpy(side).float().to(device) for side in (left, right))
        if isinstance(self.compare, CosineScore):
            return self.compare.all(a, b).double().numpy()
        return torch.cat([self.compare(rows[:, None], b[None]).cpu() for rows in a.split(_ROWS)]).double().numpy()


def _device_of(compare: Callable[[Tensor, Tensor], Tensor]) -> torch.device:
    """Where a comparison runs: a network's method, where its weights are; anything else on the CPU."""
    network = getattr(compare, "__self__", compare)
    parameters = network.parameters() if isinstance(network, nn.Module) else iter(())
    return next((parameter.device for parameter in parameters), torch.device("cpu"))
