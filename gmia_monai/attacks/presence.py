"""Presence: is this patient among the sources of the release? The one attack that every kind of system can be asked.

The attacker holds one real image of each patient, and looks how near the release comes to it: the largest similarity to
any released image, and how far that is above what other real images reach, since some images are near to everything.
Released images that were made from the very image held are not looked at. Members are patients with a source,
non-members are patients without.

A release of a whole cohort has no non-members; of one with one source an image, half of the patients, drawn by a hash,
are then left out of the release before it is attacked.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from gmia_monai.attacks.attackers.base import EmbeddingAttacker
from gmia_monai.attacks.base import AttackerKnowledge, Judged, TooLittleDataError
from gmia_monai.attacks.pool import AttackerPool
from gmia_monai.errors import UsageError
from gmia_monai.metrics.intervals import patient_bootstrap, rate_interval
from gmia_monai.metrics.results import Result, RunContext
from gmia_monai.metrics.verification import SortedScores

__all__ = ["PresenceAttack", "PresenceCase", "presence_case"]

_STATISTICS = ("largest", "standardised")


@dataclass(frozen=True, eq=False)
class PresenceCase:
    """What is asked of a release.

    Attributes:
        query: position of the real image that the attacker holds of each patient.
        member: whether that patient is among the sources of ``images``.
        images: positions of the released images that are attacked.
        own: whether a released image was made from the very image held; those pairs are not looked at.
    """

    query: Int[np.ndarray, "p"]
    member: Bool[np.ndarray, "p"]
    images: Int[np.ndarray, "r"]
    own: Bool[np.ndarray, "r p"]


def presence_case(judged: Judged, seed: int = 0) -> PresenceCase:
    """Members, non-members and the image that is held of each.

    The image held of a patient is one by hash; a member has another one among the sources. Non-members, too, must have
    two images: so both kinds are patients of one sort.

    Raises:
        UsageError: ``GM-U324`` where either kind has fewer than two patients.
    """
    cohort, release = judged.real.cohort, judged.release
    patient = cohort.patient_index
    sources_of = release.source_patients(cohort)
    members = set().union(*sources_of) if sources_of else set()
    several = {p for p, n in enumerate(np.bincount(patient)) if n >= 2}
    left_out: set[int] = set()
    if release.kind == "one_to_one" and several <= members:
        left_out = set(sorted(several, key=lambda p: _hash(cohort.patients[p], seed))[: len(several) // 2])
    query: list[int] = []
    for p in sorted(several):
        images = np.flatnonzero(patient == p).tolist()
        query.append(min(images, key=lambda i: _hash(cohort[i].key, seed)))
    images = [i for i, patients in enumerate(sources_of) if not patients & left_out]
    held = set(query)
    present = {int(patient[s]) for i in images for s in release.sources[i] if s not in held}
    kept = [i for i in query if patient[i] in present or patient[i] not in members - left_out]
    member = np.array([patient[i] in present for i in kept], dtype=bool)
    if min(member.sum(), (~member).sum()) < 2:
        raise TooLittleDataError(
            "GM-U324",
            "presence needs patients with two images who are among the sources, and such who are not",
            got=f"{member.sum()} and {(~member).sum()}",
            next_step="give --real more patients than were released",
        )
    own = np.array([[q in release.sources[i] for q in kept] for i in images], dtype=bool).reshape(len(images), -1)
    return PresenceCase(np.array(kept, dtype=np.int64), member, np.array(images, dtype=np.int64), own)


def _hash(text: str, seed: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{text}".encode()).digest()[:8], "big")


class PresenceAttack:
    """Presence by each attacker that embeds images; statistic and attacker are chosen on V2.

    Args:
        attackers: those of them that embed images are used.
        seed: seed of the attackers and of the split.
        n_boot: bootstrap resamples.
    """

    name = "presence"

    def __init__(self, attackers: AttackerPool, seed: int = 0, n_boot: int = 500) -> None:
        self.attackers = attackers
        self.seed = seed
        self.n_boot = n_boot
        self._fitted: dict[str, EmbeddingAttacker] = {}
        self._knowledge: AttackerKnowledge | None = None
        self._on_choice: dict[tuple[str, str], float] = {}

    def fit(self, knowledge: AttackerKnowledge) -> None:
        """Fits the attackers, and looks on V2 which statistic of which attacker finds most, and with which sign."""
        self._knowledge = knowledge
        self._fitted = self.attackers.embedding(self.seed, knowledge)
        for name, attacker in self._fitted.items():
            case, scores = self._scores(attacker, knowledge.choice)
            for statistic in _STATISTICS:
                self._on_choice[name, statistic] = SortedScores(scores[statistic], case.member).auc()

    def score(self, judged: Judged, context: RunContext) -> list[Result]:
        """``presence_auc.<statistic>.<attacker>.v1`` (signed by V2), ``presence_tpr_at_fpr_1pct`` where there are
        enough non-members, and ``presence_auc.worst.v1``.

        Raises:
            UsageError: ``GM-U311`` before :meth:`fit`, ``GM-U324`` as :func:`presence_case`.
        """
        if self._knowledge is None:
            raise UsageError("GM-U311", "the presence attack has not been fitted")
        self._knowledge.refuse_overlap(judged)
        worst = max(self._on_choice, key=lambda key: abs(self._on_choice[key] - 0.5))
        results = []
        for name, attacker in self._fitted.items():
            case, scores = self._scores(attacker, judged)
            for statistic in _STATISTICS:
                results += self._lines(case, scores[statistic], name, statistic, context, judged)
                if (name, statistic) == worst:
                    results += self._lines(case, scores[statistic], name, statistic, context, judged, worst=True)
        return results

    def _scores(
        self, attacker: EmbeddingAttacker, judged: Judged
    ) -> tuple[PresenceCase, dict[str, Float[np.ndarray, "p"]]]:
        case = presence_case(judged, self.seed)
        embed_released, embed_real = attacker.embed_released, attacker.embed_real
        if embed_released is None or embed_real is None:
            raise UsageError("GM-U311", f"attacker {attacker.name} has not been fitted")
        released, real = embed_released(judged.release.pixels[case.images]), embed_real(judged.real.pixels[case.query])
        similarity = attacker.compare_all(released, real)
        similarity[case.own] = -np.inf
        # How near a released image is to those who come next says how near it is to people in general.
        centred = similarity - np.sort(similarity, axis=1)[:, -4:-1].mean(axis=1, keepdims=True)
        return case, {"largest": similarity.max(axis=0), "standardised": centred.max(axis=0)}

    def _lines(
        self,
        case: PresenceCase,
        scores: Float[np.ndarray, "p"],
        attacker: str,
        statistic: str,
        context: RunContext,
        judged: Judged,
        worst: bool = False,
    ) -> list[Result]:
        sign = 1.0 if self._on_choice[attacker, statistic] >= 0.5 else -1.0
        sorted_scores = SortedScores(sign * scores, case.member)
        patients = judged.real.cohort.patient_index[case.query]
        extra: dict[str, object] = {
            "sign": sign,
            "auc_on_choice": round(self._on_choice[attacker, statistic], 6),
            "members": int(case.member.sum()),
            "non_members": int((~case.member).sum()),
            "released_images": len(case.images),
        }
        shared = {"n_patients": len(patients), "n_images": len(case.images) + len(patients)}
        label = "worst" if worst else f"{statistic}.{attacker}"
        if worst:
            extra |= {"attacker": attacker, "statistic": statistic}
        auc = patient_bootstrap(sorted_scores.auc, patients, self.n_boot, context.seed)
        who = "worst" if worst else attacker
        lines = [context.result(f"presence_auc.{label}.v1", auc, attacker=who, extra=extra, **shared)]
        rate = sorted_scores.tar_at_far(0.01)
        if rate.reason is None:
            tpr = patient_bootstrap(
                lambda w: sorted_scores.tar_at_far(0.01, w, 0.0).value, patients, self.n_boot, context.seed
            )
            name = f"presence_tpr_at_fpr_1pct.{label}.v1"
            members = int(case.member.sum())
            lines.append(context.result(name, rate_interval(tpr, members), attacker=who, extra=extra, **shared))
        return lines
