"""Retrieval: a released image looks for its patient in a gallery of real images, and the reverse.

Rank-1 (which is precision@1), rank-5 and mAP@R as in Packhäuser et al. (Scientific Reports 12:14851, 2022). The source
of the query is left out of the gallery, so that another image of the person has to be found (threat model T1). What is
found grows rarer with the gallery: the curve over its size is the expectation over all galleries of that size. Each
attacker ranks with the sign that finds more on V2: where identity is inverted, the farthest is the nearest.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gmia_monai.attacks.attackers.base import EmbeddingAttacker, cosine_score
from gmia_monai.attacks.base import AttackerKnowledge, Judged
from gmia_monai.attacks.pool import AttackerPool
from gmia_monai.errors import UsageError
from gmia_monai.metrics.intervals import patient_bootstrap, rate_interval
from gmia_monai.metrics.results import Result, RunContext
from gmia_monai.metrics.retrieval import Identification, identify

__all__ = ["GALLERY_SIZES", "RetrievalAttack"]

GALLERY_SIZES = (10, 30, 100, 300, 1000, 3000, 10000)
_DIRECTIONS = ("released_in_real", "real_in_released")


class RetrievalAttack:
    """Retrieval by each attacker that embeds images.

    Args:
        attackers: those of them that embed images are used.
        seed: seed of the attackers.
        n_boot: bootstrap resamples.

    Attributes:
        tables: after :meth:`score`, (attacker, direction) to what each query found, for curves.
    """

    name = "retrieval"

    def __init__(self, attackers: AttackerPool, seed: int = 0, n_boot: int = 500) -> None:
        self.attackers = attackers
        self.seed = seed
        self.n_boot = n_boot
        self._fitted: dict[str, EmbeddingAttacker] = {}
        self._knowledge: AttackerKnowledge | None = None
        self._best_on_choice: dict[str, str] = {}
        self._sign: dict[tuple[str, str], float] = {}
        self.tables: dict[tuple[str, str], Identification] = {}

    def fit(self, knowledge: AttackerKnowledge) -> None:
        """Fits the attackers; finds each one's sign and the one with the highest mAP@R on V2 for each direction."""
        self._knowledge = knowledge
        self._fitted = self.attackers.embedding(self.seed, knowledge)
        for direction in _DIRECTIONS:
            best = {}
            for name, attacker in self._fitted.items():
                of_sign = {s: self._identify(attacker, knowledge.choice, direction, s).map_at_r() for s in (1.0, -1.0)}
                sign = self._sign[name, direction] = -1.0 if of_sign[-1.0] > of_sign[1.0] else 1.0
                best[name] = of_sign[sign]
            self._best_on_choice[direction] = max(best, key=lambda name: best[name])

    def score(self, judged: Judged, context: RunContext) -> list[Result]:
        """Result lines: ``rank_1``, ``rank_5``, ``map_at_r`` for each direction and attacker, and for the worst one.

        Raises:
            UsageError: ``GM-U311`` before :meth:`fit`, ``GM-U327`` where no patient has two images in one folder.
        """
        if self._knowledge is None:
            raise UsageError("GM-U311", "the retrieval attack has not been fitted")
        self._knowledge.refuse_overlap(judged)
        results = []
        for direction in _DIRECTIONS:
            for name, attacker in self._fitted.items():
                sign = self._sign[name, direction]
                table = self._identify(attacker, judged, direction, sign)
                if len(table.query) == 0:
                    raise UsageError("GM-U327", "no patient has two images in one folder")
                self.tables[name, direction] = table
                results += self._lines(table, direction, name, context, {"sign": sign})
            worst = self._best_on_choice[direction]
            results += self._lines(
                self.tables[worst, direction],
                direction,
                "worst",
                context,
                {"attacker": worst, "sign": self._sign[worst, direction]},
            )
        return results

    def _identify(self, attacker: EmbeddingAttacker, judged: Judged, direction: str, sign: float) -> Identification:
        released, real = attacker.embeddings(judged)
        queries, gallery = (released, real) if direction == "released_in_real" else (real, released)
        cohort = judged.real.cohort
        kept = np.flatnonzero(judged.released)  # a source that was not released stands in no gallery of released images
        folders = np.array([record.folder for record in cohort])
        cosine = attacker.compare is cosine_score
        return identify(
            gallery[kept],
            cohort.patient_index[kept],
            folders[kept],
            queries=sign * queries[kept] if cosine else queries[kept],
            compare=None if cosine else lambda a, b: sign * attacker.compare_all(a, b),
        )

    def _lines(
        self, table: Identification, direction: str, attacker: str, context: RunContext, extra: dict[str, object]
    ) -> list[Result]:
        chance = float(np.mean(table.n_matches / table.gallery))
        curve = {str(size): round(table.rank_k_at_gallery(size), 6) for size in _sizes(table)}
        values: dict[str, tuple[np.ndarray, dict[str, object]]] = {
            "rank_1": (table.rank < 1.5, {"rank_1_at_gallery": curve, "chance": round(chance, 6)}),
            "rank_5": (table.rank < 5.5, {}),
            "map_at_r": (table.average_precision_at_r, {}),
        }
        results = []
        n_patients = len(np.unique(table.patient))
        for figure, (per_query, more) in values.items():
            value = patient_bootstrap(
                lambda w, v=per_query: float(np.average(v.astype(np.float64), weights=w)),
                table.patient,
                self.n_boot,
                context.seed,
            )
            results.append(
                context.result(
                    f"{figure}.{direction}.{attacker}.v1",
                    rate_interval(value, n_patients) if figure.startswith("rank") else value,
                    n_patients=n_patients,
                    n_images=len(table.query),
                    attacker=attacker,
                    extra={"gallery_sizes": [int(g) for g in np.unique(table.gallery)], **more, **extra},
                )
            )
        return results


def _sizes(table: Identification) -> Sequence[int]:
    largest = int(table.gallery.max())
    return [size for size in GALLERY_SIZES if size < largest] + [largest]
