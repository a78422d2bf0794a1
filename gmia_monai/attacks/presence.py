"""Presence: is this patient among the sources of the release? The one attack that every kind of system can be asked.

The attacker holds one real image of each patient, and looks how near the release comes to it: the largest similarity to
any released image, and how far that is above what other real images reach, since some images are near to everything.
Where a system inverts identity, a patient's own released images are the farthest: the same is asked of the negative
similarity, and V2 says for each statistic which direction tells more.

==================  ==============================================  ==============================================
release             members                                         non-members
==================  ==============================================  ==============================================
of one or k         patients with a source other than the image     patients without a source
sources             held
of a generator      half of the patients that it was trained on;    patients of the judged cohort
                    the other half is asked for on V2
==================  ==============================================  ==============================================

The image held is one by hash; a member of a generator's training set is held by an image that it was trained on.
Released images that were made from the very image held are not looked at. Where more than half of the patients are
among the sources, as in a release of a whole cohort, patients are left out with all released images that they are a
source of, in the order of a hash, until half of the patients are in none that remains.

An attacker that has itself learned from images of the generator's training patients embeds them otherwise than those of
strangers, and would tell them apart by noise. In generated releases the similarities of each image held are therefore
first brought to mean 0 and standard deviation 1 over all released images, and ``auc_of_unreleased`` stands beside the
figure: the AUC of the same statistic where real images of other people, of the role V2, take the place of the release.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from gmia_monai.attacks.attackers.base import EmbeddingAttacker
from gmia_monai.attacks.base import AttackerKnowledge, Judged, Pixels, TooLittleDataError
from gmia_monai.attacks.pool import AttackerPool
from gmia_monai.attacks.seeds import Statistics, checked_seeds, embedding_attackers, shared_statistics
from gmia_monai.data.cohort import Cohort
from gmia_monai.data.release import RealImages
from gmia_monai.errors import UsageError
from gmia_monai.metrics.intervals import patient_bootstrap_figures
from gmia_monai.metrics.limits import Interval
from gmia_monai.metrics.results import Result, RunContext
from gmia_monai.metrics.verification import SortedScores

__all__ = ["PresenceAttack", "PresenceCase", "presence_case", "presence_scores"]

_STATISTICS = ("largest", "standardised")
_DIRECTIONS = (1.0, -1.0)
_SPLIT_SEED = 0
_FALSE_POSITIVES = 0.01


@dataclass(frozen=True, eq=False)
class PresenceCase:
    """What is asked of a release.

    Attributes:
        patients: identifiers of the patients that are asked for.
        held: the real image that the attacker holds of each, in [0, 1].
        member: whether the patient is among the sources of ``images``, or was one that the generator learned from.
        images: positions of the released images that are attacked.
        own: whether a released image was made from the very image held; those pairs are not looked at.
        of_one_sort: whether members are patients like the others but for the release; False where attackers, too, may
            have learned from them.
    """

    patients: tuple[str, ...]
    held: Pixels
    member: Bool[np.ndarray, "p"]
    images: Int[np.ndarray, "r"]
    own: Bool[np.ndarray, "r p"]
    of_one_sort: bool = True


def presence_case(judged: Judged, members: RealImages | None = None, seed: int = _SPLIT_SEED) -> PresenceCase:
    """Members, non-members and the image that is held of each.

    The image held of a patient is one by hash; a member of a release with sources has another one among them.
    Non-members of such a release, too, must have two images: so both kinds are patients of one sort.

    Args:
        judged: the release.
        members: images that a generator was trained on; asked of generated releases alone.
        seed: of the hash that chooses images and patients.

    Raises:
        UsageError: ``GM-U324`` where either kind has fewer than two patients, or ``members`` lack.
    """
    case = _generated_case(judged, members, seed) if judged.release.kind == "generated" else _sourced_case(judged, seed)
    n_members, n_others = int(case.member.sum()), int((~case.member).sum())
    if min(n_members, n_others) < 2:
        raise TooLittleDataError(
            "GM-U324",
            "presence needs patients with two images who are among the sources, and such who are not",
            got=f"{n_members} and {n_others}",
            next_step="give --real more patients than were released",
        )
    return case


def _sourced_case(judged: Judged, seed: int) -> PresenceCase:
    cohort, release = judged.real.cohort, judged.release
    patients_of = release.source_patients(cohort)
    counts = np.bincount(cohort.patient_index)
    held = _held(cohort, np.flatnonzero(counts >= 2), seed)
    gone = _left_out(patients_of, sorted(held, key=lambda p: _hash(cohort.patients[p], seed)))
    images = [i for i in range(len(release)) if i not in gone]
    named = {p for i in images for p in patients_of[i]}
    present = {p for i in images for p in patients_of[i] & held.keys() if held[p] not in release.sources[i]}
    asked = [p for p in held if p in present or p not in named]
    column = {held[p]: k for k, p in enumerate(asked)}
    own = np.zeros((len(images), len(asked)), dtype=bool)
    for row, i in enumerate(images):
        own[row, [column[s] for s in release.sources[i] if s in column]] = True
    return PresenceCase(
        tuple(cohort.patients[p] for p in asked),
        judged.real.pixels[[held[p] for p in asked]],
        np.array([p in present for p in asked], dtype=bool),
        np.array(images, dtype=np.int64),
        own,
    )


def _left_out(patients_of: Sequence[set[int]], patients: Sequence[int]) -> set[int]:
    """Released images that go, with one patient after the other, until at most half of the patients remain."""
    images_of: dict[int, list[int]] = {p: [] for p in patients}
    for i, sources in enumerate(patients_of):
        for p in sources & images_of.keys():
            images_of[p].append(i)
    remaining = {p: len(images) for p, images in images_of.items() if images}
    gone: set[int] = set()
    for p in patients:
        if 2 * len(remaining) <= len(patients) + 1:
            break
        for i in images_of[p]:
            if i in gone:
                continue
            gone.add(i)
            for q in patients_of[i] & remaining.keys():
                remaining[q] -= 1
                if not remaining[q]:
                    del remaining[q]
    return gone


def _generated_case(judged: Judged, members: RealImages | None, seed: int) -> PresenceCase:
    if members is None:
        raise TooLittleDataError(
            "GM-U324",
            "presence in a generated release needs images that the generator was trained on",
            next_step="give images of the training role",
        )
    sides = (members, judged.real)
    held = [list(_held(side.cohort, range(len(side.cohort.patients)), seed).values()) for side in sides]
    n = [len(h) for h in held]
    return PresenceCase(
        sum((side.cohort.patients for side in sides), ()),
        np.concatenate([side.pixels[h] for side, h in zip(sides, held, strict=True)]),
        np.repeat([True, False], n),
        np.arange(len(judged.release)),
        np.zeros((len(judged.release), sum(n)), dtype=bool),
        of_one_sort=False,
    )


def _held(cohort: Cohort, patients: Iterable[int], seed: int) -> dict[int, int]:
    """For each of these patients the position of the image that the attacker holds."""
    positions: dict[int, list[int]] = {int(p): [] for p in patients}
    for i, p in enumerate(cohort.patient_index.tolist()):
        if p in positions:
            positions[p].append(i)
    return {p: min(found, key=lambda i: _hash(cohort[i].key, seed)) for p, found in positions.items()}


def _halves(real: RealImages, seed: int) -> tuple[RealImages, RealImages]:
    """The images of two halves of the patients, by hash."""
    patients = real.cohort.patients
    order = sorted(range(len(patients)), key=lambda p: _hash(patients[p], seed))
    first = np.isin(real.cohort.patient_index, order[: len(order) // 2])
    return real.take(np.flatnonzero(first)), real.take(np.flatnonzero(~first))


def _hash(text: str, seed: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{text}".encode()).digest()[:8], "big")


def presence_scores(
    similarity: Float[np.ndarray, "r p"], own: Bool[np.ndarray, "r p"]
) -> dict[str, Float[np.ndarray, "p"]]:
    """How near the release comes to each image held.

    Args:
        similarity: of each released image with each image held; its negative where the farthest is looked for.
        own: pairs that are not looked at.

    Returns:
        ``largest``: the largest similarity of each image held; ``standardised``: the same after the mean of the second
        to the fourth nearest image held has been taken from each released image, which says how near it is to people
        in general.
    """
    near = np.where(own, -np.inf, similarity)
    next_ones = np.sort(near, axis=1)[:, -4:-1]
    there = np.isfinite(next_ones)
    n = there.sum(axis=1)
    mean = np.where(there, next_ones, 0.0).sum(axis=1) / np.maximum(n, 1)
    alone = np.where(own, 0.0, similarity).sum(axis=1)  # of a released image that is looked at beside one image held
    return {"largest": near.max(axis=0), "standardised": (near - np.where(n > 0, mean, alone)[:, None]).max(axis=0)}


@dataclass(frozen=True)
class _Chosen:
    """What V2 said of a statistic of an attacker: whether the nearest (1) or the farthest (-1) tells more, whether a
    member has more (1) or less (-1) of it, and the AUC there before that sign, as a mean over seeds."""

    direction: float
    sign: float
    auc: float


class PresenceAttack:
    """Presence by each attacker that embeds images; direction, sign, statistic and attacker are chosen on V2.

    Args:
        attackers: those of them that embed images are used.
        seeds: seeds of the attackers; figures are means over them. Who is left out is one split for all.
        n_boot: bootstrap resamples.

    Raises:
        UsageError: ``GM-U316`` without a seed.
    """

    name = "presence"

    def __init__(self, attackers: AttackerPool, seeds: Sequence[int] = (0, 1, 2), n_boot: int = 500) -> None:
        self.attackers = attackers
        self.seeds = checked_seeds(seeds)
        self.n_boot = n_boot
        self._fitted: dict[str, list[EmbeddingAttacker]] = {}
        self._knowledge: AttackerKnowledge | None = None
        self._members: tuple[RealImages | None, RealImages | None] = (None, None)
        self._chosen: dict[tuple[str, str], _Chosen] = {}

    def fit(self, knowledge: AttackerKnowledge) -> None:
        """Fits the attackers, and looks on V2 which statistic of which attacker finds most, in which direction and with
        which sign.

        Raises:
            UsageError: ``GM-U324`` as :func:`presence_case`.
        """
        self._knowledge = knowledge
        self._members = (None, None) if knowledge.members is None else _halves(knowledge.members.real, _SPLIT_SEED)
        case = presence_case(knowledge.choice, self._members[0])
        self._fitted = embedding_attackers(self.attackers, self.seeds, knowledge)
        released = knowledge.choice.release.pixels[case.images]
        for name, fitted in self._fitted.items():
            similarity = [_similarity(attacker, released, case) for attacker in fitted]
            for statistic in _STATISTICS:
                aucs = {d: _mean_auc(similarity, case, statistic, d) for d in _DIRECTIONS}
                direction = max(aucs, key=lambda d: abs(aucs[d] - 0.5))
                sign = 1.0 if aucs[direction] >= 0.5 else -1.0
                self._chosen[name, statistic] = _Chosen(direction, sign, aucs[direction])

    def score(self, judged: Judged, context: RunContext) -> list[Result]:
        """``presence_auc.<statistic>.<attacker>.v1`` in the direction and with the sign of V2,
        ``presence_tpr_at_fpr_1pct`` where there are enough non-members, and ``presence_auc.worst.v1``.

        Raises:
            UsageError: ``GM-U311`` before :meth:`fit`, ``GM-U324`` as :func:`presence_case`.
        """
        if self._knowledge is None:
            raise UsageError("GM-U311", "the presence attack has not been fitted")
        self._knowledge.refuse_overlap(judged)
        case = presence_case(judged, self._members[1])
        released = judged.release.pixels[case.images]
        worst = max(self._chosen, key=lambda key: abs(self._chosen[key].auc - 0.5))
        results = []
        for name, fitted in self._fitted.items():
            similarity = [_similarity(attacker, released, case) for attacker in fitted]
            for statistic in _STATISTICS:
                chosen = self._chosen[name, statistic]
                found = self._intervals(similarity, case, statistic, chosen, context)
                extra = {
                    "direction": chosen.direction,
                    "sign": chosen.sign,
                    "auc_on_choice": round(chosen.auc, 6),
                    "n_seeds": len(self.seeds),
                    "members": int(case.member.sum()),
                    "non_members": int((~case.member).sum()),
                    "released_images": len(case.images),
                }
                if judged.release.kind == "generated":
                    others = self._knowledge.choice.real.pixels
                    extra["auc_of_unreleased"] = round(_of_others(fitted, others, case, statistic, chosen), 6)
                results += _lines(found, case, f"{statistic}.{name}", name, context, extra)
                if (name, statistic) == worst:
                    extra = extra | {"attacker": name, "statistic": statistic}
                    results += _lines(found, case, "worst", "worst", context, extra)
        return results

    def _intervals(
        self,
        similarity: Sequence[Float[np.ndarray, "r p"]],
        case: PresenceCase,
        statistic: str,
        chosen: _Chosen,
        context: RunContext,
    ) -> dict[str, Interval]:
        """Means over seeds of the figures that the number of non-members allows."""
        scores = [chosen.sign * presence_scores(chosen.direction * s, case.own)[statistic] for s in similarity]
        measured = SortedScores(scores[0], case.member).tar_at_far(_FALSE_POSITIVES).reason is None
        figures = ["presence_auc", *(["presence_tpr_at_fpr_1pct"] if measured else [])]

        def statistics(of_seed: Float[np.ndarray, "p"]) -> Statistics:
            ordered = SortedScores(of_seed, case.member)

            def found(w: Float[np.ndarray, "p"]) -> list[float]:
                curve = ordered.curve(w)
                return [curve.auc(), *([curve.tar_at_far(_FALSE_POSITIVES).value] if measured else [])]

            return found

        patients = np.arange(len(case.patients))
        intervals = patient_bootstrap_figures(
            shared_statistics(scores, statistics), patients, self.n_boot, context.seed
        )
        return dict(zip(figures, intervals, strict=True))


def _similarity(attacker: EmbeddingAttacker, released: Pixels, case: PresenceCase) -> Float[np.ndarray, "r p"]:
    if attacker.embed_released is None or attacker.embed_real is None:
        raise UsageError("GM-U311", f"attacker {attacker.name} has not been fitted")
    similarity = attacker.compare_all(attacker.embed_released(released), attacker.embed_real(case.held))
    if case.of_one_sort:
        return similarity
    return (similarity - similarity.mean(axis=0)) / np.maximum(similarity.std(axis=0), 1e-12)


def _mean_auc(
    similarity: Sequence[Float[np.ndarray, "r p"]], case: PresenceCase, statistic: str, direction: float
) -> float:
    """Over seeds, of a statistic in a direction, not signed."""
    scores = [presence_scores(direction * s, case.own)[statistic] for s in similarity]
    return float(np.mean([SortedScores(s, case.member).auc() for s in scores]))


def _of_others(
    fitted: Sequence[EmbeddingAttacker], others: Pixels, case: PresenceCase, statistic: str, chosen: _Chosen
) -> float:
    """The signed AUC with other images in the place of the release."""
    no_own = np.zeros((len(others), len(case.patients)), dtype=bool)
    instead = replace(case, images=np.arange(len(others)), own=no_own)
    similarity = [_similarity(attacker, others, instead) for attacker in fitted]
    auc = _mean_auc(similarity, instead, statistic, chosen.direction)
    return auc if chosen.sign > 0 else 1.0 - auc


def _lines(
    found: Mapping[str, Interval],
    case: PresenceCase,
    label: str,
    attacker: str,
    context: RunContext,
    extra: Mapping[str, object],
) -> list[Result]:
    n = len(case.patients)
    return [
        context.result(
            f"{figure}.{label}.v1",
            value,
            n_patients=n,
            n_images=len(case.images) + n,
            attacker=attacker,
            extra=extra,
        )
        for figure, value in found.items()
    ]
