"""Membership: has the system learned from this image? Asked of the anonymizer's own training patients.

Known members are half of the patients of S and known non-members half of those of A, as protocol v1 has it; the sign of
each signal and the worst signal are chosen on a quarter of S against V2; the last quarter of S is scored against T.
The other half of A says what is usual. Signals: :mod:`gmia_monai.attacks.membership_signals`; ``shadow`` is the attack
of Shokri et al. (IEEE S&P 2017), ``supervised`` one that is told the known members.

What the attacker's own encoder remembers of S is no fault of the release. So each line has, as a control, the AUC of
the same signal where the released images are exchanged for real ones of A, and the worst signal is the one that finds
most beyond its control. ``auc_without_release`` in each line is that control: the chance of this very attack, at the
line's own level, images or patients. It need not be 0.5, since members and non-members are different people.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from gmia_monai.attacks.base import AttackerKnowledge, Judged, Pixels
from gmia_monai.attacks.membership_models import AttackModel
from gmia_monai.attacks.membership_observer import Observed, Observer
from gmia_monai.attacks.membership_signals import Pool
from gmia_monai.attacks.shadow import AutoencoderTrainer, Shadow, TrainShadow
from gmia_monai.attacks.training import Schedule
from gmia_monai.errors import UsageError
from gmia_monai.metrics.intervals import patient_bootstrap
from gmia_monai.metrics.limits import Interval, rate_interval
from gmia_monai.metrics.results import Result, RunContext
from gmia_monai.metrics.verification import SortedScores

__all__ = ["MembershipAttack", "membership_lines"]

Part = tuple[Judged, Int[ndarray, "n"]]
"""A release and the positions of the real images that are asked about."""

_MEANINGLESS = (
    "members only, as published: an attacker that calls every image a non-member scores 0, too, and so does one that "
    "is blind to released images; no figure of privacy"
)


@dataclass(frozen=True)
class _Chosen:
    """What the choice said of a signal: its sign, its AUC, and its AUC without the release."""

    sign: float
    auc: float
    control: float

    @property
    def found(self) -> float:
        """How much further from chance the signal is than its control."""
        return abs(self.auc - 0.5) - abs(self.control - 0.5)


@dataclass(frozen=True, eq=False)
class _Fitted:
    """What is left of the fit: who is asked about, who looks, and who learned."""

    knowledge: AttackerKnowledge
    members: Judged
    known: Int[ndarray, "n"]
    scored: Int[ndarray, "m"]
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


class MembershipAttack:
    """Membership in the training set of the judged system, by loss, nearest released image and attack models.

    Args:
        seed: of the shadows and of how patients are shared out.
        n_boot: bootstrap resamples.
        schedule: how long the default shadows are trained.
        device: where they are.
        train_shadow: trains a shadow; give the judged system's own training. None: a small auto-encoder.
        n_shadows: shadow models; even, at least 4.
    """

    name = "membership"

    def __init__(
        self,
        seed: int = 0,
        n_boot: int = 500,
        schedule: Schedule | None = None,
        device: str = "cpu",
        train_shadow: TrainShadow | None = None,
        n_shadows: int = 4,
    ) -> None:
        default = AutoencoderTrainer(device=device) if schedule is None else AutoencoderTrainer(schedule, device=device)
        self.seed = seed
        self.n_boot = n_boot
        self.train_shadow: TrainShadow = train_shadow or default
        self.n_shadows = n_shadows
        self._fitted: _Fitted | None = None
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
        paired = members.release.kind == "one_to_one"
        known, to_choose, scored = _shared_out(members, (2, 1, 1), self.seed)
        known_not, usual = _shared_out(own, (1, 1), self.seed)
        shadows = Shadow.train_all(own.real, self.train_shadow, self.n_shadows, self.seed) if paired else ()
        blank, reference = own.real.pixels[known_not], own.real.pixels[usual]
        observer = Observer(knowledge.frozen, shadows, reference, blank, self.seed)
        pool = Pool.of([members, own, choice])
        seen, seen_not = observer.observe(members, known, pool), observer.observe(own, known_not, pool)
        both = np.concatenate([seen.everything, seen_not.everything])
        models = {"supervised": AttackModel().fit([(both, np.arange(len(both)) < len(known))])}
        if paired:
            models["shadow"] = AttackModel().fit(observer.shadow_examples(own.real))
        self._fitted = _Fitted(knowledge, members, known, scored, observer, seen_not, models)
        parts = [(members, to_choose), (choice, _candidates(choice))]
        signals, member, _ = self._fitted.signals(parts, pool)
        control, _, _ = self._fitted.signals(parts, None)
        self._chosen = {}
        for name, scores in signals.items():
            auc, without = (SortedScores(s, member).auc() for s in (scores, control[name]))
            self._chosen[name] = _Chosen(1.0 if auc >= 0.5 else -1.0, auc, without)

    def score(self, judged: Judged, context: RunContext) -> list[Result]:
        """Lines of :func:`membership_lines` for each signal and for ``worst``; where images have one source,
        ``membership_accuracy_members_only.paper.v1``, too.

        Raises:
            UsageError: ``GM-U311`` before :meth:`fit`, ``GM-U341`` with fewer than two patients, ``GM-U342`` for a
                release of another kind than that of the members.
        """
        if self._fitted is None:
            raise UsageError("GM-U311", "the membership attack has not been fitted")
        fitted = self._fitted
        fitted.knowledge.refuse_overlap(judged)
        _refuse_another_kind(fitted.members, judged)
        (index,) = _shared_out(judged, (1,), self.seed)
        parts = [(fitted.members, fitted.scored), (judged, index)]
        pool = Pool.of([fitted.members, fitted.knowledge.own, fitted.knowledge.choice, judged])
        signals, member, patients = fitted.signals(parts, pool)
        control, _, _ = fitted.signals(parts, None)
        folders = np.array([part.real.cohort[int(i)].folder for part, asked in parts for i in asked])
        worst = max(self._chosen, key=lambda name: self._chosen[name].found)
        results = []
        for name, scores in signals.items():
            chosen = self._chosen[name]
            extra: dict[str, object] = {
                "sign": chosen.sign,
                "auc_on_choice": round(chosen.auc, 6),
                "auc_within_folder": round(_auc_within(folders, chosen.sign * scores, member), 6),
            }
            for label in [name, "worst"] if name == worst else [name]:
                more = extra | ({"signal": name} if label == "worst" else {})
                signed, without = chosen.sign * scores, chosen.sign * control[name]
                results += membership_lines(label, signed, member, patients, context, self.n_boot, more, without)
        if "shadow" in fitted.models:
            results.append(self._paper_line(fitted, judged, index, context))
        return results

    def _paper_line(self, fitted: _Fitted, judged: Judged, index: Int[ndarray, "n"], context: RunContext) -> Result:
        """GMIA's own figure, as far as it is described: a Shokri attacker of a model that was trained on real images,
        and its accuracy on released images of that model's members."""
        observer, known = fitted.observer, fitted.non_members.patients
        target = self.train_shadow(fitted.members.real.pixels[fitted.known], self.seed)
        non_members = observer.answers(observer.blank, target(observer.blank), known)

        def called_members(pixels: Pixels) -> Float[ndarray, "n"]:
            answers = observer.answers(pixels, target(pixels), [""] * len(pixels))
            return (fitted.models["shadow"].score(answers, non_members) > 0).astype(np.float64)

        patients = fitted.members.real.cohort.patient_index[fitted.known]
        called = called_members(fitted.members.released_pixels()[fitted.known])
        value = patient_bootstrap(lambda w: float(np.average(called, weights=w)), patients, self.n_boot, context.seed)
        return context.result(
            "membership_accuracy_members_only.paper.v1",
            value,
            n_patients=len(np.unique(patients)),
            n_images=len(called),
            attacker="shadow",
            extra={
                "accuracy_on_real_members": round(
                    float(called_members(fitted.members.real.pixels[fitted.known]).mean()), 6
                ),
                "released_non_members_called_members": round(
                    float(called_members(judged.released_pixels()[index]).mean()), 6
                ),
                "why_it_says_nothing": _MEANINGLESS,
            },
        )


def membership_lines(
    label: str,
    scores: Float[ndarray, "n"],
    member: Bool[ndarray, "n"],
    patients: ndarray,
    context: RunContext,
    n_boot: int,
    extra: dict[str, object],
    without_release: Float[ndarray, "n"] | None = None,
) -> list[Result]:
    """``membership_auc.<label>.v1`` and ``membership_tpr_at_fpr_1pct.<label>.v1``, and both with ``_patient`` after the
    figure for the mean over the images of a patient.

    Args:
        label: last part of the names, and the attacker.
        scores: of each image, higher for members.
        member: the truth.
        patients: of each image.
        context: what the lines share.
        n_boot: bootstrap resamples.
        extra: of every line.
        without_release: what the scores would be without the release; their AUC becomes ``auc_without_release`` in
            ``extra``, of images or of patients as the line is.
    """
    names, first, of = np.unique(patients, return_index=True, return_inverse=True)

    def means(values: Float[ndarray, "n"]) -> Float[ndarray, "p"]:
        return np.asarray(np.bincount(of, values) / np.bincount(of))

    lines = []
    for level, at, kind, who in (("", np.asarray, member, patients), ("_patient", means, member[first], names)):
        values = at(scores)
        table = SortedScores(values, kind)
        shared = {"n_patients": len(names), "n_images": len(scores), "attacker": label}
        known = extra | {"members": int(kind.sum()), "non_members": int((~kind).sum())}
        if without_release is not None:
            known["auc_without_release"] = round(SortedScores(at(without_release), kind).auc(), 6)
        auc = patient_bootstrap(table.auc, who, n_boot, context.seed)
        lines.append(context.result(f"membership_auc{level}.{label}.v1", auc, extra=known, **shared))
        tpr = Interval(np.nan, np.nan, np.nan)
        reason = table.tar_at_far(0.01).reason
        if reason is None:
            tpr = patient_bootstrap(lambda w, t=table: t.tar_at_far(0.01, w, 0.0).value, who, n_boot, context.seed)
            tpr = rate_interval(tpr, len(np.unique(who[kind])))
        else:
            known = known | {"reason": reason}
        lines.append(context.result(f"membership_tpr_at_fpr_1pct{level}.{label}.v1", tpr, extra=known, **shared))
    return lines


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
        UsageError: ``GM-U341`` where a part would have fewer than two patients.
    """
    index = _candidates(judged)
    patient = judged.real.cohort.patient_index[index]
    names = np.random.default_rng(seed).permutation(np.unique(patient))
    parts = np.split(names, (np.cumsum(shares) * len(names) // sum(shares))[:-1])
    if min(len(part) for part in parts) < 2:
        raise UsageError(
            "GM-U341",
            "too few patients for membership",
            got=len(names),
            expected=f"at least {2 * sum(shares)}",
            next_step="release more patients of the roles S, A, V2 and T",
        )
    return [index[np.isin(patient, part)] for part in parts]
