"""The attacker who holds the anonymizer itself: every user of a published system does.

It makes fresh releases of its own patients, with several seeds, where the system gives other ones each time, and learns
from them; and it anonymizes the real image that it holds, to compare like with like. It also holds the system's own
encoder, where there is one. Which comparison counts, and whether near or far, or all of them weighed, is chosen on V2
for each threat model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Bool, Float64

from gmia_monai.attacks.attackers.adaptive import AdaptiveAttacker, released_side
from gmia_monai.attacks.attackers.base import EmbeddingAttacker
from gmia_monai.attacks.attackers.fresh import SEED_STEP
from gmia_monai.attacks.attackers.frozen import FrozenAttacker
from gmia_monai.attacks.base import AttackerKnowledge, Judged
from gmia_monai.attacks.folds import CrossFitted
from gmia_monai.attacks.refit import RefitRecipe, Side
from gmia_monai.attacks.refit_store import RefitStore
from gmia_monai.attacks.weighing import LogOdds
from gmia_monai.data.pairs import Pairs
from gmia_monai.data.threats import THREATS, threat_pairs
from gmia_monai.errors import UsageError
from gmia_monai.metrics.verification import roc_auc
from gmia_monai.typing import PathLike

__all__ = ["OwnerAttacker"]


@dataclass(frozen=True, eq=False)
class _Chosen:
    """One comparison with its sign, or all of them weighed."""

    column: int = 0
    sign: float = 1.0
    weighed: CrossFitted[LogOdds] | None = None


class OwnerAttacker(AdaptiveAttacker):
    """``adaptive_cross`` on fresh releases of several seeds, the system's own encoder, and both on two releases.

    Attacks that only embed images have no place for fresh releases of the image held. There the refitted network alone
    is used, and only where the system gives another release each time: else it is that of ``adaptive_cross``.

    Args:
        weights: weights files to start from, one a seed.
        recipe: how it is refitted.
        n_releases: fresh releases of each image of A, beside the given one.
        max_patients: patients of A that it learns from; None: all.
        device: where it runs.
        store: refitted networks that are there already; None: none are.
    """

    def __init__(
        self,
        weights: Sequence[PathLike],
        recipe: RefitRecipe | None = None,
        n_releases: int = 2,
        max_patients: int | None = None,
        device: str = "cpu",
        store: RefitStore | None = None,
    ) -> None:
        super().__init__("owner", weights, "real", recipe, max_patients, device, store)
        self.n_releases = n_releases
        self._knowledge: AttackerKnowledge | None = None
        self._seed = 0
        self._encoders: list[EmbeddingAttacker] = [self]
        self._chosen: dict[str, _Chosen] = {}
        self._fresh: dict[str, list[np.ndarray]] = {}

    def fit(self, knowledge: AttackerKnowledge, seed: int) -> None:
        """Makes fresh releases, refits on them, and chooses on V2 for each threat model among the comparisons of the
        refitted network and of the system's encoder, each with its sign, and all of them weighed.

        Raises:
            UsageError: ``GM-U318`` where the attacker does not hold the anonymizer; else as
                :meth:`AdaptiveAttacker.fit`.
        """
        if knowledge.anonymize is None:
            raise UsageError("GM-U318", "the owner attacker needs the anonymizer of the release that is judged")
        self._knowledge, self._seed = knowledge, seed
        super().fit(knowledge, seed)
        self._fresh.clear()
        self._encoders = [self]
        if knowledge.frozen is not None:
            frozen = FrozenAttacker()
            frozen.fit(knowledge, seed)
            self._encoders.append(frozen)
        judged = knowledge.choice
        for threat in THREATS:
            pairs = threat_pairs(judged.real.cohort, threat, "matched", judged.released)
            enough = min(pairs.n_positives, pairs.n_negatives) >= 2
            self._chosen[threat] = _choose(self._scores(judged, pairs, threat), pairs) if enough else _Chosen()

    def _released_side(self, knowledge: AttackerKnowledge) -> Side:
        side = released_side(knowledge.own)
        sources = knowledge.own.real.pixels[side.exposure]
        fresh = [self._anonymize(sources, i) for i in range(self.n_releases)]
        # A system without chance gives the same release again, which teaches nothing.
        fresh = [pixels for pixels in fresh if not np.array_equal(pixels, side.pixels)]
        self.offered = bool(fresh)
        return Side(
            np.concatenate([side.pixels, *fresh]),
            np.tile(side.patient, 1 + len(fresh)),
            np.tile(side.exposure, 1 + len(fresh)),
            None if side.stratum is None else np.tile(side.stratum, 1 + len(fresh)),
        )

    def _anonymize(self, pixels: np.ndarray, number: int) -> np.ndarray:
        assert self._knowledge is not None and self._knowledge.anonymize is not None
        return self._knowledge.anonymize(pixels, (self._seed + 1) * SEED_STEP + number)

    def _scores(self, judged: Judged, pairs: Pairs, threat: str) -> Float64[np.ndarray, "n k"]:
        """For each encoder the comparison with the real image and with a fresh release of it; under T3 that of the two
        releases."""
        columns = []
        all_fresh = [None] * len(self._encoders) if threat == "T3" else self._of_fresh(judged)
        for encoder, fresh in zip(self._encoders, all_fresh, strict=True):
            released, real = encoder.embeddings(judged)
            others = [released] if fresh is None else [real, fresh]
            columns += [encoder.compare_positions(released, other, pairs) for other in others]
        return np.stack(columns, axis=1)

    def _of_fresh(self, judged: Judged) -> Sequence[np.ndarray | None]:
        """Embeddings of a fresh release of each real image, of each encoder."""
        key = judged.real.content_hash
        if key not in self._fresh:
            pixels = self._anonymize(judged.real.pixels, self.n_releases)
            embedders = [encoder.embed_released for encoder in self._encoders]
            self._fresh[key] = [np.asarray(embed(pixels)) for embed in embedders if embed is not None]
        return self._fresh[key]

    def score(self, judged: Judged, pairs: Pairs, threat: str) -> Float64[np.ndarray, "n"]:
        """What was chosen on V2: higher for "same person". On V2 itself weights are of other patients.

        Raises:
            UsageError: ``GM-U311`` before :meth:`fit`.
        """
        if self._knowledge is None:
            raise UsageError("GM-U311", "attacker owner has not been fitted")
        scores, chosen = self._scores(judged, pairs, threat), self._chosen[threat]
        if chosen.weighed is None:
            return chosen.sign * scores[:, chosen.column]
        on_choice = judged is self._knowledge.choice
        return chosen.weighed.left_out(scores, pairs.patient_first) if on_choice else chosen.weighed.all(scores)


def _choose(scores: Float64[np.ndarray, "n k"], pairs: Pairs) -> _Chosen:
    """The comparison with the highest AUC, near or far, or all together where they find more."""

    def learn(rows: Bool[np.ndarray, "n"]) -> LogOdds:
        same, patients = pairs.same[rows], len(np.unique(pairs.patient_first[rows & pairs.same]))
        return LogOdds(scores[rows], same, pairs.weight[rows], patients)

    auc = partial(roc_auc, same=pairs.same, weights=pairs.weight)
    alone = np.array([auc(column) for column in scores.T])
    best = int(np.abs(alone - 0.5).argmax())
    sign = 1.0 if alone[best] >= 0.5 else -1.0
    if scores.shape[1] > 1:
        weighed = CrossFitted(learn, pairs.same, pairs.patient_first, pairs.patient_second)
        if auc(weighed.left_out(scores, pairs.patient_first)) > max(alone[best], 1.0 - alone[best]):
            return _Chosen(weighed=weighed)
    return _Chosen(best, sign)
