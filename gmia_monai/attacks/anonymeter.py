"""Singling out, linkability and inference as Anonymeter frames them (Giomi et al., PoPETs 2023(2):312), on images.

Each attack makes one guess a patient three times: on patients whose images the release was made from (main), on
patients of V2 whom it has never seen (control), and without the release (baseline). The risk is what main wins beyond
control: see :mod:`gmia_monai.metrics.privacy_risk`. As in the paper, the attacker holds records of the original data,
so that a released image may have been made from the very image held (threat model T2).

============  ========================================  ============================================================
risk          table of attributes                       images
============  ========================================  ============================================================
singling out  a predicate from the synthetic data        "one person alone is nearer to this released image than so
              matches one record alone                  much": its nearest neighbour among the attacker's own real
                                                        images, and a margin that isolates most on V2
linkability   two parts of a record have a common       the released image of a person is among the ``NEIGHBOURS``
              nearest synthetic neighbour               nearest to another real image of theirs; for a stranger, that of
                                                        who is most alike in folder, sex, view and age is looked for
inference     a secret is read off the nearest          sex, age band, view or any finding is read off the record of
              synthetic record                          the released image that is nearest to a real one
============  ========================================  ============================================================

Linkability departs from the table: two images of a stranger have common neighbours, too, since they resemble one
another, so that the paper's form would find no risk in an unchanged release. Near is what the attacker's score says,
with the sign that it has on V2.

Attackers have several seeds, which the paper's have not: each makes its own attempts, and the risk is the mean over
them. All ask about the same patients, so averaging makes the propagated Wilson intervals no narrower: their mean width
is kept, and the standard error of the mean over so few seeds, times Student's t, is added to it in quadrature.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from gmia_monai.attacks.attackers.base import EmbeddingAttacker
from gmia_monai.attacks.attribute import attribute_classes
from gmia_monai.attacks.base import AttackerKnowledge, Judged, TooLittleDataError
from gmia_monai.attacks.pool import AttackerPool
from gmia_monai.attacks.seeds import checked_seeds
from gmia_monai.data.cohort import Cohort
from gmia_monai.data.release import RealImages
from gmia_monai.errors import UsageError
from gmia_monai.metrics.limits import Interval, SeedError
from gmia_monai.metrics.privacy_risk import Attempts, residual_risk
from gmia_monai.metrics.results import Result, RunContext

__all__ = ["AnonymeterAttack", "distinct_guesses", "isolated", "linked", "mean_risk", "secrets"]

NEIGHBOURS = 5
_MARGINS = 41
Sides = tuple[Attempts, Attempts, Attempts]
"""Main, control and baseline."""


def isolated(
    similarity: Float[np.ndarray, "r n"], patient: Int[np.ndarray, "n"], threshold: Float[np.ndarray, "r"]
) -> Int[np.ndarray, "r"]:
    """The only patient who has an image above each predicate's threshold; -1 where there is none, or several."""
    names, number = np.unique(patient, return_inverse=True)
    best = np.full((len(similarity), len(names)), -np.inf)
    for image, p in enumerate(number):
        best[:, p] = np.maximum(best[:, p], similarity[:, image])
    above = best > threshold[:, None]
    return np.where(above.sum(axis=1) == 1, names[above.argmax(axis=1)], -1)


def distinct_guesses(isolated: Int[np.ndarray, "r"]) -> Attempts:
    """Predicates that isolate the same patient are one guess: where released images tell nothing, all are the same
    predicate, and its luck would count as often as there are images."""
    right = len(np.unique(isolated[isolated >= 0]))
    return Attempts(right, right + int((isolated < 0).sum()))


def linked(
    similarity: Float[np.ndarray, "p r"], record: Int[np.ndarray, "p"], k: int = NEIGHBOURS
) -> Bool[np.ndarray, "p"]:
    """Whether the record of each row is among its ``k`` nearest."""
    own = similarity[np.arange(len(record)), record]
    return np.asarray((similarity > own[:, None]).sum(axis=1) < k)


def secrets(cohort: Cohort) -> dict[str, Int[np.ndarray, "n"]]:
    """Classes of each image: sex, view, age band, and whether any finding is present; -1 where not known."""
    known = np.array([record.labels is not None for record in cohort], dtype=bool)
    present = (cohort.label_matrix() == 1).any(axis=1)
    return attribute_classes(cohort) | {"finding": np.where(known, present, -1).astype(np.int64)}


class AnonymeterAttack:
    """The three risks under each attacker that embeds images.

    Args:
        attackers: those of them that embed images are used.
        seeds: each of the attackers, of the images that are held of each patient and of the baselines; risks are means
            over them.

    Raises:
        UsageError: ``GM-U316`` without a seed.
    """

    name = "anonymeter"

    def __init__(self, attackers: AttackerPool, seeds: Sequence[int] = (0, 1, 2)) -> None:
        self.attackers = attackers
        self.seeds = checked_seeds(seeds)
        self._fitted: list[dict[str, EmbeddingAttacker]] = []
        self._chosen: list[dict[str, tuple[float, float]]] = []
        self._knowledge: AttackerKnowledge | None = None

    def fit(self, knowledge: AttackerKnowledge) -> None:
        """Fits the attackers; chooses sign and margin on V2 releases.

        Raises:
            TooLittleDataError: ``GM-U356`` where these have fewer than two source patients.
        """
        self._knowledge = knowledge
        self._fitted = [self.attackers.embedding(seed, knowledge) for seed in self.seeds]
        self._chosen = [
            {name: self._choose(attacker, knowledge) for name, attacker in attackers.items()}
            for attackers in self._fitted
        ]

    def score(self, judged: Judged, context: RunContext) -> list[Result]:
        """``anonymeter_singling_out_risk``, ``anonymeter_linkability_risk`` and
        ``anonymeter_inference_risk.<secret>``, each ``.<attacker>.v1``; the rates are beside them.

        Raises:
            UsageError: ``GM-U311`` before :meth:`fit`.
            TooLittleDataError: ``GM-U356`` where the release has fewer than two source patients.
        """
        if self._knowledge is None:
            raise UsageError("GM-U311", "the anonymeter attack has not been fitted")
        self._knowledge.refuse_overlap(judged)
        sources = {p for patients in judged.release.source_patients(judged.real.cohort) for p in patients}
        if len(sources) < 2:
            raise TooLittleDataError("GM-U356", "too few patients behind the release", got=len(sources))
        inside = np.isin(judged.real.cohort.patient_index, sorted(sources))
        main, control = judged.real.take(np.flatnonzero(inside)), self._knowledge.choice.real
        results = []
        for name in self._fitted[0]:
            found: dict[str, list[Sides]] = {}
            for seed, attackers, chosen in zip(self.seeds, self._fitted, self._chosen, strict=True):
                sign, margin = chosen[name]
                space = _Space(attackers[name], sign, judged, seed)
                risks = {"singling_out_risk": self._singling_out(space, margin, judged, main, control)}
                risks["linkability_risk"] = self._linkability(space, judged, control)
                for secret, attempts in self._inference(space, judged, main, control).items():
                    risks[f"inference_risk.{secret}"] = attempts
                for figure, attempts in risks.items():
                    found.setdefault(figure, []).append(attempts)
            extra = {"attacker_seeds": list(self.seeds), "signs": [chosen[name][0] for chosen in self._chosen]}
            for figure, per_seed in found.items():
                results.append(_line(f"anonymeter_{figure}.{name}.v1", name, per_seed, judged, context, extra))
        return results

    # -- singling out ------------------------------------------------------------------------------------------------
    def _choose(self, attacker: EmbeddingAttacker, knowledge: AttackerKnowledge) -> tuple[float, float]:
        """Sign and margin that isolate the right patient most often on V2."""
        choice = knowledge.choice
        patients = choice.release.source_patients(choice.real.cohort)
        images = _one_image_each(patients, set().union(*patients))
        if len(images) < 2:
            raise TooLittleDataError("GM-U356", "too few patients behind the release of V2", got=len(images))
        released = _embed(attacker, "released", choice.release.pixels[images])
        similarity = attacker.compare_all(released, attacker.embeddings(choice)[1])
        own = np.array([np.isin(choice.real.cohort.patient_index, sorted(patients[i])) for i in images])
        # The sign under which sources stand nearer than strangers do.
        place = np.mean([(row[~mine] < row[mine].mean()).mean() for row, mine in zip(similarity, own, strict=True)])
        sign = 1.0 if place >= 0.5 else -1.0
        stranger = np.where(own, -np.inf, sign * similarity).max(axis=1)
        mine = np.where(own, sign * similarity, -np.inf).max(axis=1)
        reference = self._reference(attacker, sign, released, knowledge)
        above, below = mine - reference, stranger - reference
        margins = np.quantile(np.concatenate([above, below]), np.linspace(0, 1, _MARGINS))
        isolated = [((above > margin) & (below <= margin)).mean() for margin in margins]
        return sign, float(margins[int(np.argmax(isolated))])

    @staticmethod
    def _reference(
        attacker: EmbeddingAttacker, sign: float, released: np.ndarray, knowledge: AttackerKnowledge
    ) -> Float[np.ndarray, "r"]:
        """How near the nearest of the attacker's own real images is to each released one."""
        _, own = attacker.embeddings(knowledge.own)
        return np.asarray((sign * attacker.compare_all(released, own)).max(axis=1))

    def _singling_out(
        self, space: _Space, margin: float, judged: Judged, main: RealImages, control: RealImages
    ) -> Sides:
        """As many predicates as both sides have patients, asked of as many patients of either side."""
        assert self._knowledge is not None
        n = min(len(main.cohort.patients), len(control.cohort.patients))
        sides = [_of_patients(side, n, space.seed) for side in (main, control)]
        kept = {judged.real.cohort.patients.index(name) for name in sides[0].cohort.patients}
        images = _one_image_each(judged.release.source_patients(judged.real.cohort), kept)
        released = space.released[images]
        threshold = self._reference(space.attacker, space.sign, released, self._knowledge) + margin
        found = [
            isolated(space.compare(released, space.embed(side)), side.cohort.patient_index, threshold) for side in sides
        ]
        # Without the release: balls about the attacker's own real images, with the same rule.
        rng = np.random.default_rng(space.seed)
        _, own = space.attacker.embeddings(self._knowledge.own)
        drawn = rng.integers(0, len(own), len(images))
        between = space.compare(own[drawn], own)
        patient = self._knowledge.own.real.cohort.patient_index
        between[patient[drawn][:, None] == patient[None]] = -np.inf
        naive = isolated(
            space.compare(own[drawn], space.embed(sides[0])),
            sides[0].cohort.patient_index,
            between.max(axis=1) + margin,
        )
        main_found, control_found = (distinct_guesses(f) for f in found)
        return main_found, control_found, distinct_guesses(naive)

    # -- linkability -------------------------------------------------------------------------------------------------
    def _linkability(self, space: _Space, judged: Judged, control: RealImages) -> Sides:
        real, n = judged.real, len(space.released)
        image_of = {source: i for i, sources in reversed(list(enumerate(judged.release.sources))) for source in sources}
        known = np.array([source in image_of for source in range(len(real))], dtype=bool)
        pairs = _two_each(real.cohort, space.seed)
        pairs = pairs[known[pairs[:, 0]]]
        similarity = space.compare(space.embed(real)[pairs[:, 1]], space.released)
        # The release of the very image held would be in the way of the other.
        for row, held in enumerate(pairs[:, 1].tolist()):
            similarity[row, [i for i, sources in enumerate(judged.release.sources) if held in sources]] = -np.inf
        records = np.array([image_of[source] for source in pairs[:, 0].tolist()], dtype=np.int64)
        main = _attempts(linked(similarity, records))

        strangers = _two_each(control.cohort, space.seed)
        similarity = space.compare(space.embed(control)[strangers[:, 1]], space.released)
        sources = np.flatnonzero(known)
        alike = _most_alike(control.cohort[strangers[:, 0]], real.cohort[sources])
        stand_ins = np.array([image_of[source] for source in sources[alike].tolist()], dtype=np.int64)
        guesses = np.random.default_rng(space.seed).random(main.trials) < NEIGHBOURS / max(n, 1)
        return main, _attempts(linked(similarity, stand_ins)), _attempts(guesses)

    # -- inference ---------------------------------------------------------------------------------------------------
    def _inference(self, space: _Space, judged: Judged, main: RealImages, control: RealImages) -> dict[str, Sides]:
        """The record of a released image is that of its first source."""
        first = np.array([s[0] if s else -1 for s in judged.release.sources])
        shown = {k: np.where(first < 0, -1, v[first]) for k, v in secrets(judged.real.cohort).items()}
        right: dict[str, list[np.ndarray]] = {name: [] for name in shown}
        prior: dict[str, np.ndarray] = {}
        for side in (main, control):
            rows = _one_each(side.cohort, np.arange(len(side)), space.seed)
            nearest = space.compare(space.embed(side)[rows], space.released).argmax(axis=1)
            for name, truth in secrets(side.cohort).items():
                guess, truth = shown[name][nearest], truth[rows]
                asked = truth >= 0
                right[name].append((guess == truth)[asked])
                if side is main:
                    prior[name] = (truth == _most_frequent(shown[name]))[asked]
        return {
            name: (_attempts(hits[0]), _attempts(hits[1]), _attempts(prior[name]))
            for name, hits in right.items()
            if len(hits[0]) and len(hits[1])
        }


def _most_frequent(classes: Int[np.ndarray, "n"]) -> int:
    """The class that most records have; -1, which is no class, where none is known."""
    known = classes[classes >= 0]
    return int(np.bincount(known).argmax()) if len(known) else -1


class _Space:
    """A release as one attacker sees it; higher is nearer."""

    def __init__(self, attacker: EmbeddingAttacker, sign: float, judged: Judged, seed: int) -> None:
        self.attacker, self.sign, self.seed = attacker, sign, seed
        self.released = _embed(attacker, "released", judged.release.pixels)
        self._kept: dict[str, np.ndarray] = {}

    def embed(self, real: RealImages) -> np.ndarray:
        """Embeddings of real images."""
        if real.content_hash not in self._kept:
            self._kept[real.content_hash] = _embed(self.attacker, "real", real.pixels)
        return self._kept[real.content_hash]

    def compare(self, left: np.ndarray, right: np.ndarray) -> Float[np.ndarray, "n m"]:
        """Nearness of each with each."""
        return self.sign * self.attacker.compare_all(left, right)


def _embed(attacker: EmbeddingAttacker, side: str, pixels: np.ndarray) -> np.ndarray:
    embed = attacker.embed_released if side == "released" else attacker.embed_real
    if embed is None:
        raise UsageError("GM-U311", f"attacker {attacker.name} has not been fitted")
    return embed(pixels)


def _one_image_each(sources: Sequence[set[int]], patients: set[int]) -> list[int]:
    """Released images, each for a patient of its own among its sources; one image of each patient at most."""
    images, used = [], set()
    for i, of_image in enumerate(sources):
        new = sorted((of_image & patients) - used)
        if new:
            used.add(new[0])
            images.append(i)
    return images


def _of_patients(real: RealImages, n: int, seed: int) -> RealImages:
    """Images of ``n`` patients, drawn at random."""
    drawn = np.random.default_rng(seed).permutation(len(real.cohort.patients))[:n]
    return real.take(np.flatnonzero(np.isin(real.cohort.patient_index, drawn)))


def _one_each(cohort: Cohort, among: Int[np.ndarray, "m"], seed: int) -> Int[np.ndarray, "p"]:
    """One of the images of each patient, drawn at random."""
    drawn = np.random.default_rng(seed).permutation(among)
    _, first = np.unique(cohort.patient_index[drawn], return_index=True)
    return drawn[first]


def _two_each(cohort: Cohort, seed: int) -> Int[np.ndarray, "p 2"]:
    """Two images of each patient who has several in one folder, drawn at random."""
    drawn = np.random.default_rng(seed).permutation(len(cohort)).tolist()
    images: dict[tuple[int, str], list[int]] = {}
    for i in drawn:
        images.setdefault((int(cohort.patient_index[i]), cohort[i].folder), []).append(i)
    pairs = {patient: found[:2] for (patient, _), found in images.items() if len(found) > 1}
    return np.array(list(pairs.values()), dtype=np.int64).reshape(-1, 2)


def _most_alike(cohort: Cohort, among: Cohort) -> Int[np.ndarray, "n"]:
    """For each record the position of another of the same folder, sex and view, in this order, and nearest in age."""
    distance = np.abs(np.nan_to_num(cohort.ages)[:, None] - np.nan_to_num(among.ages)[None])
    for weight, name in ((1e9, "folder"), (1e6, "sex"), (1e3, "view")):
        one, two = (np.array([getattr(record, name) for record in side]) for side in (cohort, among))
        distance = distance + weight * (one[:, None] != two[None])
    return np.asarray(distance.argmin(axis=1))


def _attempts(right: np.ndarray) -> Attempts:
    right = np.asarray(right, dtype=bool)
    return Attempts(int(right.sum()), len(right))


def mean_risk(risks: Sequence[Interval]) -> Interval:
    """Mean over seeds of the risk in [0, 1], from the interval of each; see the head of this file for its limits."""
    value, low, high = np.mean(risks, axis=0).tolist()
    n = len(risks)
    spread = float(np.std([risk.value for risk in risks], ddof=1)) if n > 1 else 0.0
    off = SeedError(spread / math.sqrt(n), n).margin(0.95)
    low, high = value - math.hypot(value - low, off), value + math.hypot(high - value, off)
    return Interval(value, max(low, 0.0), min(high, 1.0))


def _line(
    name: str,
    attacker: str,
    per_seed: Sequence[Sides],
    judged: Judged,
    context: RunContext,
    extra: dict[str, object],
) -> Result:
    """``main``, ``control`` and ``baseline`` in ``extra`` hold one entry a seed."""
    rates: dict[str, object] = {}
    for kind, of_seeds in zip(("main", "control", "baseline"), zip(*per_seed, strict=True), strict=True):
        rates[kind] = {
            "right": [a.successes for a in of_seeds],
            "guesses": [a.trials for a in of_seeds],
            "rate": [[_short(x) for x in a.rate()] for a in of_seeds],
        }
    # The paper: a risk of an attack that is no better than guessing is not to be relied on.
    main, baseline = (np.mean([sides[i].rate().value for sides in per_seed]) for i in (0, 2))
    return context.result(
        name,
        mean_risk([residual_risk(found, control) for found, control, _ in per_seed]),
        n_patients=min(found.trials + control.trials for found, control, _ in per_seed),
        n_images=len(judged.release),
        attacker=attacker,
        extra=extra | rates | {"n_seeds": len(per_seed), "better_than_baseline": bool(main > baseline)},
    )


def _short(value: float) -> float | None:
    return round(value, 6) if np.isfinite(value) else None
