"""Training of a generator against a verifier, for a classifier: PriCheXy-Net and Privacy-Net.

Both begin with the identity, under the mean squared error. Then, batch by batch, the generator, the verifier and the
classifier take one step each:

- generator: ``lam_ac BCE(C(x1'), y) + lam_ver L(V(x1', x2))`` with ``L`` of :mod:`gmia_monai.losses.confusion`
  (PriCheXy-Net). Under ``minimax`` (Privacy-Net) the second image is changed, too, and the task, segmentation there, is
  our classification; the published sum over both images of a pair is twice the mean taken here;
- verifier: cross-entropy of the same pairs; classifier: cross-entropy of the changed images.

Verifier and classifier have learned from real images before. They are in eval mode where they serve as a loss. The
images that the generator made in its step serve the other two as well.

Pairs: images come as two of one patient, one after the other. The first of each meets its neighbour, the second the
next patient's first: as many pairs of one patient as of two, each image once on either side, none across folders.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.engines import Evaluator
from monai.engines.utils import IterationEvents
from monai.handlers import ValidationHandler
from monai.utils.enums import CommonKeys as Keys
from monai.utils.type_conversion import convert_to_tensor
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from gmia_monai.data.cohort import Cohort
from gmia_monai.engines.guarded import GuardedTrainer
from gmia_monai.engines.optimizers import broadcast_parameters
from gmia_monai.errors import UsageError
from gmia_monai.losses.classification import MaskedBCE
from gmia_monai.losses.confusion import CONFUSIONS, verification_loss
from gmia_monai.networks.deformation import DeformationNet
from gmia_monai.networks.image_translation import TranslationNet
from gmia_monai.networks.pretrained import load_recorded
from gmia_monai.networks.siamese import SiameseVerifier
from gmia_monai.typing import PathLike
from gmia_monai.weights import read_index, read_metadata

__all__ = [
    "GENERATORS",
    "ConfusionEvaluator",
    "ConfusionGame",
    "ConfusionTrainer",
    "ConfusionValidation",
    "load_critic",
    "make_generator",
    "pair_datalist",
    "pair_partners",
    "recorded_findings",
]

GENERATORS: dict[str, type[nn.Module]] = {"deformation": DeformationNet, "translation": TranslationNet}
_FOLDERS = 1 << 20  # more than any cohort has: the patient number of a pair list is patient * _FOLDERS + folder


def _unusable(what: str, got: object, expected: object) -> UsageError:
    return UsageError("GM-U049", f"training against two critics: unusable {what}", got=got, expected=expected)


def make_generator(kind: str, arguments: Mapping[str, Any]) -> nn.Module:
    """A generator of :data:`GENERATORS`, in its first state.

    Raises:
        UsageError: ``GM-U049`` for another kind, ``GM-U013`` as the networks.
    """
    if kind not in GENERATORS:
        raise _unusable("generator", kind, " or ".join(GENERATORS))
    return GENERATORS[kind](**arguments)


def load_critic(models_dir: PathLike, name: str) -> nn.Module:
    """A recorded network that is trained on: a verifier or a classifier.

    Raises:
        IntegrityError: ``GM-W001`` … ``GM-W006``.
    """
    return load_recorded(models_dir, name).requires_grad_(True)


def recorded_findings(models_dir: PathLike, name: str = "utility") -> list[str]:
    """The findings that a recorded classifier gives logits of, in their order.

    Raises:
        IntegrityError: ``GM-W001`` … ``GM-W006`` as :func:`gmia_monai.networks.load_recorded`.
        UsageError: ``GM-U049`` where its file does not name them.
    """
    load_recorded(models_dir, name)
    findings = read_metadata(Path(models_dir) / read_index(models_dir)[name]["file"]).get("findings")
    if not isinstance(findings, list) or not findings:
        raise _unusable("classifier", f"{name} without names of findings", "weights that name their findings")
    return [str(finding) for finding in findings]


def pair_datalist(
    cohort: Cohort, findings: Sequence[str], uncertain: str = "zeros", seed: int = 0
) -> list[dict[str, Any]]:
    """Items of :meth:`gmia_monai.data.Cohort.datalist` whose ``patient`` says the folder, too: pairs stay in one."""
    folder = {name: i for i, name in enumerate(cohort.folders)}
    items: list[dict[str, Any]] = cohort.datalist(findings, uncertain, seed)
    return [item | {"patient": int(item["patient"]) * _FOLDERS + folder[str(item["folder"])]} for item in items]


def pair_partners(patients: Tensor) -> tuple[Tensor, Tensor]:
    """Whom each image of a batch meets.

    Args:
        patients: ``[b]``, ``patient`` of :func:`pair_datalist`; two of one patient and folder follow each other.

    Returns:
        position of the partner ``[b]``, a permutation, and whether the two are of one patient ``[b]``. Where a patient
        is alone in its folder, or drawn twice in a row, the second image, too, meets one of its own patient.

    Raises:
        UsageError: ``GM-U049`` for a batch that is not made of such twos.
    """
    first, second = patients[0::2], patients[1::2]
    if len(first) != len(second) or not torch.equal(first, second):
        raise _unusable("batch", f"{len(patients)} images", "two images of each patient and folder in a row")
    partner = torch.arange(len(patients), device=patients.device) + 1  # right for the first of each two
    for folder in torch.unique(first % _FOLDERS):
        twos = torch.nonzero(first % _FOLDERS == folder).flatten()
        partner[2 * twos + 1] = 2 * twos.roll(-1)
    return partner, patients // _FOLDERS == patients[partner] // _FOLDERS


@dataclass
class ConfusionGame:
    """The three networks and what the generator minimises.

    Args:
        generator: ``[b, 1, h, w]`` in [0, 1] to the same.
        verifier: pre-trained on real images.
        classifier: pre-trained on real images; ``[b, 1, h, w]`` to logits ``[b, k]``.
        objective: ``confusion`` (PriCheXy-Net), ``two_sided`` (ours) or ``minimax`` (Privacy-Net).
        lam_ac: weight of the classification.
        lam_ver: weight of the verification.

    Raises:
        UsageError: ``GM-U049`` for another objective.
    """

    generator: nn.Module
    verifier: SiameseVerifier
    classifier: nn.Module
    objective: str = "confusion"
    lam_ac: float = 1.0
    lam_ver: float = 1.0

    def __post_init__(self) -> None:
        if self.objective not in CONFUSIONS:
            raise _unusable("objective", self.objective, ", ".join(CONFUSIONS))
        self.classification = MaskedBCE()

    def logits(self, fake: Tensor, real: Tensor, partner: Tensor) -> Tensor:
        """Logit ``[b]`` that image and partner are of one patient; the partner is changed, too, under ``minimax``."""
        if self.objective == "minimax":
            changed = others = self.verifier(fake)
        elif self.verifier.training:  # its normalisation sees changed and real images together
            changed, others = self.verifier(torch.cat([fake, real])).chunk(2)
        else:  # nothing is to be learned about real images
            changed, others = self.verifier(fake), self.verifier(real)
        return self.verifier.compare(changed, others[partner]).float()

    def terms(self, fake: Tensor, real: Tensor, labels: Tensor, patients: Tensor) -> dict[str, Tensor]:
        """``loss`` of the generator, its parts ``utility_loss`` and ``verification_loss`` before their weights, and
        ``verifier_loss`` of the same pairs."""
        partner, same = pair_partners(patients)
        utility = self.classification(self.classifier(fake), labels)
        logits = self.logits(fake, real, partner)
        verification = CONFUSIONS[self.objective](logits, same)
        loss = self.lam_ac * utility + self.lam_ver * verification
        verifier = verification_loss(logits, same).detach()
        return {Keys.LOSS: loss, "utility_loss": utility, "verification_loss": verification, "verifier_loss": verifier}

    def verifier_loss(self, fake: Tensor, real: Tensor, patients: Tensor) -> Tensor:
        """Cross-entropy of the verifier on the generator's pairs."""
        partner, same = pair_partners(patients)
        return verification_loss(self.logits(fake, real, partner), same)


def _prepared(engine: Any, batchdata: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Images, labels and patient numbers of a batch on the engine's device."""
    device, non_blocking = engine.state.device, engine.non_blocking
    image, labels, patients = (
        torch.as_tensor(convert_to_tensor(batchdata[key], track_meta=False)).to(device, non_blocking=non_blocking)
        for key in (Keys.IMAGE, Keys.LABEL, "patient")
    )
    return image.contiguous(memory_format=torch.channels_last), labels.float(), patients


class ConfusionTrainer(GuardedTrainer):
    """Trains the generator of a :class:`ConfusionGame`, and its verifier and classifier against it.

    The output of an iteration holds the scalars ``loss`` (the generator's), ``pixel_loss`` (mean squared change),
    ``utility_loss``, ``verification_loss``, ``verifier_loss`` and ``classifier_loss``; zero where not measured.

    Args:
        device: where to train.
        max_epochs: number of epochs, pre-training included.
        train_data_loader: batches with ``image`` ``[b, 1, h, w]`` in [0, 1], ``label`` ``[b, k]`` and ``patient``
            ``[b]`` of :func:`pair_datalist`, in the order of :class:`gmia_monai.engines.PatientPairSampler`.
        game: the networks and their objective.
        g_optimizer: optimizer of the generator.
        v_optimizer: optimizer of the verifier.
        c_optimizer: optimizer of the classifier.
        pretraining: iterations of the first phase, towards the identity.
        pretraining_optimizer: optimizer of the generator in it; None: ``g_optimizer``.
        shared: the further arguments of :class:`gmia_monai.engines.guarded.GuardedTrainer`.

    Raises:
        UsageError: ``GM-U049`` (while running) for a batch that does not hold pairs.
        ResourceError: ``GM-R030`` as :class:`gmia_monai.engines.guarded.GuardedTrainer`.
    """

    def __init__(
        self,
        device: torch.device | str,
        max_epochs: int,
        train_data_loader: Iterable | DataLoader,
        game: ConfusionGame,
        g_optimizer: Optimizer,
        v_optimizer: Optimizer,
        c_optimizer: Optimizer,
        pretraining: int = 0,
        pretraining_optimizer: Optimizer | None = None,
        **shared: Any,
    ) -> None:
        super().__init__(device, max_epochs, train_data_loader, **shared)
        self.game = game
        self.g_optimizer = g_optimizer
        self.v_optimizer = v_optimizer
        self.c_optimizer = c_optimizer
        self.pretraining = pretraining
        self.pretraining_optimizer = g_optimizer if pretraining_optimizer is None else pretraining_optimizer
        broadcast_parameters([game.generator, game.verifier, game.classifier])

    def _identity_phase(self, real: Tensor) -> dict[str, float]:
        self.game.generator.train()
        with self._autocast():
            loss = (self.game.generator(real) - real).square().mean()
        self._step("identity", self.pretraining_optimizer, loss)
        rest = ("utility_loss", "verification_loss", "verifier_loss", "classifier_loss")
        return {Keys.LOSS: loss.item(), "pixel_loss": loss.item()} | dict.fromkeys(rest, 0.0)

    def _generator_phase(self, real: Tensor, labels: Tensor, patients: Tensor) -> tuple[Tensor, dict[str, float]]:
        critics = (self.game.verifier, self.game.classifier)
        for critic in critics:
            critic.eval().requires_grad_(False)
        self.game.generator.train()
        with self._autocast():
            fake = self.game.generator(real)
            terms = self.game.terms(fake, real, labels, patients)
        self._step("generator", self.g_optimizer, terms[Keys.LOSS])
        for critic in critics:
            critic.train().requires_grad_(True)
        fake = fake.detach()
        scalars = {name: value.item() for name, value in terms.items()}
        return fake, scalars | {"pixel_loss": (fake - real).square().mean().item()}

    def _iteration(self, engine: Any, batchdata: Mapping[str, Tensor]) -> dict[str, float]:
        """One iteration; see the class."""
        real, labels, patients = _prepared(engine, batchdata)
        if engine.state.iteration <= self.pretraining:
            output = self._identity_phase(real)
        else:
            fake, output = self._generator_phase(real, labels, patients)
            engine.fire_event(IterationEvents.FORWARD_COMPLETED)
            with self._autocast():
                verifier_loss = self.game.verifier_loss(fake, real, patients)
            self._step("verifier", self.v_optimizer, verifier_loss)
            with self._autocast():
                classifier_loss = self.game.classification(self.game.classifier(fake), labels)
            self._step("classifier", self.c_optimizer, classifier_loss)
            output |= {"verifier_loss": verifier_loss.item(), "classifier_loss": classifier_loss.item()}
        engine.fire_event(IterationEvents.LOSS_COMPLETED)
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return output


class ConfusionEvaluator(Evaluator):
    """Losses of a :class:`ConfusionGame` on held-out pairs, all networks in eval mode.

    The output of an iteration holds ``pred``, the changed images, ``label``, the real ones, and the scalars of
    :class:`ConfusionTrainer`. The published checkpoint is the one with the lowest total ``loss``, which rests on the
    verifier of that moment.

    Args:
        device: where to evaluate.
        val_data_loader: batches as the trainer's, the same ones every time.
        game: the trainer's.
        more: further arguments of MONAI's ``Evaluator``.
    """

    def __init__(
        self, device: torch.device | str, val_data_loader: Iterable | DataLoader, game: ConfusionGame, **more: Any
    ) -> None:
        super().__init__(device, val_data_loader, decollate=False, **more)
        self.game = game

    def _iteration(self, engine: Any, batchdata: Mapping[str, Tensor]) -> dict[str, Any]:
        """One batch; see the class."""
        real, labels, patients = _prepared(engine, batchdata)
        for network in (self.game.generator, self.game.verifier, self.game.classifier):
            network.eval()
        with torch.no_grad():
            fake = self.game.generator(real)
            terms = self.game.terms(fake, real, labels, patients)
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        scalars = {name: value.item() for name, value in terms.items()}
        return {Keys.PRED: fake, Keys.LABEL: real, "pixel_loss": (fake - real).square().mean().item()} | scalars


class ConfusionValidation(ValidationHandler):
    """Validates once the game has begun: the identity, learned in the first phase, is no candidate for the best epoch.

    Args:
        pretraining: iterations of the first phase.
        validator: a :class:`ConfusionEvaluator`.
        interval: epochs between two validations.
    """

    def __init__(self, pretraining: int, validator: Evaluator, interval: int = 1) -> None:
        super().__init__(interval, validator, epoch_level=True)
        self.pretraining = pretraining

    def __call__(self, engine: Any) -> None:
        """Runs the evaluator; not during the first phase."""
        if engine.state.iteration > self.pretraining:
            super().__call__(engine)
