"""Attribute inference: what do released images still tell of sex, age and view?

That networks read sex and age off chest radiographs: Yi et al., Emergency Radiology 28:949 (2021).
Networks of several seeds, with a head for each attribute, are trained on real images of S and A together with released
images of A, and the checkpoint is chosen on V2 releases. Beside their figure on the release stand that on the real
images behind it by the checkpoint that is best on real V2 images (the control: what there was to find) and the share of
the most frequent class (what a guess finds).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from gmia_monai.attacks.base import AttackerKnowledge, Judged, Pixels
from gmia_monai.attacks.seeds import Statistics, checked_seeds, shared_statistics
from gmia_monai.attacks.training import Schedule, train
from gmia_monai.data.cohort import Cohort
from gmia_monai.errors import UsageError
from gmia_monai.metrics.intervals import patient_bootstrap_figures
from gmia_monai.metrics.results import Result, RunContext
from gmia_monai.metrics.verification import SortedScores
from gmia_monai.networks.residual import SMALL_TRUNK_CHANNELS, small_trunk
from gmia_monai.transforms.augmentation import BatchAugmentation

__all__ = ["ATTRIBUTES", "AttributeAttack", "attribute_classes"]

AGE_BANDS = (40.0, 60.0)
ATTRIBUTES: dict[str, tuple[str, ...]] = {"sex": ("F", "M"), "view": ("AP", "PA"), "age": ("< 40", "40-59", ">= 60")}
_UNKNOWN = -1
_BATCH = 128


def attribute_classes(cohort: Cohort) -> dict[str, Int[np.ndarray, "n"]]:
    """Number of the class of each image for each of :data:`ATTRIBUTES`; -1 where not known."""
    number = {name: {value: i for i, value in enumerate(values)} for name, values in ATTRIBUTES.items()}
    ages = np.digitize(np.nan_to_num(cohort.ages), AGE_BANDS)
    return {
        "sex": np.array([number["sex"].get(r.sex, _UNKNOWN) for r in cohort], dtype=np.int64),
        "view": np.array([number["view"].get(r.view, _UNKNOWN) for r in cohort], dtype=np.int64),
        "age": np.where(np.isnan(cohort.ages), _UNKNOWN, ages).astype(np.int64),
    }


class _AttributeNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk = small_trunk()
        self.dropout = nn.Dropout(0.2)
        self.heads = nn.ModuleDict({k: nn.Linear(SMALL_TRUNK_CHANNELS, len(v)) for k, v in ATTRIBUTES.items()})

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        x = self.dropout(self.trunk((image - 0.5) * 2.0).mean(dim=(2, 3)))
        return {name: head(x) for name, head in self.heads.items()}


@dataclass(frozen=True, eq=False)
class _Images:
    pixels: Pixels
    classes: dict[str, np.ndarray]


def _joined(parts: Sequence[_Images]) -> _Images:
    classes = {name: np.concatenate([p.classes[name] for p in parts]) for name in ATTRIBUTES}
    return _Images(np.concatenate([p.pixels for p in parts]), classes)


def _of_release(judged: Judged) -> _Images:
    source = judged.release.only_source()
    classes = attribute_classes(judged.real.cohort)
    return _Images(judged.release.pixels, {name: values[source] for name, values in classes.items()})


class AttributeAttack:
    """Sex, age band and view from released images.

    Args:
        seeds: of the networks and their training; figures are means over them.
        n_boot: bootstrap resamples.
        schedule: how long each is trained.
        device: where they run.

    Raises:
        UsageError: ``GM-U316`` without a seed.
    """

    name = "attribute"

    def __init__(
        self,
        seeds: Sequence[int] = (0,),
        n_boot: int = 500,
        schedule: Schedule | None = None,
        device: str = "cpu",
    ) -> None:
        self.seeds = checked_seeds(seeds)
        self.n_boot = n_boot
        self.schedule = schedule or Schedule(steps=1200, lr=1e-3, validate_every=200)
        self.device = device
        self._networks: list[_AttributeNet] = []
        self._controls: list[_AttributeNet] = []
        self._knowledge: AttackerKnowledge | None = None

    def fit(self, knowledge: AttackerKnowledge) -> None:
        """Trains on real images and released ones, half of each batch either; chooses on V2 releases, and the control
        on the real images behind them.

        Raises:
            UsageError: ``GM-U303`` for a release without one source an image.
        """
        self._knowledge = knowledge
        trained = [self._trained(knowledge, seed) for seed in self.seeds]
        self._networks, self._controls = ([pair[k] for pair in trained] for k in range(2))

    def _trained(self, knowledge: AttackerKnowledge, seed: int) -> tuple[_AttributeNet, _AttributeNet]:
        """The best network on releases, and the best one on real images."""
        real = _Images(knowledge.training.pixels, attribute_classes(knowledge.training.cohort))
        sides = (real, _of_release(knowledge.own))
        choice = _of_release(knowledge.choice)
        behind = knowledge.choice.real.pixels[knowledge.choice.release.only_source()]
        augment = BatchAugmentation(shift_px=3, rotate_deg=5.0, zoom=0.05, contrast=0.2)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = _AttributeNet().to(self.device)

        def loss_of(rng: np.random.Generator) -> Tensor:
            batch = _joined([_draw(side, 32, rng) for side in sides])
            out = network(augment(torch.from_numpy(batch.pixels).to(self.device)))
            losses = []
            for name, logits in out.items():
                target = torch.from_numpy(batch.classes[name]).to(self.device)
                if (target != _UNKNOWN).any():
                    losses.append(F.cross_entropy(logits, target, ignore_index=_UNKNOWN))
            return torch.stack(losses).mean()

        def found_in(pixels: Pixels) -> float:
            found = self._predict(network, pixels)
            aucs = [_macro_auc(found[name], choice.classes[name]) for name in ATTRIBUTES]
            return float(np.nanmean(aucs)) if not np.isnan(aucs).all() else 0.0

        best, control = -1.0, network

        def validate() -> float:
            nonlocal best, control
            on_real = found_in(behind)
            if on_real > best:
                best, control = on_real, copy.deepcopy(network)
            return found_in(choice.pixels)

        train(network, loss_of, self.schedule, seed, validate, name=f"attribute, seed {seed}")
        return network, control

    def score(self, judged: Judged, context: RunContext) -> list[Result]:
        """``attribute_auc.<attribute>.v1`` (macro over classes, one against the others) on the release, and
        ``attribute_auc_real.<attribute>.v1`` on the real images behind it.

        Raises:
            UsageError: ``GM-U311`` before :meth:`fit`; ``GM-U303`` as :meth:`fit`.
        """
        if self._knowledge is None:
            raise UsageError("GM-U311", "the attribute attack has not been fitted")
        self._knowledge.refuse_overlap(judged)
        source = judged.release.only_source()
        patients = judged.real.cohort.patient_index[source]
        released = _of_release(judged)
        results = []
        for label, networks, pixels in (
            ("attribute_auc", self._networks, released.pixels),
            ("attribute_auc_real", self._controls, judged.real.pixels[source]),
        ):
            found = [self._predict(network, pixels) for network in networks]
            for name in ATTRIBUTES:
                known = released.classes[name] != _UNKNOWN
                if not known.any():
                    continue
                scores, classes = [of_seed[name][known] for of_seed in found], released.classes[name][known]
                of_class = [len(np.unique(patients[known][classes == k])) for k in np.unique(classes)]
                (value,) = patient_bootstrap_figures(
                    shared_statistics(scores, lambda s, classes=classes: _one_figure(_weighted_auc(s, classes))),
                    patients[known],
                    self.n_boot,
                    context.seed,
                    n_patients=[min(of_class)],
                )
                right = [float((s.argmax(1) == classes).mean()) for s in scores]
                share = np.bincount(classes).max() / len(classes)
                results.append(
                    context.result(
                        f"{label}.{name}.v1",
                        value,
                        n_patients=len(np.unique(patients[known])),
                        n_images=int(known.sum()),
                        extra={
                            "accuracy": round(float(np.mean(right)), 6),
                            "most_frequent_class": round(float(share), 6),
                            "classes": list(ATTRIBUTES[name]),
                            "attacker_seeds": list(self.seeds),
                        },
                    )
                )
        return results

    @torch.no_grad()
    def _predict(self, network: _AttributeNet, pixels: Pixels) -> dict[str, Float[np.ndarray, "n k"]]:
        network.eval()
        parts: dict[str, list[np.ndarray]] = {name: [] for name in ATTRIBUTES}
        for start in range(0, len(pixels), _BATCH):
            out = network(torch.from_numpy(pixels[start : start + _BATCH]).to(self.device))
            for name, logits in out.items():
                parts[name].append(logits.softmax(1).cpu().numpy())
        return {name: np.concatenate(found) for name, found in parts.items()}


def _draw(images: _Images, n: int, rng: np.random.Generator) -> _Images:
    i = rng.integers(0, len(images.pixels), n)
    return _Images(images.pixels[i], {name: values[i] for name, values in images.classes.items()})


def _one_figure(statistic: Callable[[np.ndarray], float]) -> Statistics:
    return lambda weights: (statistic(weights),)


def _weighted_auc(scores: Float[np.ndarray, "n k"], classes: Int[np.ndarray, "n"]) -> Callable[[np.ndarray], float]:
    """Macro AUC, each class against the others, as a function of weights; classes that are absent are left out."""
    columns = range(1, 2) if scores.shape[1] == 2 else range(scores.shape[1])
    tables = [SortedScores(scores[:, k], classes == k) for k in columns]

    def macro(weights: np.ndarray) -> float:
        values = np.array([table.auc(weights) for table in tables])
        return float(values[np.isfinite(values)].mean()) if np.isfinite(values).any() else float("nan")

    return macro


def _macro_auc(scores: Float[np.ndarray, "n k"], classes: Int[np.ndarray, "n"]) -> float:
    known = classes != _UNKNOWN
    return _weighted_auc(scores[known], classes[known])(np.ones(int(known.sum()))) if known.any() else float("nan")
