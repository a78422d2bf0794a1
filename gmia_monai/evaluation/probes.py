"""What a release is still good for, in the form of attacks, so that the suite runs, tracks and resumes them alike."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from gmia_monai.attacks.base import AttackerKnowledge, Judged, TooLittleDataError
from gmia_monai.errors import UsageError
from gmia_monai.evaluation.classifiers import ClassifierStore, TransferRecipe
from gmia_monai.evaluation.fidelity import evaluate_fidelity
from gmia_monai.evaluation.transfer import evaluate_transfer, labelled, real_list
from gmia_monai.losses.perceptual import CXRPerceptualLoss
from gmia_monai.metrics.intervals import patient_bootstrap_figures
from gmia_monai.metrics.results import Result, RunContext
from gmia_monai.networks.pretrained import load_recorded
from gmia_monai.networks.utility import UtilityNet
from gmia_monai.typing import PathLike
from gmia_monai.weights import read_index, read_metadata

__all__ = ["SMALL_RECIPES", "FidelityProbe", "ReleaseProbe", "TransferProbe"]

_log = logging.getLogger(__name__)

# At 64 px: the architecture in the loss, and an unlike one.
SMALL_RECIPES = (
    TransferRecipe("small"),
    TransferRecipe("small_densenet", steps=600, lr=4e-3, dropout=0.0, validate_every=100),
)


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
        ``description`` in ``extra``; nothing of a release that does not say how its images came out."""
        found = judged.release.convergence
        if found is None or not len(judged.release):
            return []
        patients = judged.real.cohort.patient_index[judged.release.only_source()]
        converged = found.converged.astype(np.float64)
        share = lambda weights: (float(np.average(converged, weights=weights)),)  # noqa: E731
        (interval,) = patient_bootstrap_figures([share], patients, self.n_boot, context.seed, bounds=(0.0, 1.0))
        extra = {
            "mean_steps": round(float(found.steps.mean()), 6),
            "settings": dict(found.settings),
            "description": found.description,
        }
        n = len(converged)
        return [
            context.result(
                "release_converged.v1", interval, n_patients=len(np.unique(patients)), n_images=n, extra=extra
            )
        ]


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
            other: ``training``, ``cache_dir``, ``recipe`` and ``seed`` of the other classifier.

        Raises:
            IntegrityError: ``GM-W001`` … ``GM-W006``.
        """
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

    def _take_other(self, knowledge: AttackerKnowledge) -> str:
        """Takes the other classifier, or says why there is none."""
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
        network = store.kept(real_list(self.training), self.recipe, self.seed)
        if network is None:
            architecture = self.recipe.architecture
            return f"{Path(self.cache_dir).name} holds no {architecture} of this training list; run utility first"
        self.networks["other"], self.findings = network, named
        return ""

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
        recipes: one an architecture.
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
        """Lines of :func:`gmia_monai.evaluation.transfer.evaluate_transfer`.

        Raises:
            UsageError: ``GM-U347`` … ``GM-U349`` as there; ``GM-U331`` before :meth:`fit` or without a release to learn
                from.
        """
        if self._knowledge is None or self.training is None:
            raise UsageError("GM-U331", "training on a release needs a release of the training role")
        return evaluate_transfer(
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
