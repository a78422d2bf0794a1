"""Singling out: how well does a released image hide among the others from who holds its source?

Hidden rate and local cloaking come from the avatar method (Guillaudeux et al., npj Digital Medicine 6:37, 2023); here
they are asked of each attacker that embeds images, by its own comparison. GMIA's figures of them count images, so that
a patient of many images counts often and an image of the same patient "hides" its source, and look at one side only: a
system that puts each image at the far side of its own identity scores a perfect hidden rate, while the farthest image
gives the source away. So patients are counted, too, and the place of the own image among all others is looked at from
both sides. GMIA's own figures, by distances of embeddings that are not normalised, stand beside under the name
``paper``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial.distance import cdist

from gmia_monai.attacks.attackers.base import EmbeddingAttacker
from gmia_monai.attacks.base import AttackerKnowledge, Judged
from gmia_monai.attacks.pool import AttackerPool
from gmia_monai.attacks.seeds import checked_seeds
from gmia_monai.errors import UsageError
from gmia_monai.metrics.intervals import patient_bootstrap_figures
from gmia_monai.metrics.results import Result, RunContext

__all__ = ["Cloaking", "SinglingOutAttack", "cloaking", "euclidean_score", "weighted_median"]

_CHUNK = 256
Compare = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Maps embeddings ``[n, d]`` and ``[m, d]`` to nearness ``[n, m]``."""


@dataclass(frozen=True)
class Cloaking:
    """Where the own released image lies among the others, seen from each source; arrays have one entry a source.

    Attributes:
        avatars_nearer: released images that are nearer to the source than its own one, ties one half.
        records_nearer: other real images that are nearer to it.
        n_others: released images beside the own one.
        nearest_is_person: whether the nearest released image is of the same patient.
    """

    avatars_nearer: Float[np.ndarray, "n"]
    records_nearer: Float[np.ndarray, "n"]
    n_others: int
    nearest_is_person: Float[np.ndarray, "n"]

    @property
    def hidden(self) -> Float[np.ndarray, "n"]:
        """1 where another released image is at least as near."""
        return (self.avatars_nearer >= 0.5).astype(np.float64)

    @property
    def place(self) -> Float[np.ndarray, "n"]:
        """Share of the other released images that are nearer; 0 and 1 give the source away, 0.5 hides it best."""
        return self.avatars_nearer / max(self.n_others, 1)

    @property
    def hidden_two_sided(self) -> Float[np.ndarray, "n"]:
        """1 where the own released image is neither the nearest nor the farthest."""
        return ((self.avatars_nearer >= 0.5) & (self.avatars_nearer <= self.n_others - 0.5)).astype(np.float64)


def cloaking(
    released: Float[np.ndarray, "n d"],
    real: Float[np.ndarray, "n d"],
    patient: Int[np.ndarray, "n"],
    compare: Compare | None = None,
) -> Cloaking:
    """Compare each source with all released and all real images.

    Args:
        released: embedding of each source's released image.
        real: embedding of each source.
        patient: patient of each.
        compare: how near each of the first is to each of the second, higher is nearer; None: the cosine, which ranks
            as the Euclidean distance of unit embeddings does.
    """
    if compare is None:
        released, real = (e / np.maximum(np.linalg.norm(e, axis=1, keepdims=True), 1e-12) for e in (released, real))
        compare = lambda a, b: a @ b.T  # noqa: E731
    n = len(real)
    avatars, records, nearest = np.empty(n), np.empty(n), np.empty(n)
    for start in range(0, n, _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, n))
        to_released, to_real = compare(real[rows], released), compare(real[rows], real)
        own = to_released[np.arange(len(rows)), rows][:, None]
        avatars[rows] = _nearer(to_released, own, rows)
        records[rows] = _nearer(to_real, own, rows)
        nearest[rows] = patient[np.argmax(to_released, axis=1)] == patient[rows]
    return Cloaking(avatars, records, n - 1, nearest)


def _nearer(nearness: np.ndarray, own: np.ndarray, rows: np.ndarray) -> np.ndarray:
    above, tied = nearness > own + 1e-9, np.abs(nearness - own) <= 1e-9
    above[np.arange(len(rows)), rows] = tied[np.arange(len(rows)), rows] = False
    return np.asarray(above.sum(axis=1) + 0.5 * tied.sum(axis=1))


def euclidean_score(left: Float[np.ndarray, "n d"], right: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "n m"]:
    """Negative Euclidean distance of each with each, of embeddings as they are."""
    return -cdist(left.astype(np.float64), right.astype(np.float64))


def weighted_median(values: Float[np.ndarray, "n"], weights: Float[np.ndarray, "n"]) -> float:
    """The value with half of the weight on either side; the middle of two where the halves meet between them.

    Whole-number weights give the median of values repeated as often.
    """
    order = np.argsort(values, kind="stable")
    below = np.cumsum(weights[order])
    half = below[-1] / 2
    close = 1e-9 * below[-1]
    first, last = np.searchsorted(below, [half - close, half + close])
    return float(values[order][[first, min(last, len(values) - 1)]].mean())


class _Figure(NamedTuple):
    """A statistic of values, one an image, and the bounds of both: infinite ones for limits from percentiles."""

    name: str
    values: Float[np.ndarray, "n"]
    statistic: Callable[[np.ndarray, np.ndarray], float]
    bounds: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True, eq=False)
class _Figures:
    """All figures of one attacker and seed; a call gives them for weights of the images."""

    figures: tuple[_Figure, ...]

    def __call__(self, weights: Float[np.ndarray, "n"]) -> list[float]:
        return [f.statistic(f.values, weights) for f in self.figures]


class SinglingOutAttack:
    """Hidden rate and local cloaking under each attacker that embeds images.

    Args:
        attackers: those of them that embed images are used.
        seeds: seeds of the attackers; figures are means over them.
        n_boot: bootstrap resamples.

    Raises:
        UsageError: ``GM-U316`` without a seed.
    """

    name = "singling_out"

    def __init__(self, attackers: AttackerPool, seeds: Sequence[int] = (0, 1, 2), n_boot: int = 500) -> None:
        self.attackers = attackers
        self.seeds = checked_seeds(seeds)
        self.n_boot = n_boot
        self._fitted: list[dict[str, EmbeddingAttacker]] = []
        self._knowledge: AttackerKnowledge | None = None

    def fit(self, knowledge: AttackerKnowledge) -> None:
        """Fits the attackers of all seeds."""
        self._knowledge = knowledge
        self._fitted = [self.attackers.embedding(seed, knowledge) for seed in self.seeds]

    def score(self, judged: Judged, context: RunContext) -> list[Result]:
        """Result lines ``<figure>.T2.<attacker>.v1``, and ``paper_<figure>.T2.frozen.v1`` where there is that attacker.

        ``hidden_rate`` counts images for which another released image is at least as near as their own;
        ``local_cloaking_avatars`` and ``local_cloaking_records`` are medians over images of how many released and how
        many other real ones are nearer. The same three with ``_patient`` behind them weigh patients alike instead of
        images. ``hidden_rate_person``, patients alike, counts images whose nearest released one shows somebody else:
        one of the same patient hides nobody. ``hidden_rate_two_sided`` counts images whose own released one is neither
        nearest nor farthest. ``place_spread`` is the mean distance of the place from one half: 0.25 at chance, 0.5
        where each is given away.

        The three of the paper count images, under the optimiser's own encoder by the Euclidean distance of embeddings
        that are not normalised; the source itself is not counted among the nearer records.

        Raises:
            UsageError: ``GM-U311`` before :meth:`fit`.
        """
        if self._knowledge is None:
            raise UsageError("GM-U311", "the singling-out attack has not been fitted")
        self._knowledge.refuse_overlap(judged)
        kept = np.flatnonzero(judged.released)
        patient = judged.real.cohort.patient_index[kept]
        results = []
        for name in self._fitted[0]:
            results += self._lines(self._of_seeds(name, judged, kept, patient), patient, "", name, context)
        if "frozen" in self._fitted[0]:
            released, real = (e[kept] for e in self._fitted[0]["frozen"].embeddings(judged))
            paper = _published(cloaking(released, real, patient, euclidean_score))
            lengths = np.quantile(np.linalg.norm(real, axis=1), [0.0, 0.5, 1.0])
            extra = {"protocol": "paper", "embedding_lengths_0_50_100": [round(float(q), 6) for q in lengths]}
            results += self._lines([_Figures(paper)], patient, "paper_", "frozen", context, extra)
        return results

    def _of_seeds(self, name: str, judged: Judged, kept: np.ndarray, patient: np.ndarray) -> list[_Figures]:
        """Figures of the attacker of each seed; seeds that see the same share one object, which is computed once."""
        seen: list[tuple[np.ndarray, np.ndarray]] = []
        found: list[_Figures] = []
        for attackers in self._fitted:
            attacker = attackers[name]
            released, real = (e[kept] for e in attacker.embeddings(judged))
            known = [i for i, (a, b) in enumerate(seen) if np.array_equal(a, released) and np.array_equal(b, real)]
            seen.append((released, real))
            if known:
                found.append(found[known[0]])
                continue
            found.append(_figures(cloaking(released, real, patient, attacker.compare_all), patient))
        return found

    def _lines(
        self,
        per_seed: Sequence[_Figures],
        patient: np.ndarray,
        prefix: str,
        attacker: str,
        context: RunContext,
        extra: dict[str, object] | None = None,
    ) -> list[Result]:
        bounds = [figure.bounds for figure in per_seed[0].figures]
        intervals = patient_bootstrap_figures(per_seed, patient, self.n_boot, context.seed, bounds=bounds)
        n_patients = len(np.unique(patient))
        lines = []
        for figure, interval in zip(per_seed[0].figures, intervals, strict=True):
            lines.append(
                context.result(
                    f"{prefix}{figure.name}.T2.{attacker}.v1",
                    interval,
                    n_patients=n_patients,
                    n_images=len(patient),
                    attacker=attacker,
                    extra={
                        "n_others": len(patient) - 1,
                        "attacker_seeds": list(self.seeds[: len(per_seed)]),
                        "unit": "patient" if figure.name.endswith(("_patient", "_person")) else "image",
                        **(extra or {}),
                    },
                )
            )
        return lines


def _published(found: Cloaking) -> tuple[_Figure, ...]:
    counts = (0.0, math.inf)  # a median of counts has no slope at its bound
    return (
        _Figure("hidden_rate", found.hidden, _mean),
        _Figure("local_cloaking_avatars", found.avatars_nearer, weighted_median, counts),
        _Figure("local_cloaking_records", found.records_nearer, weighted_median, counts),
    )


def _figures(found: Cloaking, patient: np.ndarray) -> _Figures:
    _, of, images = np.unique(patient, return_inverse=True, return_counts=True)
    share = 1.0 / images[of]

    def patients_alike(figure: _Figure) -> _Figure:
        return figure._replace(statistic=lambda values, weights: figure.statistic(values, weights * share))

    published = _published(found)
    person = _Figure("hidden_rate_person", 1.0 - found.nearest_is_person, _mean)
    return _Figures(
        (
            *published,
            *(patients_alike(f)._replace(name=f"{f.name}_patient") for f in published),
            patients_alike(person),
            _Figure("hidden_rate_two_sided", found.hidden_two_sided, _mean),
            _Figure("place_spread", np.abs(found.place - 0.5), _mean),
        )
    )


def _mean(values: np.ndarray, weights: np.ndarray) -> float:
    return float(np.average(values, weights=weights))
