"""Utility by transfer: train on the release and test on real images, train on real ones and test on the release.

Beside either stands the classifier of *the same image list*, real, with the same seeds, tested on the same patients.
The loss is the difference of the two, real minus released, seed by seed. Its interval draws test patients, the same
ones for both arms, so that what they share cancels, and counts in what five seeds leave open: non-inferiority at a
margin is an upper limit below the margin.
Checkpoints and thresholds are chosen on real images of the choice role (V2). An uncertain label teaches as absent, and
neither chooses nor tests anything.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from gmia_monai.attacks.attribute import attribute_classes
from gmia_monai.attacks.base import Judged, TooLittleDataError
from gmia_monai.data.cohort import Cohort
from gmia_monai.data.release import RealImages
from gmia_monai.data.roles import check_disjoint
from gmia_monai.errors import UsageError
from gmia_monai.evaluation.arms import Arm, arm_lines, loss_lines
from gmia_monai.evaluation.classifiers import ClassifierStore, LabelledImages, TransferRecipe
from gmia_monai.metrics.differences import draws_of
from gmia_monai.metrics.intervals import patient_counts
from gmia_monai.metrics.results import Result, RunContext
from gmia_monai.metrics.verification import best_threshold_f1
from gmia_monai.typing import PathLike

__all__ = ["PAPER_LABELS", "TransferRecipe", "evaluate_transfer", "labelled", "labels_of_release", "real_list"]

_log = logging.getLogger(__name__)

# Lung Opacity, Atelectasis, Pleural Effusion and Support Devices, as sources name them.
PAPER_LABELS = ("Lung Opacity", "Atelectasis", "Pleural Effusion", "Effusion", "Support Devices")
SUBGROUPS = {
    "sex": ("sex_F", "sex_M"),
    "age": ("age_under_40", "age_40_59", "age_60_up"),
    "view": ("view_AP", "view_PA"),
}
_SUBGROUP_POSITIVES = 10
_UNCERTAIN = "ignore"  # of choice and test lists: what nobody is sure of is no truth to be scored by


def labels_of_release(
    judged: Judged, findings: Sequence[str], uncertain: str = "zeros"
) -> Float[np.ndarray, "n k"] | None:
    """Findings of the released images: those released with them, or those that half of the sources or more have.

    ``nan`` where unknown, also for findings that a release does not name. None where a generated release has none.
    ``uncertain`` is what becomes of a source's uncertain label, see :func:`gmia_monai.data.labels.label_matrix`.
    """
    release = judged.release
    table = np.full((len(release), len(findings)), np.nan)
    if release.labels is not None:
        for k, name in enumerate(findings):
            if name in release.findings:
                table[:, k] = release.labels[:, release.findings.index(name)]
        return table
    if release.kind == "generated":
        return None
    own = judged.real.cohort.label_matrix(findings, uncertain).astype(np.float64)
    for i, source in enumerate(release.sources):
        labels = own[list(source)]
        known = (~np.isnan(labels)).sum(axis=0)
        table[i, known > 0] = (np.nansum(labels, axis=0)[known > 0] / known[known > 0]) >= 0.5
    return table


def labelled(real: RealImages, findings: Sequence[str], uncertain: str = "zeros") -> LabelledImages:
    """Real images with their own findings."""
    return LabelledImages(real.pixels, real.cohort.label_matrix(findings, uncertain))


def real_list(training: Judged) -> LabelledImages:
    """The real images behind a training release, with the findings of its cohort: what the other arm learns from."""
    behind = _Matched.of(training).sources
    own = training.real.cohort.label_matrix(training.real.cohort.findings or ())
    return LabelledImages(training.real.pixels[behind], own[behind])


def evaluate_transfer(
    training: Judged,
    judged: Judged,
    choice: RealImages,
    recipes: Sequence[TransferRecipe],
    context: RunContext,
    *,
    cache_dir: PathLike,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    min_positives: int = 30,
    n_boot: int = 500,
    device: str = "cpu",
) -> list[Result]:
    """Trains and tests classifiers in both directions; goes on where an earlier call with the same folder stopped.

    Args:
        training: release of the training list (3,000 images of role S).
        judged: release of the test role.
        choice: real images of role V2.
        recipes: one an architecture.
        context: what the result lines share.
        cache_dir: folder of what classifiers said, shared by all releases; see :class:`ClassifierStore`.
        seeds: of the classifiers.
        min_positives: positive test images that a finding needs to be scored.
        n_boot: resamples of test patients.
        device: where networks run.

    Returns:
        For each direction ``real_to_real``, ``released_to_real``, ``real_to_released`` and each architecture the lines
        of :func:`gmia_monai.evaluation.arms.arm_lines` with the part ``<direction>.<architecture>``; for the two with a
        release those of :func:`gmia_monai.evaluation.arms.loss_lines`, too, and
        ``utility_macro_auroc_loss.<direction>.<architecture>.<subgroup>.v1`` of images with one patient. A training
        release without labels has a line without a value; without labels of the test release the third direction is
        left out; without labels of either that line is all, and nothing is trained.

    Raises:
        UsageError: ``GM-U347`` without a recipe or a seed, or for two of a kind; ``GM-U348`` where images differ in
            size; ``GM-U349`` where no finding has enough positives to choose by, or to be scored.
        ManifestError: ``GM-M032``, ``GM-M033``, ``GM-M037`` where training, choice and test share a patient or an
            image.
    """
    names = [recipe.architecture for recipe in recipes]
    if not names or not len(seeds) or len(set(names)) < len(names) or len(set(seeds)) < len(seeds):
        raise UsageError("GM-U347", "no recipe or seed, or one of them twice", got=f"{names}, seeds {list(seeds)}")
    check_disjoint({"training": training.real.cohort, "choice": choice.cohort, "judged": judged.real.cohort})
    trial = _Trial(training, judged, choice, tuple(seeds), n_boot, context.seed)
    store = ClassifierStore(cache_dir, trial.choice, device)
    if not trial.test.enough(min_positives).any():
        raise TooLittleDataError(
            "GM-U349", "no finding has enough positive test images", expected=f"at least {min_positives} of one"
        )
    results: list[Result] = []
    for i, recipe in enumerate(recipes):
        arms = trial.arms(store, recipe, len(recipes) - i - 1)
        results += trial.lines(arms, recipe.architecture, min_positives, context)
    return results


@dataclass(frozen=True, eq=False)
class _Matched:
    """A release as two lists: its images, and the real ones behind them; in the same order where each has one source.

    Attributes:
        images: positions of the released images that have a source; all of a generated release.
        sources: positions of the real images behind them; all where the release is generated.
        paired: whether both lists have the same order.
    """

    images: Int[np.ndarray, "n"]
    sources: Int[np.ndarray, "m"]
    paired: bool

    @classmethod
    def of(cls, judged: Judged) -> _Matched:
        release = judged.release
        if release.kind == "one_to_one":
            pairs = np.array(sorted(release.image_of_source.items()), dtype=np.int64)
            return cls(pairs[:, 1], pairs[:, 0], True)
        if release.kind == "generated":
            return cls(np.arange(len(release)), np.arange(len(judged.real)), False)
        images = [i for i, source in enumerate(release.sources) if source]
        named = sorted({i for source in release.sources for i in source})
        return cls(np.array(images, dtype=np.int64), np.array(named, dtype=np.int64), False)


class _Trial:
    """Lists, labels and resamples, the same for all architectures."""

    def __init__(
        self, training: Judged, judged: Judged, choice: RealImages, seeds: tuple[int, ...], n_boot: int, seed: int
    ) -> None:
        self.seeds = seeds
        self.findings = tuple(training.real.cohort.findings or ())
        self.paper = np.array([name in PAPER_LABELS for name in self.findings], dtype=bool)
        learned, labels = _Matched.of(training), labels_of_release(training, self.findings)
        self.real = real_list(training)
        self.released: LabelledImages | None = None
        if labels is not None:
            pixels = training.release.pixels[learned.images]
            self.released = LabelledImages(pixels, labels[learned.images].astype(np.float32))
        self.choice = labelled(choice, self.findings, _UNCERTAIN)
        self.judged, self.tested = judged, _Matched.of(judged)
        cohort, release = judged.real.cohort, judged.release
        self.draws = draws_of(cohort.patients, seed)
        counts = patient_counts(len(cohort.patients), n_boot, seed)[:, cohort.patient_index]
        self.test = self._arm(cohort.label_matrix(self.findings, _UNCERTAIN), counts, cohort.patient_index)
        self.released_test: Arm | None = None
        test_labels = labels_of_release(judged, self.findings, _UNCERTAIN)
        if test_labels is None:
            _log.info("%s: no labels of the test release, which no classifier is tested on", release.system)
            return
        if release.kind == "generated":  # no patients: each image is drawn by itself, and nothing pairs it
            weights = patient_counts(len(release), n_boot, seed + 2)
        else:
            behind = [list(release.sources[i]) for i in self.tested.images]
            weights = np.stack([counts[:, source].mean(axis=1) for source in behind], axis=1)
        patients = cohort.patient_index[self.tested.sources] if self.tested.paired else None
        self.released_test = self._arm(test_labels[self.tested.images], weights, patients)

    def _arm(
        self,
        labels: Float[np.ndarray, "n k"],
        weights: Float[np.ndarray, "rows n"],
        patients: Int[np.ndarray, "n"] | None,
    ) -> Arm:
        """A test list to which no classifier has said anything yet."""
        unsaid = np.zeros((len(self.seeds), *labels.shape))
        return Arm(unsaid, labels, unsaid[:, 0], weights, patients, self.findings)

    def arms(self, store: ClassifierStore, recipe: TransferRecipe, n_later: int) -> dict[str, Arm]:
        """The classifiers of all seeds on their test lists, by direction; ``n_later`` architectures are to come."""
        if self.released is None and self.released_test is None:
            return {}  # nothing to hold classifiers of real images against
        lists = [self.choice.pixels, self.judged.real.pixels]
        more = [] if self.released_test is None else [self.judged.release.pixels[self.tested.images]]
        from_real, from_released = [], []
        for i, seed in enumerate(self.seeds):
            from_real.append(store.probabilities(self.real, recipe, seed, lists + more, keep_weights=True))
            if self.released is not None:
                from_released.append(store.probabilities(self.released, recipe, seed, lists))
            left = 2 * (len(self.seeds) * (n_later + 1) - i - 1) * float(np.mean(store.seconds or 0.0)) / 60
            words = (self.judged.release.system, recipe.architecture, i + 1, len(self.seeds), n_later, left)
            _log.info("%s: %s, seed %d of %d, %d architectures to come, at most %.0f min left", *words)
        arms = {"real_to_real": self._said(self.test, from_real, 1)}
        if from_released:
            arms["released_to_real"] = self._said(self.test, from_released, 1)
        if self.released_test is not None:
            arms["real_to_released"] = self._said(self.released_test, from_real, 2)
        return arms

    def _said(self, test: Arm, found: Sequence[Sequence[np.ndarray]], which: int) -> Arm:
        thresholds = np.stack([self._thresholds(one[0]) for one in found])
        return replace(test, probabilities=np.stack([one[which] for one in found]), thresholds=thresholds)

    def _thresholds(self, probabilities: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "k"]:
        """Of the highest F1 on the choice role; one half where it has no positive image."""
        found = np.full(probabilities.shape[1], 0.5)
        for k, labels in enumerate(self.choice.labels.T):
            known = ~np.isnan(labels)
            if (labels[known] > 0.5).any():
                found[k] = best_threshold_f1(probabilities[known, k], labels[known] > 0.5).threshold
        return found

    def lines(
        self, arms: dict[str, Arm], architecture: str, min_positives: int, context: RunContext
    ) -> Iterator[Result]:
        """Result lines of one architecture."""
        for direction, arm in arms.items():
            yield from arm_lines(arm, f"{direction}.{architecture}", min_positives, self.paper, context)
        if "released_to_real" not in arms:
            reason = {"reason": "the training release has no labels"}
            name, n = f"utility_macro_auroc_loss.released_to_real.{architecture}.v1", len(self.test)
            yield context.result(name, np.nan, n_patients=self.test.n_patients, n_images=n, extra=reason)
        groups = _subgroups(self.judged.real.cohort)
        for direction in ("released_to_real", "real_to_released"):
            if direction not in arms:
                continue
            real, released = arms["real_to_real"], arms[direction]
            on_release = direction == "real_to_released"
            if on_release and self.tested.paired:
                real = real.images(self.tested.sources)
            part = f"{direction}.{architecture}"
            kept = None if on_release else (self.draws, self.seeds)  # a release's own patients are no other's
            yield from loss_lines(real, released, part, min_positives, self.paper, context, kept=kept)
            if on_release and not self.tested.paired:
                continue
            for name, member in groups.items():
                member = member[self.tested.sources] if on_release else member
                few, none = min(_SUBGROUP_POSITIVES, min_positives), np.zeros_like(self.paper)
                pair = real.images(member), released.images(member)
                yield from loss_lines(*pair, f"{part}.{name}", few, none, context, figures=("auroc",))


def _subgroups(cohort: Cohort) -> dict[str, np.ndarray]:
    """Which images are of each subgroup; those without an image are left out."""
    classes = attribute_classes(cohort)
    members = {name: classes[kind] == i for kind, names in SUBGROUPS.items() for i, name in enumerate(names)}
    return {name: member for name, member in members.items() if member.any()}
