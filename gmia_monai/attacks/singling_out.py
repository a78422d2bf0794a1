"""Singling out: how well does a released image hide among the others from who holds its source?

Hidden rate and local cloaking as published with the avatar method (Guillaudeux et al., npj Digital Medicine 6:37,
2023), under each attacker that embeds images. The published figures count images, so that an image of the same patient
"hides" its source, and look at one side only: a system that puts each image at the far side of its own identity scores
a perfect hidden rate, while the farthest image gives the source away. So patients are counted, too, and the place of
the own image among all others is looked at from both sides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from gmia_monai.attacks.attackers.base import EmbeddingAttacker
from gmia_monai.attacks.base import AttackerKnowledge, Judged
from gmia_monai.attacks.pool import AttackerPool
from gmia_monai.errors import UsageError
from gmia_monai.metrics.intervals import patient_bootstrap, rate_interval
from gmia_monai.metrics.results import Result, RunContext

__all__ = ["Cloaking", "SinglingOutAttack", "cloaking"]

_CHUNK = 256


@dataclass(frozen=True)
class Cloaking:
    """Where the own released image lies among the others, seen from each source; arrays have one entry a source.

    Attributes:
        avatars_nearer: released images that are nearer to the source than its own one, ties one half.
        records_nearer: other real images that are nearer to it.
        n_others: released images beside the own one.
        nearest_is_patient: whether the nearest released image is of the same patient.
    """

    avatars_nearer: Float[np.ndarray, "n"]
    records_nearer: Float[np.ndarray, "n"]
    n_others: int
    nearest_is_patient: Float[np.ndarray, "n"]

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
    released: Float[np.ndarray, "n d"], real: Float[np.ndarray, "n d"], patient: Int[np.ndarray, "n"]
) -> Cloaking:
    """Compare each source with all released and all real images, by Euclidean distance of unit embeddings.

    Args:
        released: embedding of each source's released image.
        real: embedding of each source.
        patient: patient of each.
    """
    released, real = (e / np.maximum(np.linalg.norm(e, axis=1, keepdims=True), 1e-12) for e in (released, real))
    n = len(real)
    avatars, records, nearest = np.empty(n), np.empty(n), np.empty(n)
    for start in range(0, n, _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, n))
        to_released, to_real = real[rows] @ released.T, real[rows] @ real.T
        own = to_released[np.arange(len(rows)), rows][:, None]
        avatars[rows] = _nearer(to_released, own, rows)
        records[rows] = _nearer(to_real, own, rows)
        nearest[rows] = patient[np.argmax(to_released, axis=1)] == patient[rows]
    return Cloaking(avatars, records, n - 1, nearest)


def _nearer(similarity: np.ndarray, own: np.ndarray, rows: np.ndarray) -> np.ndarray:
    above, tied = similarity > own + 1e-9, np.abs(similarity - own) <= 1e-9
    above[np.arange(len(rows)), rows] = tied[np.arange(len(rows)), rows] = False
    return np.asarray(above.sum(axis=1) + 0.5 * tied.sum(axis=1))


class SinglingOutAttack:
    """Hidden rate and local cloaking under each attacker that embeds images.

    Args:
        attackers: those of them that embed images are used.
        seed: seed of the attackers.
        n_boot: bootstrap resamples.
    """

    name = "singling_out"

    def __init__(self, attackers: AttackerPool, seed: int = 0, n_boot: int = 500) -> None:
        self.attackers = attackers
        self.seed = seed
        self.n_boot = n_boot
        self._fitted: dict[str, EmbeddingAttacker] = {}
        self._knowledge: AttackerKnowledge | None = None

    def fit(self, knowledge: AttackerKnowledge) -> None:
        """Fits the attackers."""
        self._knowledge = knowledge
        self._fitted = self.attackers.embedding(self.seed, knowledge)

    def score(self, judged: Judged, context: RunContext) -> list[Result]:
        """Result lines for each attacker: ``hidden_rate`` (as published), ``hidden_rate_patient``,
        ``hidden_rate_two_sided``, ``local_cloaking_avatars`` and ``local_cloaking_records`` (medians, as published) and
        ``place_spread``, the mean distance of the place from one half: 0.25 at chance, 0.5 where each is given away.

        Raises:
            UsageError: ``GM-U311`` before :meth:`fit`.
        """
        if self._knowledge is None:
            raise UsageError("GM-U311", "the singling-out attack has not been fitted")
        self._knowledge.refuse_overlap(judged)
        kept = np.flatnonzero(judged.released)
        patient = judged.real.cohort.patient_index[kept]
        results = []
        for name, attacker in self._fitted.items():
            released, real = attacker.embeddings(judged)
            found = cloaking(released[kept], real[kept], patient)
            figures: dict[str, tuple[np.ndarray, Callable[[np.ndarray, np.ndarray], float]]] = {
                "hidden_rate": (found.hidden, _mean),
                "hidden_rate_patient": (1.0 - found.nearest_is_patient, _mean),
                "hidden_rate_two_sided": (found.hidden_two_sided, _mean),
                "local_cloaking_avatars": (found.avatars_nearer, _median),
                "local_cloaking_records": (found.records_nearer, _median),
                "place_spread": (np.abs(found.place - 0.5), _mean),
            }
            for figure, (values, statistic) in figures.items():
                interval = patient_bootstrap(
                    lambda w, v=values, s=statistic: s(v, w), patient, self.n_boot, context.seed
                )
                if figure.startswith("hidden_rate"):
                    interval = rate_interval(interval, len(np.unique(patient)))
                results.append(
                    context.result(
                        f"{figure}.T2.{name}.v1",
                        interval,
                        n_patients=len(np.unique(patient)),
                        n_images=len(kept),
                        attacker=name,
                        extra={"n_others": found.n_others},
                    )
                )
        return results


def _mean(values: np.ndarray, weights: np.ndarray) -> float:
    return float(np.average(values, weights=weights))


def _median(values: np.ndarray, weights: np.ndarray) -> float:
    """Median of each value repeated as often as its whole-number weight."""
    return float(np.median(np.repeat(values, weights.astype(int))))
