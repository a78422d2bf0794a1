"""The evaluation of PriCheXy-Net (Packhäuser et al., MICCAI 2023) as a row beside ours.

Verification: for each seed a fresh Siamese verifier learns from a fixed, balanced list of pairs of released images, and
is tested on pairs of a released and a real one; mean and standard deviation of the AUC, each pair of equal weight.
Utility: a classifier that has learned from real images and never changes looks at released images of the test role.

What differs here, and is said in each line: pairs are of the roles A (published: the training images of the system
itself, S here, which would mislead the attacker), V2 and T; the trunk is small, and starts from scratch or from the
weights of a verifier of real images (published: a ResNet-50 from ImageNet); AdamW with a warm-up and a cosine takes the
place of Adam with early stopping, and the checkpoint of the lowest validation loss is kept as published. The published
seeds were one and the same; these are not.

The attacker trains on released with released and is tested on released with real, which is not what an attacker who
knows the test would do: see ``adaptive_cross``, and take the worst.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32, Int
from torch import Tensor, nn

from gmia_monai.attacks.base import Judged, TooLittleDataError
from gmia_monai.attacks.training import Schedule, train
from gmia_monai.data.cohort import Cohort
from gmia_monai.data.pairs import Pairs, t1_pairs
from gmia_monai.data.roles import check_disjoint
from gmia_monai.errors import UsageError
from gmia_monai.metrics.intervals import intervals_over_seeds, pair_bootstrap_over_seeds, patient_counts
from gmia_monai.metrics.multilabel import resampled_figures
from gmia_monai.metrics.results import Result, RunContext
from gmia_monai.metrics.verification import SortedScores
from gmia_monai.networks.pretrained import load_network
from gmia_monai.networks.siamese import SiameseVerifier
from gmia_monai.typing import PathLike

__all__ = ["PrichexyProtocol", "balanced_pairs", "evaluate_prichexy_protocol"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PrichexyProtocol:
    """How the published evaluation is carried out.

    Attributes:
        seeds: of the attackers; ten are published.
        n_training: pairs that an attacker learns from at most, half of them of one patient; 10,000 are published.
        n_choice: pairs whose loss chooses its checkpoint, at most; 2,000 are published.
        n_test: pairs of the test at most; 5,000 are published.
        schedule: of the training; 1e-4 over at most 100 epochs is published.
        batch_size: pairs a step; 32 are published.
        architecture: trunk of the verifier, see :class:`gmia_monai.networks.SiameseVerifier`.
        features: length of its feature; 128 are published.
        init: weights file of a Siamese verifier to start from, whose trunk it then is; None: from scratch.
        pair_seed: of the lists of pairs, which are the same for all seeds and systems.
        min_positives: positive test images that a finding needs to be scored.
        n_boot: resamples of patients.
        device: where networks run.
    """

    seeds: Sequence[int] = tuple(range(10))
    n_training: int = 10_000
    n_choice: int = 2_000
    n_test: int = 5_000
    schedule: Schedule = field(default_factory=lambda: Schedule(steps=300, lr=1e-3, validate_every=50))
    batch_size: int = 32
    architecture: str = "small"
    features: int = 128
    init: PathLike | None = None
    pair_seed: int = 42
    min_positives: int = 30
    n_boot: int = 500
    device: str = "cpu"

    def verifier(self) -> SiameseVerifier:
        """A fresh verifier; torch's generator decides it where there is nothing to start from.

        Raises:
            IntegrityError: as :func:`gmia_monai.networks.load_network`.
        UsageError: ``GM-U377`` where ``init`` is no Siamese verifier, ``GM-U016`` for another architecture.
        """
        if self.init is None:
            return SiameseVerifier(self.architecture, self.features).to(self.device)
        network = load_network(self.init)
        if not isinstance(network, SiameseVerifier):
            what = "the protocol of PriCheXy-Net has no verifier to start from"
            raise UsageError("GM-U377", what, got=type(network).__name__, expected="SiameseVerifier")
        return network.requires_grad_(True).to(self.device)

    def facts(self) -> dict[str, object]:
        """What a result line says of it."""
        start = "scratch" if self.init is None else Path(self.init).stem
        trunk = {} if self.init is not None else {"architecture": self.architecture, "features": self.features}
        return {"start": start, "batch_size": self.batch_size, "schedule": asdict(self.schedule), **trunk}


def balanced_pairs(cohort: Cohort, n_pairs: int, seed: int) -> Pairs:
    """A fixed list with as many pairs of one patient as of two, drawn at random within a folder.

    Args:
        cohort: images.
        n_pairs: pairs at most; fewer where fewer pairs of one patient exist.
        seed: of the draws.

    Raises:
        UsageError: ``GM-U377`` where no two images of a patient are in one folder, or nobody else's.
    """
    pairs = t1_pairs(cohort, "random", negatives_per_positive=1, seed=seed, balanced=False)
    n = min(n_pairs // 2, pairs.n_positives, pairs.n_negatives)
    if n < 1:
        raise TooLittleDataError(
            "GM-U377", "no balanced pairs for the protocol of PriCheXy-Net", got=repr(pairs), expected="one or more"
        )
    rng = np.random.default_rng(seed)
    kept = [np.sort(rng.choice(np.flatnonzero(mask), size=n, replace=False)) for mask in (pairs.same, ~pairs.same)]
    return _some(pairs, np.concatenate(kept))


def _some(pairs: Pairs, at: Int[np.ndarray, "m"]) -> Pairs:
    """Some of the pairs, each of equal weight within its kind."""
    names = ("first", "second", "same", "patient_first", "patient_second")
    parts = {name: getattr(pairs, name)[at] for name in names}
    same = parts["same"]
    weight = np.where(same, 1.0 / max(same.sum(), 1), 1.0 / max((~same).sum(), 1))
    return Pairs(**parts, weight=weight, negatives=pairs.negatives, n_wanted=len(at) // 2, n_short=0,
                 weight_moved=0.0, unbalanced=0.0)  # fmt: skip


def evaluate_prichexy_protocol(
    training: Judged,
    choice: Judged,
    judged: Judged,
    context: RunContext,
    *,
    protocol: PrichexyProtocol | None = None,
    classifier: nn.Module | None = None,
    findings: Sequence[str] = (),
) -> list[Result]:
    """Trains and tests the attackers, and asks the classifier.

    Args:
        training: release of the role A.
        choice: release of the role V2.
        judged: release of the role T.
        context: what the result lines share.
        protocol: settings.
        classifier: learned from real images; maps ``[b, 1, h, w]`` to logits of ``findings``. None: no utility.
        findings: names of its logits.

    Returns:
        ``prichexy_protocol_auc.v1``: mean over seeds, its interval over patients and seeds, ``sd`` and the AUC of each
        seed in ``extra``. ``prichexy_protocol_macro_auroc.v1``: mean over the findings with enough positives.

    Raises:
        UsageError: ``GM-U377`` where a release has not one image for each real one, or a role has no pairs.
        ManifestError: ``GM-M032``, ``GM-M033``, ``GM-M037`` where two of the roles share a patient or an image.
    """
    how = protocol or PrichexyProtocol()
    parts = {"training": training, "choice": choice, "judged": judged}
    check_disjoint({name: part.real.cohort for name, part in parts.items()})
    for name, part in parts.items():
        if not part.released.all():
            raise TooLittleDataError(
                "GM-U377",
                "the protocol of PriCheXy-Net has no pairs for this release",
                got=f"{name}: {part.release.kind}, {int(part.released.sum())} of {len(part.real)} images",
                expected="one released image for each real one",
            )
    results = [_verification(parts, how, context)]
    if classifier is not None:
        results.append(_utility(judged, classifier, findings, how, context))
    return results


def _verification(parts: Mapping[str, Judged], how: PrichexyProtocol, context: RunContext) -> Result:
    judged = parts["judged"]
    sizes = {"training": how.n_training, "choice": how.n_choice, "judged": how.n_test}
    pairs = {name: balanced_pairs(part.real.cohort, sizes[name], how.pair_seed) for name, part in parts.items()}
    released = {name: torch.from_numpy(part.released_pixels()) for name, part in parts.items()}
    real, test = torch.from_numpy(judged.real.pixels), pairs["judged"]
    statistics = []
    for i, seed in enumerate(how.seeds):
        network = _attacker(released, pairs, how, seed)
        logits = _logits(network, released["judged"], real, test, how.device)
        statistics.append(SortedScores(logits.double().numpy(), test.same).auc)
        _log.info("%s: attacker %d of %d, AUC %.3f", judged.release.system, i + 1, len(how.seeds), statistics[-1]())
    aucs = [statistic() for statistic in statistics]
    at = (test.same, test.patient_first, test.patient_second)
    interval = pair_bootstrap_over_seeds(statistics, *at, n_boot=how.n_boot, seed=context.seed)
    extra = {
        "sd": round(float(np.std(aucs, ddof=1)), 6) if len(aucs) > 1 else None,
        "aucs": [round(auc, 6) for auc in aucs],
        "n_pairs": {name: len(found) for name, found in pairs.items()},
        "roles": "training A, choice V2, test T; published: the system's own training images",
        "trained_on": "released and released",
        "tested_on": "released and real",
        **how.facts(),
    }
    return context.result(
        "prichexy_protocol_auc.v1",
        interval,
        n_patients=test.n_positive_patients,
        n_images=test.n_positive_images,
        negatives="balanced",
        attacker="snn_fresh",
        extra=extra,
    )


def _attacker(
    released: Mapping[str, Tensor], pairs: Mapping[str, Pairs], how: PrichexyProtocol, seed: int
) -> SiameseVerifier:
    """A verifier that learned from pairs of released images."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = how.verifier()
    images, learned, chosen = released["training"], pairs["training"], pairs["choice"]
    order: list[int] = []

    def loss_of(rng: np.random.Generator) -> Tensor:
        while len(order) < min(how.batch_size, len(learned)):  # one permutation after another
            order.extend(rng.permutation(len(learned)).tolist())
        at = np.array([order.pop(0) for _ in range(min(how.batch_size, len(order)))])
        both = images[np.concatenate([learned.first[at], learned.second[at]])].to(how.device)
        first, second = network(both).chunk(2)
        logits = network.compare(first, second).float()
        return F.binary_cross_entropy_with_logits(logits, _targets(learned.same[at]).to(logits))

    def validate() -> float:
        logits = _logits(network, released["choice"], released["choice"], chosen, how.device)
        return -float(F.binary_cross_entropy_with_logits(logits, _targets(chosen.same)))

    train(network, loss_of, how.schedule, seed, validate, f"protocol of PriCheXy-Net, seed {seed}")
    return network


def _targets(same: Bool[np.ndarray, "n"]) -> Float[Tensor, "n"]:
    return torch.from_numpy(same.astype(np.float32))


@torch.no_grad()
def _embed(network: nn.Module, images: Tensor, device: str, batch_size: int = 128) -> Tensor:
    return torch.cat([network(batch.to(device)).float().cpu() for batch in images.split(batch_size)])


@torch.no_grad()
def _logits(network: SiameseVerifier, first: Tensor, second: Tensor, pairs: Pairs, device: str) -> Tensor:
    """Logit of each pair; ``first`` and ``second`` are all images of either side."""
    network.eval()
    one = _embed(network, first, device)
    two = one if second is first else _embed(network, second, device)
    return network.compare(one[pairs.first].to(device), two[pairs.second].to(device)).float().cpu()


def _utility(
    judged: Judged, classifier: nn.Module, findings: Sequence[str], how: PrichexyProtocol, context: RunContext
) -> Result:
    """Macro AUROC of released test images by a classifier of real ones."""
    cohort = judged.real.cohort
    labels = cohort.label_matrix(findings, "ignore").astype(np.float64)
    classifier = classifier.to(how.device).eval()
    pixels: Float32[np.ndarray, "n 1 h w"] = judged.released_pixels()
    logits = _embed(classifier, torch.from_numpy(pixels), how.device)
    positives, known = (labels == 1).sum(axis=0), (~np.isnan(labels)).sum(axis=0)
    scored = np.flatnonzero((positives >= how.min_positives) & (positives < known))
    n_positive_images = int((labels[:, scored] == 1).any(axis=1).sum())
    extra: dict[str, object] = {"classifier": "learned from real images, not retrained"}
    named: dict[str, Any] = {"n_patients": len(cohort.patients), "n_images": len(cohort)}
    if not len(scored):
        extra["reason"] = f"no finding has {how.min_positives} positive images"
        return context.result("prichexy_protocol_macro_auroc.v1", np.nan, extra=extra, **named)
    counts = patient_counts(len(cohort.patients), how.n_boot, context.seed)[:, cohort.patient_index]
    each = resampled_figures(
        torch.sigmoid(logits[:, scored]).double().numpy(),
        labels[:, scored],
        np.full(len(scored), 0.5),
        counts,
        ["auroc"],
    )["auroc"]
    (interval,) = intervals_over_seeds(np.nanmean(each, axis=1)[:, None, None], len(cohort.patients))
    of_each = {findings[int(k)]: round(float(auc), 6) for k, auc in zip(scored, each[0], strict=True)}
    extra |= {"findings": of_each, "n_positive_images": n_positive_images}
    return context.result("prichexy_protocol_macro_auroc.v1", interval, extra=extra, **named)
