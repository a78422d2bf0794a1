"""Retrieval: a released image looks for its patient in a gallery of real images, and the reverse.

Rank-1 (which is precision@1), rank-5 and mAP@R as in Packhäuser et al. (Scientific Reports 12:14851, 2022), with images
weighing alike as there, and with patients weighing alike (``_patient``). The source of the query is left out of the
gallery, so that another image of the person has to be found (threat model T1). What is found grows rarer with the
gallery: the curves over its size are expectations over all galleries of that size. Each attacker ranks with the sign
that finds more on V2: where identity is inverted, the farthest is the nearest. ``fusion`` ranks by the evidence of all.
The retrieval network of that paper is an attacker of this attack alone: ``retrieval``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial

import numpy as np
from jaxtyping import Float

from gmia_monai.attacks.attackers.base import EmbeddingAttacker
from gmia_monai.attacks.attackers.trained import TrainedAttacker
from gmia_monai.attacks.base import AttackerKnowledge, Judged, TooLittleDataError
from gmia_monai.attacks.fused_retrieval import FusedSearch
from gmia_monai.attacks.pool import AttackerPool
from gmia_monai.attacks.seeds import Statistics, checked_seeds, embedding_attackers, shared_statistics
from gmia_monai.errors import UsageError
from gmia_monai.metrics.intervals import patient_bootstrap_figures
from gmia_monai.metrics.limits import Interval
from gmia_monai.metrics.results import Result, RunContext
from gmia_monai.metrics.retrieval import Identification, identify
from gmia_monai.typing import PathLike
from gmia_monai.weights import sha256_of

__all__ = ["GALLERY_SIZES", "RetrievalAttack"]

GALLERY_SIZES = (10, 30, 100, 300, 1000, 3000, 10000)
_DIRECTIONS = ("released_in_real", "real_in_released")
_FIGURES = ("rank_1", "rank_5", "map_at_r")
_WEIGHINGS = {"": False, "_patient": True}
_FUSION = "fusion"
_NETWORK = "retrieval"
_DIGITS = 8


class RetrievalAttack:
    """Retrieval by each attacker that embeds images, and by all together where there are several.

    Args:
        attackers: those of them that embed images are used.
        seeds: seeds of the attackers; figures are means over them.
        n_boot: bootstrap resamples.
        network: weights files of the retrieval network, one a seed; none: it takes no part.
        device: where that network runs.

    Raises:
        UsageError: ``GM-U316`` without a seed.
    """

    name = "retrieval"

    def __init__(
        self,
        attackers: AttackerPool,
        seeds: Sequence[int] = (0, 1, 2),
        n_boot: int = 500,
        network: Sequence[PathLike] = (),
        device: str = "cpu",
    ) -> None:
        self.attackers = attackers
        self.network = tuple(network)
        self.device = device
        self.seeds = checked_seeds(seeds)
        self.n_boot = n_boot
        self._fitted: dict[str, list[EmbeddingAttacker]] = {}
        self._fused: list[FusedSearch] = []
        self._knowledge: AttackerKnowledge | None = None
        self._best_on_choice: dict[str, str] = {}
        self._sign: dict[tuple[str, str], float] = {}

    def own_facts(self, knowledge: AttackerKnowledge) -> str:
        """Digits of the network's weights: with others the figures are others, those of other attacks are not."""
        if not self.network:
            return ""
        return hashlib.sha256(" ".join(sha256_of(path) for path in self.network).encode()).hexdigest()[:_DIGITS]

    def fit(self, knowledge: AttackerKnowledge) -> None:
        """Fits the attackers; finds each one's sign and the one with the highest mAP@R on V2 for each direction, both
        by the mean over seeds.

        Raises:
            TooLittleDataError: ``GM-U327`` where no patient of V2 has two released images in one folder.
        """
        _refuse_single_images(knowledge.choice)
        self._knowledge = knowledge
        self._fitted = embedding_attackers(self.attackers, self.seeds, knowledge)
        if self.network:
            self._fitted[_NETWORK] = [self._searcher(seed, knowledge) for seed in self.seeds]
        self._fused.clear()
        if len(self._fitted) > 1:
            per_seed = zip(*self._fitted.values(), strict=True)
            self._fused = [FusedSearch(attackers, knowledge.choice) for attackers in per_seed]
        for direction in _DIRECTIONS:
            best = {}
            for name in self._names:
                of_sign = {
                    s: float(np.mean([t.map_at_r() for t in self._identify(name, knowledge.choice, direction, s)]))
                    for s in (1.0, -1.0)
                }
                sign = self._sign[name, direction] = -1.0 if of_sign[-1.0] > of_sign[1.0] else 1.0
                best[name] = of_sign[sign]
            self._best_on_choice[direction] = max(best, key=lambda name: best[name])

    def score(self, judged: Judged, context: RunContext) -> list[Result]:
        """Result lines: ``rank_1``, ``rank_5``, ``map_at_r`` and the same with ``_patient``, for each direction and
        attacker and for the worst one: ``rank_1_patient.released_in_real.worst.v1``.

        ``extra`` has the curve over the size of the gallery, ``<figure>_at_gallery``, that of a random order,
        ``<figure>_at_gallery_by_chance``, and the ``chance`` of a random order of the whole gallery.

        Raises:
            UsageError: ``GM-U311`` before :meth:`fit`.
            TooLittleDataError: ``GM-U327`` where no patient has two released images in one folder.
        """
        if self._knowledge is None:
            raise UsageError("GM-U311", "the retrieval attack has not been fitted")
        self._knowledge.refuse_overlap(judged)
        _refuse_single_images(judged)
        results = []
        for direction in _DIRECTIONS:
            worst: list[Result] = []
            for name in self._names:
                sign = self._sign[name, direction]
                tables = self._identify(name, judged, direction, sign)
                found = self._intervals(tables, context)
                results += self._lines(tables, found, direction, name, context, {"sign": sign})
                if name == self._best_on_choice[direction]:
                    extra = {"attacker": name, "sign": sign}
                    worst = self._lines(tables, found, direction, "worst", context, extra)
            results += worst
        return results

    def _searcher(self, seed: int, knowledge: AttackerKnowledge) -> EmbeddingAttacker:
        attacker = TrainedAttacker(_NETWORK, self.network, self.device)
        attacker.fit(knowledge, seed)
        return attacker

    @property
    def _names(self) -> list[str]:
        return [*self._fitted, *([_FUSION] if self._fused else [])]

    def _identify(self, name: str, judged: Judged, direction: str, sign: float) -> list[Identification]:
        """What each seed's attacker finds."""
        cohort = judged.real.cohort
        kept = np.flatnonzero(judged.released)  # a source that was not released stands in no gallery of released images
        folders = np.array([record.folder for record in cohort])
        tables = []
        if name == _FUSION:
            places = np.arange(len(cohort), dtype=np.float64)[kept, None]
            for fused in self._fused:
                scores = sign * fused.scores(judged, direction)
                compare = partial(_looked_up, scores)
                tables.append(identify(places, cohort.patient_index[kept], folders[kept], compare=compare))
            return tables
        for attacker in self._fitted[name]:
            released, real = attacker.embeddings(judged)
            queries, gallery = (released, real) if direction == "released_in_real" else (real, released)
            table = identify(
                gallery[kept],
                cohort.patient_index[kept],
                folders[kept],
                queries=queries[kept],
                compare=lambda a, b, by=attacker: sign * by.compare_all(a, b),
            )
            tables.append(table)
        return tables

    def _intervals(self, tables: Sequence[Identification], context: RunContext) -> dict[tuple[str, str], Interval]:
        """Means over seeds, by figure and weighing. All seeds have the same queries."""
        first = tables[0]
        alike = first.weights(per_patient=True)

        def statistics(per_query: Float[np.ndarray, "figures q"]) -> Statistics:
            return lambda w: [float(v) for u in (w, w * alike) for v in per_query @ u / u.sum()]

        per_seed = [np.stack([t.rank < 1.5, t.rank < 5.5, t.average_precision_at_r]) for t in tables]
        found = patient_bootstrap_figures(
            shared_statistics(per_seed, statistics), first.patient, self.n_boot, context.seed
        )
        return dict(zip([(f, w) for w in _WEIGHINGS for f in _FIGURES], found, strict=True))

    def _lines(
        self,
        tables: Sequence[Identification],
        found: dict[tuple[str, str], Interval],
        direction: str,
        attacker: str,
        context: RunContext,
        extra: dict[str, object],
    ) -> list[Result]:
        table = tables[0]
        n_patients = len(np.unique(table.patient))
        results = []
        for (figure, weighing), value in found.items():
            per_patient = _WEIGHINGS[weighing]
            if figure == "map_at_r":
                chance = table.map_at_r_by_chance(per_patient=per_patient)
            else:
                chance = table.rank_k_by_chance(_k(figure), per_patient=per_patient)
            more = {
                f"{figure}_at_gallery": _curve(tables, figure, per_patient),
                f"{figure}_at_gallery_by_chance": _curve_by_chance(table, figure, per_patient),
                "chance": round(chance, 6),
            }
            results.append(
                context.result(
                    f"{figure}{weighing}.{direction}.{attacker}.v1",
                    value,
                    n_patients=n_patients,
                    n_images=len(table.query),
                    attacker=attacker,
                    extra={
                        "gallery_sizes": [int(g) for g in np.unique(table.gallery)],
                        "n_seeds": len(self.seeds),
                        **more,
                        **extra,
                    },
                )
            )
        return results


def _refuse_single_images(judged: Judged) -> None:
    cohort = judged.real.cohort
    at = [(cohort[int(i)].patient_id, cohort[int(i)].folder) for i in np.flatnonzero(judged.released)]
    if len(set(at)) == len(at):
        raise TooLittleDataError("GM-U327", "no patient has two released images in one folder")


def _looked_up(
    scores: Float[np.ndarray, "n n"], queries: Float[np.ndarray, "q 1"], gallery: Float[np.ndarray, "g 1"]
) -> Float[np.ndarray, "q g"]:
    """Scores by the positions that stand in the place of embeddings."""
    return scores[np.ix_(queries[:, 0].astype(np.int64), gallery[:, 0].astype(np.int64))]


def _curve(tables: Sequence[Identification], figure: str, per_patient: bool) -> dict[str, float]:
    """A figure by the size of the gallery, as the mean over seeds."""

    def at(table: Identification, size: int) -> float:
        if figure == "map_at_r":
            return table.map_at_r_at_gallery(size, per_patient=per_patient)
        return table.rank_k_at_gallery(size, _k(figure), per_patient=per_patient)

    return {str(size): round(float(np.mean([at(table, size) for table in tables])), 6) for size in _sizes(tables[0])}


def _curve_by_chance(table: Identification, figure: str, per_patient: bool) -> dict[str, float]:
    """The same where galleries are in random order, which no seed decides."""

    def at(size: int) -> float:
        if figure == "map_at_r":
            return table.map_at_r_by_chance_at_gallery(size, per_patient=per_patient)
        return table.rank_k_by_chance_at_gallery(size, _k(figure), per_patient=per_patient)

    return {str(size): round(at(size), 6) for size in _sizes(table)}


def _k(figure: str) -> int:
    return int(figure.removeprefix("rank_"))


def _sizes(table: Identification) -> Sequence[int]:
    largest = int(table.gallery.max())
    return [size for size in GALLERY_SIZES if size < largest] + [largest]
