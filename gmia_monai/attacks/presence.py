"""Presence: is this patient among the sources of the release? The one attack that every kind of system can be asked.
After Nergiz, Atzori and Clifton, "Hiding the presence of individuals from shared databases" (SIGMOD 2007).

The attacker holds one real image of each patient, and looks how near the release comes to it: the largest similarity to
any released image, and how far that is above what other real images reach, since some images are near to everything.
Where a system inverts identity, a patient's own released images are the farthest: the same is asked of the negative
similarity, and V2 says for each statistic which direction tells more. ``fused_pairs`` does so with the evidence of all
attackers on each pair of images, weighed on V2 as for retrieval; ``fusion`` weighs both statistics of all of these on
V2. Members and non-members: :mod:`gmia_monai.attacks.presence_cases`.

An attacker that has itself learned from images of the generator's training patients embeds them otherwise than those of
strangers, and would tell them apart by noise. In generated releases the similarities of each image held are therefore
first brought to mean 0 and standard deviation 1 over all released images, and ``auc_of_unreleased`` stands beside the
figure: the AUC of the same statistic where real images of other people, of the role V2, take the place of the release.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

from gmia_monai.attacks.attackers.base import EmbeddingAttacker
from gmia_monai.attacks.base import AttackerKnowledge, Judged, Pixels, TooLittleDataError
from gmia_monai.attacks.folds import CrossFitted
from gmia_monai.attacks.fused_retrieval import FusedSearch
from gmia_monai.attacks.pool import AttackerPool
from gmia_monai.attacks.presence_cases import PresenceCase, halves, presence_case
from gmia_monai.attacks.seeds import checked_seeds, embedding_attackers
from gmia_monai.attacks.weighing import LogOdds
from gmia_monai.data.release import RealImages
from gmia_monai.errors import UsageError
from gmia_monai.metrics.differences import Replicates, draws_of
from gmia_monai.metrics.intervals import intervals_over_seeds, patient_counts
from gmia_monai.metrics.limits import Interval
from gmia_monai.metrics.results import Result, RunContext
from gmia_monai.metrics.verification import SortedScores

__all__ = ["PresenceAttack", "presence_scores"]

_STATISTICS = ("largest", "standardised")
_DIRECTIONS = (1.0, -1.0)
_FUSION, _FUSED_PAIRS = "fusion", "fused_pairs"
_FALSE_POSITIVES = 0.01
# Twenty statistics that see much the same, and some hundred patients: the penalty is to be felt.
_INVERSE_PENALTY = 0.1


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

    def scores(self, of_seed: Float[np.ndarray, "p 2"]) -> Float[np.ndarray, "p"]:
        """Scores of a statistic in both directions to one that is higher for members."""
        return self.sign * of_seed[:, _DIRECTIONS.index(self.direction)]


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
        self._searches: list[FusedSearch] = []
        self._knowledge: AttackerKnowledge | None = None
        self._members: tuple[RealImages | None, RealImages | None] = (None, None)
        self._chosen: dict[tuple[str, str], _Chosen] = {}
        self._fused: list[CrossFitted[_Fused]] = []
        self._fused_auc = 0.5

    def fit(self, knowledge: AttackerKnowledge) -> None:
        """Fits the attackers, and looks on V2 which statistic of which attacker finds most, in which direction and with
        which sign, and what all together find of patients whom they were not weighed on.

        Raises:
            UsageError: ``GM-U324`` as :func:`presence_case`.
        """
        self._knowledge = knowledge
        self._members = (None, None) if knowledge.members is None else halves(knowledge.members.real)
        case = presence_case(knowledge.choice, self._members[0])
        self._fitted = embedding_attackers(self.attackers, self.seeds, knowledge)
        self._searches = self._fused_searches(knowledge.choice)
        found = self._statistics(knowledge.choice, case)
        self._chosen = {
            (name, statistic): _choose([table[:, k] for table in found], case.member)
            for k, (name, statistic) in enumerate(self._columns)
        }
        patients = np.arange(len(case.patients))
        self._fused = [
            CrossFitted(lambda rows, table=table: _Fused(table[rows], case.member[rows]), case.member, patients)
            for table in found
        ]
        left_out = [fused.left_out(table, patients) for fused, table in zip(self._fused, found, strict=True)]
        self._fused_auc = _mean_auc(left_out, case.member)

    def score(self, judged: Judged, context: RunContext) -> list[Result]:
        """``presence_auc.<statistic>.<attacker>.v1`` in the direction and with the sign of V2, ``presence_auc.fusion``
        of all of them, ``presence_tpr_at_fpr_1pct`` of each where there are enough non-members, and
        ``presence_auc.worst.v1``. The limits of an AUC rest on the patients of the smaller class, those
        of a TPR on the members.

        Raises:
            UsageError: ``GM-U311`` before :meth:`fit`, ``GM-U324`` as :func:`presence_case`.
        """
        if self._knowledge is None:
            raise UsageError("GM-U311", "the presence attack has not been fitted")
        self._knowledge.refuse_overlap(judged)
        case = presence_case(judged, self._members[1])
        found = self._scored(self._statistics(judged, case))
        unreleased = {}
        if judged.release.kind == "generated":
            unreleased = self._of_others(self._knowledge.choice.real.pixels, case)
        worst = self._worst()
        results = []
        for key, scores in found.items():
            intervals, replicates = self._intervals(scores, case, context)
            extra: dict[str, object] = {"n_seeds": len(self.seeds)}
            if key in self._chosen:
                name, statistic = key
                label, chosen = f"{statistic}.{name}", self._chosen[key]
                extra |= {"direction": chosen.direction, "sign": chosen.sign, "auc_on_choice": round(chosen.auc, 6)}
            else:
                name, statistic, label = _FUSION, "all", _FUSION
                extra |= {"auc_on_choice": round(self._fused_auc, 6), "n_statistics": len(self._columns)}
            extra |= {
                "members": int(case.member.sum()),
                "non_members": int((~case.member).sum()),
                "released_images": len(case.images),
            }
            if key in unreleased:
                extra["auc_of_unreleased"] = round(unreleased[key], 6)
            results += _lines(intervals, case, label, name, context, extra)
            if key == worst:
                extra = extra | {"attacker": name, "statistic": statistic}
                worst_lines = _lines(intervals, case, "worst", "worst", context, extra)
                if context.keep is not None:
                    context.keep(worst_lines[0], replicates)
                results += worst_lines
        return results

    @property
    def _columns(self) -> list[tuple[str, str]]:
        names = [*self._fitted, *([_FUSED_PAIRS] if self._searches else [])]
        return [(name, statistic) for name in names for statistic in _STATISTICS]

    def _fused_searches(self, choice: Judged) -> list[FusedSearch]:
        """All attackers of a seed as one; none where there is one alone, or no pairs on which to weigh them."""
        if len(self._fitted) < 2 or choice.release.kind != "one_to_one":
            return []
        try:
            return [FusedSearch(of_seed, choice) for of_seed in zip(*self._fitted.values(), strict=True)]
        except TooLittleDataError:
            return []

    def _worst(self) -> tuple[str, str]:
        """What found most on V2."""
        alone = {key: max(chosen.auc, 1.0 - chosen.auc) for key, chosen in self._chosen.items()}
        best = max(alone, key=lambda key: alone[key])
        return (_FUSION, "") if self._fused_auc > alone[best] else best

    def _statistics(self, released: Judged | Pixels, case: PresenceCase) -> list[Float64[np.ndarray, "p k 2"]]:
        """For each seed: of each patient each statistic of each attacker in either direction, in a release or in
        images that take its place."""
        tables = []
        for i in range(len(self.seeds)):
            columns = []
            similarities = [_similarity(fitted[i], released, case) for fitted in self._fitted.values()]
            if self._searches and isinstance(released, Judged):
                similarities.append(_together(self._searches[i], released, case))
            for similarity in similarities:
                both = [presence_scores(direction * similarity, case.own) for direction in _DIRECTIONS]
                columns += [np.stack([found[statistic] for found in both], axis=1) for statistic in _STATISTICS]
            tables.append(np.stack(columns, axis=1))
        return tables

    def _scored(
        self, tables: Sequence[Float64[np.ndarray, "p k 2"]]
    ) -> dict[tuple[str, str], list[Float[np.ndarray, "p"]]]:
        """Scores of each seed, higher for members, of each statistic of each attacker and of all together."""
        found = {
            key: [self._chosen[key].scores(table[:, k]) for table in tables] for k, key in enumerate(self._columns)
        }
        fused = [fused.all(table) for fused, table in zip(self._fused, tables, strict=True)]
        return found | {(_FUSION, ""): fused}

    def _of_others(self, others: Pixels, case: PresenceCase) -> dict[tuple[str, str], float]:
        """AUCs with other images in the place of the release."""
        no_own = np.zeros((len(others), len(case.patients)), dtype=bool)
        instead = replace(case, images=np.arange(len(others)), own=no_own)
        found = self._scored(self._statistics(others, instead))
        return {key: _mean_auc(scores, case.member) for key, scores in found.items()}

    def _intervals(
        self, scores: Sequence[Float[np.ndarray, "p"]], case: PresenceCase, context: RunContext
    ) -> tuple[dict[str, Interval], Replicates]:
        """Means over seeds of the figures that the number of non-members allows, the AUC first; its replicates."""
        member = case.member
        measured = SortedScores(scores[0], member).tar_at_far(_FALSE_POSITIVES).reason is None
        counts = patient_counts(len(member), self.n_boot, context.seed)
        known: list[tuple[np.ndarray, np.ndarray]] = []
        for of_seed in scores:  # an attacker without chance is asked once
            again = [table for other, table in known if np.array_equal(other, of_seed)]
            known.append((of_seed, again[0] if again else _resampled(of_seed, member, counts, measured)))
        found = np.stack([table for _, table in known], axis=1)
        n_members = int(member.sum())
        fewer = min(n_members, len(member) - n_members)
        intervals = {"presence_auc": intervals_over_seeds(found[..., :1], fewer)[0]}
        if measured:
            intervals["presence_tpr_at_fpr_1pct"] = intervals_over_seeds(found[..., 1:], n_members)[0]
        return intervals, Replicates(found[..., 0], fewer, draws_of(case.patients, context.seed), self.seeds)


class _Fused:
    """All statistics as one: of each the direction that tells more, then :class:`LogOdds`."""

    def __init__(self, table: Float64[np.ndarray, "p k 2"], member: Bool[np.ndarray, "p"]) -> None:
        auc = [[abs(SortedScores(scores, member).auc() - 0.5) for scores in both.T] for both in table.swapaxes(0, 1)]
        self._direction: Int[np.ndarray, "k"] = np.argmax(auc, axis=1)
        effective = min(member.sum(), (~member).sum())
        self._odds = LogOdds(self._told(table), member, np.ones(len(member)), float(effective), _INVERSE_PENALTY)

    def _told(self, table: Float64[np.ndarray, "p k 2"]) -> Float64[np.ndarray, "p k"]:
        return table[:, np.arange(table.shape[1]), self._direction]

    def __call__(self, table: Float64[np.ndarray, "p k 2"]) -> Float64[np.ndarray, "p"]:
        """Log odds of a member."""
        return self._odds(self._told(table))


def _resampled(
    scores: Float[np.ndarray, "p"],
    member: Bool[np.ndarray, "p"],
    counts: Float[np.ndarray, "rows p"],
    with_rate: bool,
) -> Float64[np.ndarray, "rows figures"]:
    """AUC, and TPR where it is measured, under each resample's weights."""
    ordered, found = SortedScores(scores, member), []
    for weights in counts:
        curve = ordered.curve(weights)
        found.append([curve.auc(), *([curve.tar_at_far(_FALSE_POSITIVES).value] if with_rate else [])])
    return np.array(found)


def _similarity(attacker: EmbeddingAttacker, released: Judged | Pixels, case: PresenceCase) -> Float[np.ndarray, "r p"]:
    if isinstance(released, Judged) and released.release.kind == "one_to_one":  # embedded by other attacks already
        of_sources, of_real = attacker.embeddings(released)
        return attacker.compare_all(of_sources[released.release.only_source()[case.images]], of_real[case.held_at])
    if attacker.embed_released is None or attacker.embed_real is None:
        raise UsageError("GM-U311", f"attacker {attacker.name} has not been fitted")
    pixels = released.release.pixels[case.images] if isinstance(released, Judged) else released
    similarity = attacker.compare_all(attacker.embed_released(pixels), attacker.embed_real(case.held))
    if case.of_one_sort:
        return similarity
    return (similarity - similarity.mean(axis=0)) / np.maximum(similarity.std(axis=0), 1e-12)


def _together(search: FusedSearch, judged: Judged, case: PresenceCase) -> Float[np.ndarray, "r p"]:
    """Log odds of each released image that is attacked and each image held; on V2 by weights of other patients."""
    sources = judged.release.only_source()[case.images]
    return search.scores(judged, "real_in_released", case.held_at)[:, sources].T


def _mean_auc(per_seed: Sequence[Float[np.ndarray, "p"]], member: Bool[np.ndarray, "p"]) -> float:
    return float(np.mean([SortedScores(scores, member).auc() for scores in per_seed]))


def _choose(per_seed: Sequence[Float[np.ndarray, "p 2"]], member: Bool[np.ndarray, "p"]) -> _Chosen:
    aucs = {d: _mean_auc([both[:, i] for both in per_seed], member) for i, d in enumerate(_DIRECTIONS)}
    direction = max(aucs, key=lambda d: abs(aucs[d] - 0.5))
    return _Chosen(direction, 1.0 if aucs[direction] >= 0.5 else -1.0, aucs[direction])


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
