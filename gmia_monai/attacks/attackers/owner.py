"""The attacker who holds the anonymizer itself: every user of a published system does.

It makes fresh releases of its own patients, with several seeds, and learns from them; and it anonymizes the real image
that it holds, to compare like with like. Both scores are weighed on V2.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from gmia_monai.attacks.attackers.adaptive import AdaptiveAttacker, released_side
from gmia_monai.attacks.base import AttackerKnowledge, Judged
from gmia_monai.attacks.refit import RefitRecipe, Side
from gmia_monai.attacks.refit_store import RefitStore
from gmia_monai.data.pairs import Pairs
from gmia_monai.data.threats import threat_pairs
from gmia_monai.errors import UsageError
from gmia_monai.typing import PathLike

__all__ = ["OwnerAttacker"]

_SEED_STEP = 7919  # keeps the owner's seeds apart from those of the releases that are judged


class OwnerAttacker(AdaptiveAttacker):
    """``adaptive_cross`` on fresh releases of several seeds, and the comparison of two releases.

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
        self._weigh: dict[str, Pipeline] = {}
        self._fresh: dict[str, np.ndarray] = {}

    def fit(self, knowledge: AttackerKnowledge, seed: int) -> None:
        """Makes fresh releases, refits on them, and weighs the two scores on V2.

        Raises:
            UsageError: ``GM-U318`` where the attacker does not hold the anonymizer; else as
                :meth:`AdaptiveAttacker.fit`.
        """
        if knowledge.anonymize is None:
            raise UsageError("GM-U318", "the owner attacker needs the anonymizer of the release that is judged")
        self._knowledge, self._seed = knowledge, seed
        super().fit(knowledge, seed)
        judged = knowledge.choice
        for threat in ("T1", "T2"):
            pairs = threat_pairs(judged.real.cohort, threat, "matched", judged.released)
            model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
            facts = self._both(judged, pairs)
            model.fit(facts, pairs.same, logisticregression__sample_weight=pairs.weight * 1e4)
            self._weigh[threat] = model

    def _released_side(self, knowledge: AttackerKnowledge) -> Side:
        side = released_side(knowledge.own)
        sources = knowledge.own.real.pixels[side.exposure]
        fresh = [self._anonymize(sources, i) for i in range(self.n_releases)]
        # A system without chance gives the same release again, which teaches nothing.
        fresh = [pixels for pixels in fresh if not np.array_equal(pixels, side.pixels)]
        return Side(
            np.concatenate([side.pixels, *fresh]),
            np.tile(side.patient, 1 + len(fresh)),
            np.tile(side.exposure, 1 + len(fresh)),
            None if side.stratum is None else np.tile(side.stratum, 1 + len(fresh)),
        )

    def _anonymize(self, pixels: np.ndarray, number: int) -> np.ndarray:
        assert self._knowledge is not None and self._knowledge.anonymize is not None
        return self._knowledge.anonymize(pixels, (self._seed + 1) * _SEED_STEP + number)

    def _both(self, judged: Judged, pairs: Pairs) -> Float64[np.ndarray, "n 2"]:
        cross = super().score(judged, pairs, "T1")
        key = judged.real.content_hash
        if key not in self._fresh:
            pixels = self._anonymize(judged.real.pixels, self.n_releases)
            self._fresh[key] = np.asarray(self.embed_released(pixels)) if self.embed_released else pixels
        released, _ = self.embeddings(judged)
        return np.stack([cross, self.compare_positions(released, self._fresh[key], pairs)], axis=1)

    def score(self, judged: Judged, pairs: Pairs, threat: str) -> Float64[np.ndarray, "n"]:
        """Log odds of "same person" from both comparisons; under T3 the comparison of the two releases."""
        if threat == "T3":
            return super().score(judged, pairs, threat)
        return self._weigh[threat].decision_function(self._both(judged, pairs)).astype(np.float64)
