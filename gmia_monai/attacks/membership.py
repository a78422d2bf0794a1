"""Membership: has the system learned from this image? Asked of the anonymizer's own training patients.

Known members are half of the patients of S and known non-members half of those of A, as protocol v1 has it; the sign of
each signal and the worst signal are chosen on a quarter of S against V2; the last quarter of S is scored against T.
The other half of A says what is usual. Signals: :mod:`gmia_monai.attacks.membership_signals`; ``shadow`` is the attack
of Shokri et al. (IEEE S&P 2017), ``supervised`` one that is told the known members.

What the attacker's own encoder remembers of S is no fault of the release. So each line has, as a control, the AUC of
the same signal where the released images are exchanged for real ones of A, and the worst signal is the one that finds
most beyond its control. ``auc_without_release`` in each line is that control: the chance of this very attack, at the
line's own level, images or patients. It need not be 0.5, since members and non-members are different people. By how
much the release is above it is ``membership_gain``, with an interval from the same resamples.

The attacker looks for the nearest among all images that were released, the control among as many real ones of A as
there are: fewer, see ``pool_sizes``. To draw as few of the released ones would hide most copies from the attacker, so
that figures keep them all; ``auc_with_equal_pools`` says what would be found among so few.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from gmia_monai.attacks.base import AttackerKnowledge, Judged, Pixels, TooLittleDataError
from gmia_monai.attacks.membership_models import AttackModel
from gmia_monai.attacks.membership_observer import Observed, Observer
from gmia_monai.attacks.membership_signals import Pool
from gmia_monai.attacks.seeds import Statistics, checked_seeds, shared_statistics
from gmia_monai.attacks.shadow import AutoencoderTrainer, Shadow, TrainShadow
from gmia_monai.attacks.training import Schedule
from gmia_monai.errors import UsageError
from gmia_monai.metrics.intervals import patient_bootstrap_figures
from gmia_monai.metrics.limits import Interval
from gmia_monai.metrics.results import Result, RunContext
from gmia_monai.metrics.verification import SortedScores

__all__ = ["MembershipAttack", "membership_lines"]

_FPR = 0.01
_FALSE_POSITIVES = 5  # expected of non-member patients at that rate, at the least
_NON_MEMBERS_NEEDED = math.ceil(_FALSE_POSITIVES / _FPR)

Part = tuple[Judged, Int[ndarray, "n"]]
"""A release and the positions of the real images that are asked about."""

_MEANINGLESS = (
    "members only, as published: an attacker that calls every image a non-member scores 0, too, and so does one that "
    "is blind to released images; no figure of privacy"
)


@dataclass(frozen=True)
class _Chosen:
    """What the choice said of a signal, seed by seed: its sign, its AUC, and its AUC without the release."""

    signs: list[float]
    aucs: list[float]
    controls: list[float]

    @property
    def found(self) -> float:
        """How much further from chance the signal is than its control, as a mean over seeds."""
        gains = [abs(auc - 0.5) - abs(control - 0.5) for auc, control in zip(self.aucs, self.controls, strict=True)]
        return float(np.mean(gains))


@dataclass(frozen=True, eq=False)
class _Fitted:
    """What is left of the fit of one seed: who looks, and who learned."""

    seed: int
    observer: Observer
    non_members: Observed
    models: dict[str, AttackModel]

    def signals(
        self, parts: Sequence[Part], pool: Pool | None
    ) -> tuple[dict[str, Float[ndarray, "n"]], Bool[ndarray, "n"], ndarray]:
        """Signals, membership and patients of members and of non-members, in this order."""
        seen = [self.observer.observe(judged, index, pool) for judged, index in parts]
        joined = {name: np.concatenate([part.signals[name] for part in seen]) for name in seen[0].signals}
        for name, model in self.models.items():
            joined[name] = np.concatenate(
                [model.score(_columns(s, name), _columns(self.non_members, name)) for s in seen]
            )
        patients = np.array([p for part in seen for p in part.patients])
        return joined, np.arange(len(patients)) < len(parts[0][1]), patients


@dataclass(frozen=True, eq=False)
class _Asked:
    """Who is asked about: members known to the attacker and those to be scored, by their positions."""

    knowledge: AttackerKnowledge
    members: Judged
    known: Int[ndarray, "n"]
    scored: Int[ndarray, "m"]


class MembershipAttack:
    """Membership in the training set of the judged system, by loss, nearest released image and attack models.

    Args:
        seeds: of the shadows; figures are means over them. The first one shares the patients out.
        n_boot: bootstrap resamples.
        schedule: how long the default shadows are trained.
        device: where they are.
        train_shadow: trains a shadow; give the judged system's own training. None: a small auto-encoder.
        n_shadows: shadow models a seed; even, at least 4.

    Raises:
        UsageError: ``GM-U316`` without a seed.
    """

    name = "membership"

    def __init__(
        self,
        seeds: Sequence[int] = (0,),
        n_boot: int = 500,
        schedule: Schedule | None = None,
        device: str = "cpu",
        train_shadow: TrainShadow | None = None,
        n_shadows: int = 4,
    ) -> None:
        default = AutoencoderTrainer(device=device) if schedule is None else AutoencoderTrainer(schedule, device=device)
        self.seeds = checked_seeds(seeds)
        self.n_boot = n_boot
        self.train_shadow: TrainShadow = train_shadow or default
        self.n_shadows = n_shadows
        self._asked: _Asked | None = None
        self._fitted: list[_Fitted] = []
        self._chosen: dict[str, _Chosen] = {}

    def fit(self, knowledge: AttackerKnowledge) -> None:
        """Trains shadows on A and attack models on known members, and chooses signs and the worst signal.

        Raises:
            UsageError: ``GM-U340`` without a release of the training role, ``GM-U341`` where patients are too few,
                ``GM-U342`` where releases are of different kinds, ``GM-U343`` as :meth:`Shadow.train_all`.
        """
        members, own, choice = knowledge.members, knowledge.own, knowledge.choice
        if members is None:
            raise UsageError(
                "GM-U340",
                "membership needs a release of patients that the system was trained on",
                next_step="anonymize images of role S with the system, too, and give them as members",
            )
        for part in (own, choice):
            _refuse_another_kind(members, part)
        known, to_choose, scored = _shared_out(members, (2, 1, 1), self.seeds[0])
        known_not, usual = _shared_out(own, (1, 1), self.seeds[0])
        pool = Pool.of([members, own, choice])
        self._asked = _Asked(knowledge, members, known, scored)
        self._fitted = [self._learned(self._asked, known_not, usual, pool, seed) for seed in self.seeds]
        parts = [(members, to_choose), (choice, _candidates(choice))]
        found, member, _ = self._signals(parts, pool)
        control, _, _ = self._signals(parts, None)
        self._chosen = {}
        for name in found:
            aucs, controls = ([SortedScores(s, member).auc() for s in of[name]] for of in (found, control))
            self._chosen[name] = _Chosen([1.0 if auc >= 0.5 else -1.0 for auc in aucs], aucs, controls)

    def _learned(
        self, asked: _Asked, known_not: Int[ndarray, "n"], usual: Int[ndarray, "m"], pool: Pool, seed: int
    ) -> _Fitted:
        knowledge, own = asked.knowledge, asked.knowledge.own
        paired = asked.members.release.kind == "one_to_one"
        shadows = Shadow.train_all(own.real, self.train_shadow, self.n_shadows, seed) if paired else ()
        blank, reference = own.real.pixels[known_not], own.real.pixels[usual]
        observer = Observer(knowledge.frozen, shadows, reference, blank, self.seeds[0])
        seen, seen_not = observer.observe(asked.members, asked.known, pool), observer.observe(own, known_not, pool)
        both = np.concatenate([seen.everything, seen_not.everything])
        models = {"supervised": AttackModel().fit([(both, np.arange(len(both)) < len(asked.known))])}
        if paired:
            models["shadow"] = AttackModel().fit(observer.shadow_examples(own.real))
        return _Fitted(seed, observer, seen_not, models)

    def _signals(
        self, parts: Sequence[Part], pool: Pool | None
    ) -> tuple[dict[str, list[Float[ndarray, "n"]]], Bool[ndarray, "n"], ndarray]:
        """Signals of each seed, membership and patients of members and of non-members, in this order."""
        per_seed = [fitted.signals(parts, pool) for fitted in self._fitted]
        _, member, patients = per_seed[0]
        return {name: [signals[name] for signals, _, _ in per_seed] for name in per_seed[0][0]}, member, patients

    def score(self, judged: Judged, context: RunContext) -> list[Result]:
        """Lines of :func:`membership_lines` for each signal and for ``worst``; where images have one source,
        ``membership_accuracy_members_only.paper.v1``, too.

        Raises:
            UsageError: ``GM-U311`` before :meth:`fit`, ``GM-U341`` with fewer than two patients, ``GM-U342`` for a
                release of another kind than that of the members.
        """
        if self._asked is None:
            raise UsageError("GM-U311", "the membership attack has not been fitted")
        asked, knowledge = self._asked, self._asked.knowledge
        knowledge.refuse_overlap(judged)
        _refuse_another_kind(asked.members, judged)
        (index,) = _shared_out(judged, (1,), self.seeds[0])
        parts = [(asked.members, asked.scored), (judged, index)]
        pool = Pool.of([asked.members, knowledge.own, knowledge.choice, judged])
        found, member, patients = self._signals(parts, pool)
        control, _, _ = self._signals(parts, None)
        n_blank = len(self._fitted[0].observer.blank)
        as_few, _, _ = self._signals(parts, pool.drawn(n_blank, self.seeds[0]))
        folders = np.array([part.real.cohort[int(i)].folder for part, of in parts for i in of])
        worst = max(self._chosen, key=lambda name: self._chosen[name].found)
        results = []
        for name in found:
            chosen = self._chosen[name]
            signed, without = (
                [sign * scores for sign, scores in zip(chosen.signs, of[name], strict=True)] for of in (found, control)
            )
            extra: dict[str, object] = {
                "sign": chosen.signs,
                "auc_on_choice": round(float(np.mean(chosen.aucs)), 6),
                "auc_within_folder": round(float(np.mean([_auc_within(folders, s, member) for s in signed])), 6),
                "auc_with_equal_pools": round(_mean_auc(chosen.signs, as_few[name], member), 6),
                "pool_sizes": {"released": len(pool.pixels), "without_release": n_blank},
                "attacker_seeds": list(self.seeds),
            }
            for label in [name, "worst"] if name == worst else [name]:
                more = extra | ({"signal": name} if label == "worst" else {})
                results += membership_lines(label, signed, member, patients, context, self.n_boot, more, without)
        if "shadow" in self._fitted[0].models:
            results.append(self._paper_line(asked, judged, index, context))
        return results

    def _paper_line(self, asked: _Asked, judged: Judged, index: Int[ndarray, "n"], context: RunContext) -> Result:
        """GMIA's own figure, as far as it is described: a Shokri attacker of a model that was trained on real images,
        and its accuracy on released images of that model's members."""
        real = asked.members.real.pixels[asked.known]
        images = (asked.members.released_pixels()[asked.known], real, judged.released_pixels()[index])
        called = [self._called_members(fitted, real, images) for fitted in self._fitted]
        patients = asked.members.real.cohort.patient_index[asked.known]
        value = patient_bootstrap_figures(
            shared_statistics(
                [of_seed[0] for of_seed in called],
                lambda yes: lambda weights: (float(np.average(yes, weights=weights)),),
            ),
            patients,
            self.n_boot,
            context.seed,
        )
        return context.result(
            "membership_accuracy_members_only.paper.v1",
            value[0],
            n_patients=len(np.unique(patients)),
            n_images=len(real),
            attacker="shadow",
            extra={
                "accuracy_on_real_members": round(float(np.mean([of_seed[1] for of_seed in called])), 6),
                "released_non_members_called_members": round(float(np.mean([of_seed[2] for of_seed in called])), 6),
                "attacker_seeds": list(self.seeds),
                "why_it_says_nothing": _MEANINGLESS,
            },
        )

    def _called_members(
        self, fitted: _Fitted, learned_from: Pixels, images: Sequence[Pixels]
    ) -> list[Float[ndarray, "n"]]:
        """Whether the shadow attacker calls each image a member of a model that it trains on ``learned_from``."""
        observer = fitted.observer
        target = self.train_shadow(learned_from, fitted.seed)
        usual = observer.answers(observer.blank, target(observer.blank), fitted.non_members.patients)
        answers = (observer.answers(pixels, target(pixels), [""] * len(pixels)) for pixels in images)
        return [(fitted.models["shadow"].score(answer, usual) > 0).astype(np.float64) for answer in answers]


def membership_lines(
    label: str,
    scores: Sequence[Float[ndarray, "n"]],
    member: Bool[ndarray, "n"],
    patients: ndarray,
    context: RunContext,
    n_boot: int,
    extra: dict[str, object],
    without_release: Sequence[Float[ndarray, "n"]] | None = None,
) -> list[Result]:
    """``membership_auc.<label>.v1`` and ``membership_tpr_at_fpr_1pct.<label>.v1``, and both with ``_patient`` after the
    figure for the mean over the images of a patient. The rate is given where at least five of the non-member patients
    are expected to be called members, of whom there must be 500, at either level: their images are not independent.

    Args:
        label: last part of the names, and the attacker.
        scores: of each image, higher for members, by one attacker a seed; figures are means over seeds.
        member: the truth.
        patients: of each image.
        context: what the lines share.
        n_boot: bootstrap resamples.
        extra: of every line.
        without_release: what the scores would be without the release; the mean of their AUCs becomes
            ``auc_without_release`` in ``extra``, of images or of patients as the line is, and the difference to it
            ``membership_gain.<label>.v1``, in [-1, 1], from the same resamples.
    """
    names, first, of = np.unique(patients, return_index=True, return_inverse=True)

    def means(values: Float[ndarray, "n"]) -> Float[ndarray, "p"]:
        return np.asarray(np.bincount(of, values) / np.bincount(of))

    n_members = int(member[first].sum())
    n_others = len(names) - n_members
    extra = extra | {"non_member_patients": n_others, "non_member_patients_needed": _NON_MEMBERS_NEEDED}
    fewer, compared = min(n_members, n_others), [scores] if without_release is None else [scores, without_release]
    lines = []
    for level, at, kind, who in (("", np.asarray, member, patients), ("_patient", means, member[first], names)):
        shared = {"n_patients": len(names), "n_images": len(patients), "attacker": label}
        known = extra | {"members": int(kind.sum()), "non_members": int((~kind).sum())}
        if without_release is not None:
            alone = [SortedScores(at(of_seed), kind).auc() for of_seed in without_release]
            known["auc_without_release"] = round(float(np.mean(alone)), 6)
        rows = [np.stack([at(part) for part in of_seed]) for of_seed in zip(*compared, strict=True)]
        auc, tpr, *gain = patient_bootstrap_figures(
            shared_statistics(rows, lambda both, kind=kind: _figures(both, kind)),
            who,
            n_boot,
            context.seed,
            bounds=[(0.0, 1.0), (0.0, 1.0), (-1.0, 1.0)][: len(compared) + 1],
            n_patients=[fewer, n_members, fewer][: len(compared) + 1],
        )
        lines.append(context.result(f"membership_auc{level}.{label}.v1", auc, extra=known, **shared))
        lines += [context.result(f"membership_gain{level}.{label}.v1", g, extra=known, **shared) for g in gain]
        if n_others < _NON_MEMBERS_NEEDED:
            tpr = Interval(np.nan, np.nan, np.nan)
            known = known | {"reason": f"{n_others} non-member patients, {_NON_MEMBERS_NEEDED} needed"}
        lines.append(context.result(f"membership_tpr_at_fpr_1pct{level}.{label}.v1", tpr, extra=known, **shared))
    return lines


def _figures(rows: Float[ndarray, "k n"], member: Bool[ndarray, "n"]) -> Statistics:
    """AUC, TPR at FPR 1 %, and, of two rows of scores, by how much the AUC is above that of the second."""
    first, *others = (SortedScores(row, member) for row in rows)

    def figures(weights: Float[ndarray, "n"]) -> tuple[float, ...]:
        curve = first.curve(weights)
        auc = curve.auc()
        return auc, curve.tar_at_far(_FPR).value, *(auc - other.auc(weights) for other in others)

    return figures


def _mean_auc(signs: Sequence[float], scores: Sequence[Float[ndarray, "n"]], member: Bool[ndarray, "n"]) -> float:
    """Over seeds, of signed scores."""
    return float(np.mean([SortedScores(sign * s, member).auc() for sign, s in zip(signs, scores, strict=True)]))


def _auc_within(folders: ndarray, scores: Float[ndarray, "n"], member: Bool[ndarray, "n"]) -> float:
    """AUC over the pairs of one folder: folders differ in ways that no system taught them."""
    inside = [folders == name for name in np.unique(folders)]
    pairs = np.array([member[f].sum() * (~member[f]).sum() for f in inside], dtype=np.float64)
    aucs = np.array([SortedScores(scores[f], member[f]).auc() for f in inside])
    return float(np.nansum(aucs * pairs) / pairs.sum()) if pairs.any() else 0.5


def _columns(seen: Observed, model: str) -> Float[ndarray, "n k"]:
    return seen.pair if model == "shadow" else seen.everything


def _refuse_another_kind(members: Judged, part: Judged) -> None:
    if part.release.kind != members.release.kind:
        raise UsageError(
            "GM-U342",
            "the releases of members and of others are of different kinds",
            got=part.release.kind,
            expected=members.release.kind,
            next_step="make all of them with the same system",
        )


def _candidates(judged: Judged) -> Int[ndarray, "n"]:
    """Images that can be asked about: those with a released image, where images have one of their own."""
    paired = judged.release.kind == "one_to_one"
    return np.flatnonzero(judged.released) if paired else np.arange(len(judged.real))


def _shared_out(judged: Judged, shares: Sequence[int], seed: int) -> list[Int[ndarray, "m"]]:
    """Candidates shared out by patient.

    Raises:
        TooLittleDataError: ``GM-U341`` where a part would have fewer than two patients.
    """
    index = _candidates(judged)
    patient = judged.real.cohort.patient_index[index]
    names = np.random.default_rng(seed).permutation(np.unique(patient))
    parts = np.split(names, (np.cumsum(shares) * len(names) // sum(shares))[:-1])
    if min(len(part) for part in parts) < 2:
        raise TooLittleDataError(
            "GM-U341",
            "too few patients for membership",
            got=len(names),
            expected=f"at least {2 * sum(shares)}",
            next_step="release more patients of the roles S, A, V2 and T",
        )
    return [index[np.isin(patient, part)] for part in parts]
