"""What a release is still good for, in the form of attacks, so that the suite runs, tracks and resumes them alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from gmia_monai.attacks.base import AttackerKnowledge, Judged
from gmia_monai.errors import UsageError
from gmia_monai.evaluation.classifiers import TransferRecipe
from gmia_monai.evaluation.fidelity import evaluate_fidelity
from gmia_monai.evaluation.transfer import evaluate_transfer
from gmia_monai.losses.perceptual import CXRPerceptualLoss
from gmia_monai.metrics.results import Result, RunContext
from gmia_monai.networks.pretrained import load_recorded
from gmia_monai.networks.utility import UtilityNet
from gmia_monai.typing import PathLike
from gmia_monai.weights import read_index, read_metadata

__all__ = ["SMALL_RECIPES", "FidelityProbe", "TransferProbe"]

# At 64 px: the architecture in the loss, and an unlike one.
SMALL_RECIPES = (
    TransferRecipe("small"),
    TransferRecipe("small_densenet", steps=600, lr=4e-3, dropout=0.0, validate_every=100),
)


class FidelityProbe:
    """Released images beside their sources, by :func:`gmia_monai.evaluation.fidelity.evaluate_fidelity`.

    Args:
        networks: diagnostic networks by name.
        findings: names of their logits.
        perceptual: distances by name.
        n_boot: bootstrap resamples.
        device: where networks run.
    """

    name = "fidelity"

    def __init__(
        self,
        networks: Mapping[str, UtilityNet] | None = None,
        findings: Sequence[str] = (),
        perceptual: Mapping[str, nn.Module] | None = None,
        n_boot: int = 500,
        device: str = "cpu",
    ) -> None:
        self.networks = dict(networks or {})
        self.findings = tuple(findings)
        self.perceptual = dict(perceptual or {})
        self.n_boot = n_boot
        self.device = device

    @classmethod
    def from_weights(cls, models_dir: PathLike | None, n_boot: int = 500, device: str = "cpu") -> FidelityProbe:
        """With the recorded ``utility`` network as the one in the loss; without it, what needs none.

        Raises:
            IntegrityError: ``GM-W001`` … ``GM-W006``.
        """
        index = {} if models_dir is None else read_index(models_dir)
        if models_dir is None or "utility" not in index:
            return cls(n_boot=n_boot, device=device)
        network = load_recorded(models_dir, "utility")
        assert isinstance(network, UtilityNet)
        path = f"{models_dir}/{index['utility']['file']}"
        findings = read_metadata(path).get("findings", ())
        return cls({"loss": network}, findings, {"lpips_cxr": CXRPerceptualLoss(network)}, n_boot, device)

    def fit(self, knowledge: AttackerKnowledge) -> None:
        """Learns nothing."""

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
