"""What a release is still good for, in the form of attacks, so that the suite runs, tracks and resumes them alike."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from gmia_monai.attacks.base import AttackerKnowledge, Judged, TooLittleDataError
from gmia_monai.errors import UsageError
from gmia_monai.evaluation.classifiers import ClassifierStore, LabelledImages, TransferRecipe
from gmia_monai.evaluation.fidelity import evaluate_fidelity
from gmia_monai.evaluation.transfer import evaluate_transfer, labelled, real_list
from gmia_monai.losses.perceptual import CXRPerceptualLoss
from gmia_monai.metrics.intervals import patient_bootstrap_figures
from gmia_monai.metrics.results import Result, RunContext
from gmia_monai.networks.pretrained import load_recorded
from gmia_monai.networks.utility import UtilityNet
from gmia_monai.typing import PathLike
from gmia_monai.weights import read_index, read_metadata

__all__ = ["SMALL_RECIPES", "FidelityProbe", "ReleaseProbe", "TransferProbe", "transfer_recipes"]

_log = logging.getLogger(__name__)

# At 64 px: the architecture in the loss, and an unlike one.
SMALL_RECIPES = (
    TransferRecipe("small"),
    TransferRecipe("small_densenet", steps=600, lr=4e-3, dropout=0.0, validate_every=100),
)
_DENSENET = TransferRecipe("densenet121", steps=600, dropout=0.1, validate_every=100)  # rate as in its profiles
_DIGITS = 8


def transfer_recipes(models_dir: PathLike | None) -> tuple[TransferRecipe, TransferRecipe]:
    """Of the architecture of the recorded ``utility`` network, which systems optimise against, and of an unlike one.

    Args:
        models_dir: weights of the system; without a ``utility`` among them, :data:`SMALL_RECIPES`.

    Raises:
        IntegrityError: ``GM-W001`` … ``GM-W003``, ``GM-W005``.
    """
    entry = ({} if models_dir is None else read_index(models_dir)).get("utility")
    if entry is None:
        return SMALL_RECIPES
    arguments = read_metadata(Path(models_dir or "") / entry["file"], entry["sha256"]).get("arguments", {})
    architecture = arguments.get("architecture", _DENSENET.architecture)
    small, small_densenet = SMALL_RECIPES
    if architecture == _DENSENET.architecture:
        return _DENSENET, small
    return (small_densenet, small) if architecture == small_densenet.architecture else SMALL_RECIPES


class ReleaseProbe:
    """How many images of the judged role a system that optimises has brought to its criterion, and by what settings.

    Args:
        n_boot: bootstrap resamples of patients.
    """

    name = "release"

    def __init__(self, n_boot: int = 500) -> None:
        self.n_boot = n_boot

    def fit(self, knowledge: AttackerKnowledge) -> None:
        """Learns nothing."""

    def score(self, judged: Judged, context: RunContext) -> list[Result]:
        """``release_converged.v1``, the share of images that converged, with ``mean_steps``, ``settings`` and
        ``description`` in ``extra``.

        Raises:
            TooLittleDataError: ``GM-U357`` for a release that does not say how its images came out.
        """
        found = judged.release.convergence
        if found is None or not len(judged.release):
            raise TooLittleDataError("GM-U357", "the release does not say how its images came out")
        release, of_patient = judged.release, judged.real.cohort.patient_index
        # Images of several sources, or of none, are drawn one by one.
        single = release.kind == "one_to_one"
        units = of_patient[release.only_source()] if single else np.arange(len(release))
        n_patients = len({int(of_patient[i]) for source in release.sources for i in source})
        converged = found.converged.astype(np.float64)
        share = lambda weights: (float(np.average(converged, weights=weights)),)  # noqa: E731
        (interval,) = patient_bootstrap_figures([share], units, self.n_boot, context.seed, bounds=(0.0, 1.0))
        extra = {
            "mean_steps": round(float(found.steps.mean()), 6),
            "settings": dict(found.settings),
            "description": found.description,
        }
        n = len(converged)
        return [context.result("release_converged.v1", interval, n_patients=n_patients, n_images=n, extra=extra)]


class FidelityProbe:
    """Released images beside their sources, by :func:`gmia_monai.evaluation.fidelity.evaluate_fidelity`.

    A network that the system optimises against says little about what others would still see. Beside it stands, under
    the name ``other``, a classifier of real images of the other architecture, if :class:`TransferProbe` has left one.

    Args:
        networks: diagnostic networks by name.
        findings: names of their logits.
        perceptual: distances by name.
        n_boot: bootstrap resamples.
        device: where networks run.
        training: release of patients of role S, whose real images the other classifier has learned from; None: no
            other classifier.
        cache_dir: folder of the classifiers, that of :class:`TransferProbe`.
        recipe: of the other classifier.
        seed: of the other classifier.
    """

    name = "fidelity"

    def __init__(
        self,
        networks: Mapping[str, UtilityNet] | None = None,
        findings: Sequence[str] = (),
        perceptual: Mapping[str, nn.Module] | None = None,
        n_boot: int = 500,
        device: str = "cpu",
        training: Judged | None = None,
        cache_dir: PathLike | None = None,
        recipe: TransferRecipe = SMALL_RECIPES[1],
        seed: int = 0,
    ) -> None:
        self._asked: tuple[AttackerKnowledge, Path | None] | None = None
        self.networks = dict(networks or {})
        self.findings = tuple(findings)
        self.perceptual = dict(perceptual or {})
        self.n_boot = n_boot
        self.device = device
        self.training = training
        self.cache_dir = cache_dir
        self.recipe = recipe
        self.seed = seed

    @classmethod
    def from_weights(
        cls, models_dir: PathLike | None, n_boot: int = 500, device: str = "cpu", **other: Any
    ) -> FidelityProbe:
        """With the recorded ``utility`` network as the one in the loss; without it, what needs none.

        Args:
            models_dir: weights of the system.
            n_boot: bootstrap resamples.
            device: where networks run.
            other: ``training``, ``cache_dir``, ``recipe`` (by default the second of :func:`transfer_recipes`) and
                ``seed`` of the other classifier.

        Raises:
            IntegrityError: ``GM-W001`` … ``GM-W006``.
        """
        other = {"recipe": transfer_recipes(models_dir)[1], **other}
        index = {} if models_dir is None else read_index(models_dir)
        if models_dir is None or "utility" not in index:
            return cls(n_boot=n_boot, device=device, **other)
        network = load_recorded(models_dir, "utility")
        assert isinstance(network, UtilityNet)
        path = f"{models_dir}/{index['utility']['file']}"
        findings = read_metadata(path).get("findings", ())
        return cls({"loss": network}, findings, {"lpips_cxr": CXRPerceptualLoss(network)}, n_boot, device, **other)

    def fit(self, knowledge: AttackerKnowledge) -> None:
        """Learns nothing; takes the other classifier, whose checkpoint was chosen on V2, from its folder."""
        self.networks.pop("other", None)
        reason = self._take_other(knowledge)
        if reason:
            _log.warning("fidelity has no other network: %s", reason)

    def own_facts(self, knowledge: AttackerKnowledge) -> str:
        """Digits of the key of the other classifier where it is there, which decides which lines there are."""
        if self._asked is None or self._asked[0] is not knowledge:  # images are hashed once, files looked for each time
            found = self._place(knowledge)
            path = None if isinstance(found, str) else found[0].weights_path(found[1], self.recipe, self.seed)
            self._asked = knowledge, path
        path = self._asked[1]
        return path.stem[:_DIGITS] if path is not None and path.is_file() else ""

    def _take_other(self, knowledge: AttackerKnowledge) -> str:
        """Takes the other classifier, or says why there is none."""
        found = self._place(knowledge)
        if isinstance(found, str):
            return found
        store, learned = found
        network = store.kept(learned, self.recipe, self.seed)
        if network is None:
            architecture = self.recipe.architecture
            return f"{store.folder.name} holds no {architecture} of this training list; run utility first"
        assert self.training is not None
        self.networks["other"], self.findings = network, tuple(self.training.real.cohort.findings or ())
        return ""

    def _place(self, knowledge: AttackerKnowledge) -> tuple[ClassifierStore, LabelledImages] | str:
        """Where the other classifier is looked for, and what it learned from; or why there can be none."""
        if self.training is None:
            return "no release of patients of the training role"
        if self.cache_dir is None:
            return "no folder of classifiers"
        named = tuple(self.training.real.cohort.findings or ())
        if self.networks and named != self.findings:
            return "the findings of the cohort are not those of the one in the loss"
        try:
            store = ClassifierStore(self.cache_dir, labelled(knowledge.choice.real, named, "ignore"), self.device)
        except TooLittleDataError as error:
            return str(error)
        return store, real_list(self.training)

    def score(self, judged: Judged, context: RunContext) -> list[Result]:
        """Lines of :func:`gmia_monai.evaluation.fidelity.evaluate_fidelity`."""
        return evaluate_fidelity(
            judged,
            context,
            networks=self.networks,
            findings=self.findings,
            perceptual=self.perceptual,
            n_boot=self.n_boot,
            device=self.device,
        )


class TransferProbe:
    """Classifiers trained on the release, by :func:`gmia_monai.evaluation.transfer.evaluate_transfer`.

    Args:
        training: release of patients of role S; None: it cannot be scored.
        cache_dir: folder of what classifiers said, shared by all releases.
        recipes: one an architecture, first that of the network in the loss of systems.
        seeds: of the classifiers.
        n_boot: bootstrap resamples.
        device: where networks run.
    """

    name = "utility"

    def __init__(
        self,
        training: Judged | None,
        cache_dir: PathLike,
        recipes: Sequence[TransferRecipe] = SMALL_RECIPES,
        seeds: Sequence[int] = (0, 1, 2, 3, 4),
        n_boot: int = 500,
        device: str = "cpu",
    ) -> None:
        self.training = training
        self.cache_dir = cache_dir
        self.recipes = tuple(recipes)
        self.seeds = tuple(seeds)
        self.n_boot = n_boot
        self.device = device
        self._knowledge: AttackerKnowledge | None = None

    def fit(self, knowledge: AttackerKnowledge) -> None:
        """Keeps the real images of V2, on which checkpoints and thresholds are chosen."""
        self._knowledge = knowledge

    def score(self, judged: Judged, context: RunContext) -> list[Result]:
        """Lines of :func:`gmia_monai.evaluation.transfer.evaluate_transfer`; those of the first recipe are marked with
        ``in_loss`` in ``extra``.

        Raises:
            UsageError: ``GM-U347`` … ``GM-U349`` as there; ``GM-U331`` before :meth:`fit` or without a release to learn
                from.
        """
        if self._knowledge is None or self.training is None:
            raise UsageError("GM-U331", "training on a release needs a release of the training role")
        lines = evaluate_transfer(
            self.training,
            judged,
            self._knowledge.choice.real,
            self.recipes,
            context,
            cache_dir=self.cache_dir,
            seeds=self.seeds,
            n_boot=self.n_boot,
            device=self.device,
        )
        in_loss = self.recipes[0].architecture
        return [
            replace(line, extra=line.extra | {"in_loss": True}) if line.name.split(".")[2] == in_loss else line
            for line in lines
        ]

    def own_facts(self, knowledge: AttackerKnowledge) -> str:
        """Digits of a hash of the recipes; none of the usual ones."""
        if self.recipes == SMALL_RECIPES:
            return ""
        text = json.dumps([asdict(recipe) for recipe in self.recipes], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]
