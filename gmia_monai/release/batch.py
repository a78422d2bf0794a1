"""The attack on a whole release, before it is declared complete.

What the gate looks at is one image after another. Whoever gets the release can learn from part of it how to find the
rest, where they hold real images of some patients: so the adaptive attack of the suite is made here, by cross-fitting
over patients. In every fold attackers are refitted on the releases of other patients, chosen on those of others again,
and asked which released and which real image of another visit are of one person (T1, matched negatives).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from gmia_monai.attacks.attackers.adaptive import AdaptiveAttacker
from gmia_monai.attacks.attackers.base import Attacker
from gmia_monai.attacks.attackers.trained import TrainedAttacker
from gmia_monai.attacks.base import AttackerKnowledge, Judged, TooLittleDataError
from gmia_monai.attacks.refit import RefitRecipe
from gmia_monai.data.cohort import Cohort
from gmia_monai.data.pairs import Pairs
from gmia_monai.data.release import RealImages, Release
from gmia_monai.data.threats import threat_pairs
from gmia_monai.metrics.intervals import pair_bootstrap
from gmia_monai.metrics.verification import SortedScores
from gmia_monai.release.parts import ReleasedImage
from gmia_monai.release.records import record_of

__all__ = ["BatchAttack"]

_IMAGES_EACH = 4  # of a patient, as in the protocol's core list
_MAX_PATIENTS = 5000
_FEWEST_PAIRS = 2


@dataclass(frozen=True)
class BatchAttack:
    """The attack, with a limit.

    Attributes:
        weights: of the attacker that was trained on real images, from which refits start.
        max_auc: largest upper 95 % limit that passes.
        min_patients: with fewer patients with two released images or more it does not tell.
        folds: of patients.
        steps: updates of a refit.
        n_boot: bootstrap resamples of patients.
        device: where networks run.
    """

    weights: Path
    max_auc: float = 0.6
    min_patients: int = 100
    folds: int = 5
    steps: int = 100
    n_boot: int = 300
    device: str = "cpu"

    def __call__(
        self, images: Sequence[ReleasedImage], watch: Callable[[int, int], None] = lambda done, total: None
    ) -> dict[str, Any]:
        """What the ledger takes: ``told``, ``passed``, ``patients``, ``images``, and where it told something ``auc``
        with its interval ``low``, ``high``, and how often each attacker was the one that was chosen.

        Args:
            images: of the release.
            watch: is told of folds.
        """
        folds = self._folds(images)
        patients = len({image.patient for fold in folds for image in fold})
        found: dict[str, Any] = {"patients": patients, "images": sum(map(len, folds)), "folds": self.folds}
        found |= {"steps": self.steps, "max_auc": self.max_auc}
        silent = found | {"told": False, "passed": False}
        if patients < self.min_patients:
            return silent
        parts = [_judged(fold) for fold in folds]
        scored, chosen = [], []
        for i, judged in enumerate(parts):
            choice = parts[(i + 1) % self.folds]
            own = _judged(
                [image for j, fold in enumerate(folds) if j not in (i, (i + 1) % self.folds) for image in fold]
            )
            pairs = _pairs(judged)
            best = self._best(AttackerKnowledge(own.real, own, choice, None), i)
            if best is None or pairs is None:
                return silent
            name, sign, attacker = best
            scored.append((pairs, sign * attacker.score(judged, pairs, "T1")))
            chosen.append(name)
            watch(i + 1, self.folds)
        interval = _pooled(scored, self.n_boot)
        values = dict(zip(("auc", "low", "high"), (round(float(x), 6) for x in interval), strict=True))
        if not np.isfinite(list(values.values())).all():
            return silent
        counts = {name: chosen.count(name) for name in sorted(set(chosen))}
        return found | values | {"told": True, "passed": bool(values["high"] <= self.max_auc), "attackers": counts}

    def _folds(self, images: Sequence[ReleasedImage]) -> list[list[ReleasedImage]]:
        """Patients with two images or more, at most four of each, by hash."""
        of_patient: dict[str, list[ReleasedImage]] = {}
        for image in sorted(images, key=lambda image: image.handle):
            of_patient.setdefault(image.patient, []).append(image)
        names = sorted((p for p, held in of_patient.items() if len(held) > 1), key=_hash)[:_MAX_PATIENTS]
        folds: list[list[ReleasedImage]] = [[] for _ in range(self.folds)]
        for number, name in enumerate(names):
            folds[number % self.folds] += of_patient[name][:_IMAGES_EACH]
        return folds

    def _best(self, knowledge: AttackerKnowledge, seed: int) -> tuple[str, float, Attacker] | None:
        """The attacker that finds most in the fold of the choice, with its sign; None where none can be fitted."""
        recipe = RefitRecipe(steps=self.steps, validate_every=max(1, self.steps // 4))
        attackers: list[Attacker] = [
            TrainedAttacker("arcface", [self.weights], self.device),
            AdaptiveAttacker("adaptive_cross", [self.weights], "real", recipe, device=self.device),
        ]
        pairs = _pairs(knowledge.choice)
        found: list[tuple[float, str, float, Attacker]] = []
        for attacker in attackers if pairs is not None else ():
            try:
                attacker.fit(knowledge, seed)
            except TooLittleDataError:
                continue
            assert pairs is not None
            scores = attacker.score(knowledge.choice, pairs, "T1")
            auc = SortedScores(scores, pairs.same).auc(pairs.weight)
            found.append((max(auc, 1.0 - auc), attacker.name, 1.0 if auc >= 0.5 else -1.0, attacker))
        if not found:
            return None
        _, name, sign, best = max(found, key=lambda one: one[0])
        return name, sign, best


def _hash(patient: str) -> bytes:
    return hashlib.sha256(patient.encode()).digest()


def _judged(images: Sequence[ReleasedImage]) -> Judged:
    records = tuple(record_of(image.handle, image.patient, image.known) for image in images)
    sources, released = (np.stack([np.asarray(getattr(i, n)) for i in images])[:, None] for n in ("source", "released"))
    real = RealImages(Cohort(records), sources.astype(np.float32))
    pixels = np.clip(released.astype(np.float32), 0.0, 1.0)
    return Judged(real, Release("release", pixels, tuple((i,) for i in range(len(records)))))


def _pairs(judged: Judged) -> Pairs | None:
    """Pairs of a fold; None where there are too few."""
    pairs = threat_pairs(judged.real.cohort, "T1", "matched", judged.released)
    kinds = (pairs.counted & pairs.same, pairs.counted & ~pairs.same)
    return pairs if min(int(kind.sum()) for kind in kinds) >= _FEWEST_PAIRS else None


def _pooled(scored: Sequence[tuple[Pairs, Float[np.ndarray, "n"]]], n_boot: int) -> tuple[float, float, float]:
    """Mean of the folds' AUCs, each weighing as its patients do, and its interval over all patients."""
    ends = np.cumsum([0, *(len(scores) for _, scores in scored)])
    parts = [slice(ends[i], ends[i + 1]) for i in range(len(scored))]
    sorted_scores = [SortedScores(scores, pairs.same) for pairs, scores in scored]
    share = np.array([len(np.unique(pairs.patient_first[pairs.same])) for pairs, _ in scored], dtype=float)

    def statistic(weights: Float[np.ndarray, "n"]) -> float:
        return float(
            np.average([s.auc(weights[part]) for s, part in zip(sorted_scores, parts, strict=True)], weights=share)
        )

    # Patients of different folds have the same numbers.
    first, second = (
        np.concatenate([getattr(pairs, name) * len(scored) + i for i, (pairs, _) in enumerate(scored)])
        for name in ("patient_first", "patient_second")
    )
    same, weight = (np.concatenate([getattr(pairs, name) for pairs, _ in scored]) for name in ("same", "weight"))
    found = pair_bootstrap(statistic, same, first, second, weight, n_boot)
    return found.value, found.low, found.high
