"""Refitting of a verification network on releases: what every system must withstand, since its users can make them.

A batch holds one released image and one other image of each of many patients; each released image has to find its
patient's image among those of the batch, and the reverse (InfoNCE: van den Oord et al., 2018; both ways as in Radford
et al., ICML 2021). The two sides may have networks of their own, so that a system that turns identities into something
else, always in the same way, does not help itself.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from gmia_monai.attacks.training import Schedule, train
from gmia_monai.errors import UsageError
from gmia_monai.networks.siamese import SiameseVerifier
from gmia_monai.transforms.augmentation import BatchAugmentation

__all__ = ["RefitPair", "RefitRecipe", "Side", "refit"]


@dataclass(frozen=True)
class RefitRecipe(Schedule):
    """How a network is refitted.

    Attributes:
        patients: patients a batch; each gives one image to either side.
        shift_px, rotate_deg, zoom, contrast, erase_prob: random changes, drawn for each image by itself.
    """

    patients: int = 48
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
    """

    pixels: Float[np.ndarray, "n 1 h w"]
    patient: Int[np.ndarray, "n"]
    exposure: Int[np.ndarray, "n"]

    def of_patients(self, patients: Int[np.ndarray, "p"]) -> Side:
        """Only the images of some patients."""
        kept = np.isin(self.patient, patients)
        return Side(self.pixels[kept], self.patient[kept], self.exposure[kept])


class RefitPair(nn.Module):
    """A network for either side, and what compares their embeddings.

    Args:
        network: ``IdentityNet`` or ``SiameseVerifier``, copied.
        shared: one network for both sides.
    """

    def __init__(self, network: nn.Module, shared: bool) -> None:
        super().__init__()
        self.released = copy.deepcopy(network).requires_grad_(True)
        self.real = self.released if shared else copy.deepcopy(network).requires_grad_(True)
        self.log_scale = nn.Parameter(torch.tensor(math.log(16.0)))
        self.sign: Tensor
        self.register_buffer("sign", torch.tensor(1.0))

    def compare(self, a: Tensor, b: Tensor) -> Tensor:
        """Score of pairs of embeddings, higher for one person."""
        if isinstance(self.released, SiameseVerifier):
            return self.sign * self.released.compare(a, b)
        return self.sign * F.cosine_similarity(a, b, dim=-1)

    def turn(self) -> None:
        """Reads scores the other way round: where a system inverts identity, the start is then a good one, not the
        worst."""
        self.sign.neg_()

    def matrix(self, released: Tensor, real: Tensor) -> Tensor:
        """Scaled score of each released image with each of the other side, ``[b, b]``."""
        a, b = self.released(released), self.real(real)
        scores = self.compare(a[:, None], b[None, :])
        factor = 1.0 if isinstance(self.released, SiameseVerifier) else self.log_scale.exp().clamp(max=64.0)
        return scores * factor


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

    Raises:
        UsageError: ``GM-U314`` where fewer than two patients stand on both sides.
    """
    partners = _partners(released, other, to_source)
    if len(partners) < 2:
        raise UsageError("GM-U314", "too few patients on both sides", got=len(partners), expected="at least 2")
    patients = list(partners)
    weight = np.sqrt([len(partners[p]) for p in patients])
    weight /= weight.sum()
    augment = recipe.augmentation()
    pair.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def loss_of(rng: np.random.Generator) -> Tensor:
        n = min(recipe.patients, len(patients))
        drawn = [partners[patients[d]] for d in rng.choice(len(patients), size=n, replace=False, p=weight)]
        i, j = np.array([pairs[rng.integers(len(pairs))] for pairs in drawn]).T
        mirrored = (torch.rand(n, 1, 1, 1) < 0.5).to(device)
        sides = (augment(torch.from_numpy(x).to(device)) for x in (released.pixels[i], other.pixels[j]))
        logits = pair.matrix(*(torch.where(mirrored, x.flip(-1), x) for x in sides))
        target = torch.arange(n, device=device)
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2

    train(pair, loss_of, recipe, seed, None if validate is None else partial(validate, pair), name="refit")
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
