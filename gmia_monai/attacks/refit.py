"""Refitting of a verification network on releases: what every system must withstand, since its users can make them.

A batch holds one released image and one other image of each of many patients; each released image has to find its
patient's image among those of the batch, and the reverse (InfoNCE: van den Oord et al., 2018; both ways as in Radford
et al., ICML 2021). The two sides may have networks of their own, so that a system that turns identities into something
else, always in the same way, does not help itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from gmia_monai.attacks.base import TooLittleDataError
from gmia_monai.attacks.refit_pair import RefitPair
from gmia_monai.attacks.training import Schedule, train
from gmia_monai.transforms.augmentation import BatchAugmentation

__all__ = ["RefitRecipe", "Side", "refit"]


@dataclass(frozen=True)
class RefitRecipe(Schedule):
    """How a network is refitted.

    Attributes:
        patients: patients a batch; each gives one image to either side.
        matched: share of the batches whose patients, as far as there are enough, are of one stratum: strangers of the
            same sex, with the same view, are what an attacker is asked to tell apart.
        shift_px, rotate_deg, zoom, contrast, erase_prob: random changes, drawn for each image by itself.
    """

    patients: int = 48
    matched: float = 0.5
    shift_px: int = 4
    rotate_deg: float = 6.0
    zoom: float = 0.08
    contrast: float = 0.3
    erase_prob: float = 0.2

    def augmentation(self) -> BatchAugmentation:
        """The random changes of a batch."""
        return BatchAugmentation(
            shift_px=self.shift_px,
            rotate_deg=self.rotate_deg,
            zoom=self.zoom,
            contrast=self.contrast,
            erase_prob=self.erase_prob,
        )


@dataclass(frozen=True, eq=False)
class Side:
    """Images of one side of the comparison.

    Attributes:
        pixels: the images.
        patient: patient of each, in numbers that both sides share.
        exposure: radiograph behind each, in numbers that both sides share.
        stratum: what images are matched by, as a number; None: they all are of one.
    """

    pixels: Float[np.ndarray, "n 1 h w"]
    patient: Int[np.ndarray, "n"]
    exposure: Int[np.ndarray, "n"]
    stratum: Int[np.ndarray, "n"] | None = None

    def of_patients(self, patients: Int[np.ndarray, "p"]) -> Side:
        """Only the images of some patients."""
        kept = np.isin(self.patient, patients)
        stratum = None if self.stratum is None else self.stratum[kept]
        return Side(self.pixels[kept], self.patient[kept], self.exposure[kept], stratum)


def refit(
    pair: RefitPair,
    released: Side,
    other: Side,
    *,
    recipe: RefitRecipe,
    seed: int,
    validate: Callable[[RefitPair], float] | None = None,
    device: str = "cpu",
    to_source: bool = False,
    name: str = "refit",
) -> RefitPair:
    """Trains a pair of networks in place and gives back the best by ``validate``, the first one included.

    Two images of one exposure meet only where the patient has no others: they teach to compare exposures, not patients;
    an attacker who looks for the very source (T2) wants just these.

    Args:
        pair: from a network that knows real radiographs.
        released: released images.
        other: real images, or released ones again.
        recipe: how.
        seed: of all draws.
        validate: a figure that is better when higher; None keeps the last network.
        device: where it runs.
        to_source: only images of one exposure meet.
        name: word in the log.

    Raises:
        TooLittleDataError: ``GM-U314`` where fewer than two patients stand on both sides.
    """
    partners = _partners(released, other, to_source)
    if len(partners) < 2:
        raise TooLittleDataError("GM-U314", "too few patients on both sides", got=len(partners), expected="at least 2")
    batches = _Batches(partners, other.stratum, recipe)
    augment = recipe.augmentation()
    pair.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def loss_of(rng: np.random.Generator) -> Tensor:
        i, j = batches.draw(rng).T
        n = len(i)
        mirrored = (torch.rand(n, 1, 1, 1) < 0.5).to(device)
        sides = (augment(torch.from_numpy(x).to(device)) for x in (released.pixels[i], other.pixels[j]))
        logits = pair.matrix(*(torch.where(mirrored, x.flip(-1), x) for x in sides))
        target = torch.arange(n, device=device)
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2

    train(pair, loss_of, recipe, seed, None if validate is None else partial(validate, pair), name)
    return pair


def _partners(released: Side, other: Side, to_source: bool = False) -> dict[int, list[tuple[int, int]]]:
    """Positions (released, other) of the pairs of each patient who stands on both sides."""
    found: dict[int, list[tuple[int, int]]] = {}
    places: dict[int, list[int]] = {}
    for j, patient in enumerate(other.patient.tolist()):
        places.setdefault(patient, []).append(j)
    for i, patient in enumerate(released.patient.tolist()):
        if patient in places:
            found.setdefault(patient, []).extend((i, j) for j in places[patient])
    for patient, pairs in found.items():
        two = [(i, j) for i, j in pairs if (released.exposure[i] != other.exposure[j]) != to_source]
        # An image beside itself would teach nothing at all.
        found[patient] = two or [(i, j) for i, j in pairs if released is not other]
    return {patient: pairs for patient, pairs in found.items() if pairs}


class _Batches:
    """Draws one pair each of many patients.

    Args:
        partners: pairs of each patient.
        stratum: of the images of the other side; None: all are of one.
        recipe: how many, and how often of one stratum.
    """

    def __init__(
        self, partners: dict[int, list[tuple[int, int]]], stratum: Int[np.ndarray, "n"] | None, recipe: RefitRecipe
    ) -> None:
        self.partners = partners
        self.recipe = recipe
        self._strata: list[dict[int, list[tuple[int, int]]]] = []
        for number in [] if stratum is None else np.unique(stratum):
            inside = {p: [pair for pair in pairs if stratum[pair[1]] == number] for p, pairs in partners.items()}
            inside = {p: pairs for p, pairs in inside.items() if pairs}
            if len(inside) > 1:
                self._strata.append(inside)

    def draw(self, rng: np.random.Generator) -> Int[np.ndarray, "b 2"]:
        """Positions (released, other), each of another patient; of a stratum that is too small, all of its patients and
        others beside them."""
        n = min(self.recipe.patients, len(self.partners))
        drawn: dict[int, list[tuple[int, int]]] = {}
        if self._strata and rng.random() < self.recipe.matched:
            size = np.array([len(inside) for inside in self._strata])
            drawn = _some(self._strata[rng.choice(len(size), p=size / size.sum())], n, rng)
        if len(drawn) < n:
            drawn |= _some({p: pairs for p, pairs in self.partners.items() if p not in drawn}, n - len(drawn), rng)
        return np.array([pairs[rng.integers(len(pairs))] for pairs in drawn.values()])


def _some(
    partners: dict[int, list[tuple[int, int]]], n: int, rng: np.random.Generator
) -> dict[int, list[tuple[int, int]]]:
    """So many patients, or all: those with more pairs more often."""
    patients = list(partners)
    weight = np.sqrt([len(partners[p]) for p in patients])
    drawn = rng.choice(len(patients), size=min(n, len(patients)), replace=False, p=weight / weight.sum())
    return {patients[d]: partners[patients[d]] for d in drawn}
