"""What every attack shares: what the attacker knows, what is judged, and the interface of an attack.

The roles of protocol v1 keep the judgement honest: an attacker learns from real images of S and A and from releases of
A, is chosen on V2, and is scored once on T.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from gmia_monai.data.release import RealImages, Release
from gmia_monai.data.roles import check_disjoint
from gmia_monai.errors import UsageError
from gmia_monai.metrics.results import Result, RunContext

__all__ = ["Attack", "AttackerKnowledge", "Embed", "Judged", "TooLittleDataError"]

Pixels = Float32[np.ndarray, "n 1 h w"]
Embed = Callable[[Pixels], Float32[np.ndarray, "n d"]]
"""Maps images to unit embeddings."""


class TooLittleDataError(UsageError):
    """The cohort or the release holds too little for one attack; others may still judge it."""


@dataclass(frozen=True)
class Judged:
    """A release beside the real images that its ``sources`` point into.

    Raises:
        UsageError: ``GM-U310`` where a source is not among the real images or the sizes of the images differ.
    """

    real: RealImages
    release: Release

    def __post_init__(self) -> None:
        largest = max((i for source in self.release.sources for i in source), default=-1)
        if largest >= len(self.real):
            raise UsageError("GM-U310", "a release names a source beyond its cohort", got=largest)
        if self.real.pixels.shape[1:] != self.release.pixels.shape[1:]:
            raise UsageError(
                "GM-U310",
                "released and real images differ in size",
                got=f"{self.release.pixels.shape[1:]} and {self.real.pixels.shape[1:]}",
                next_step="bring both to the attackers' image size",
            )

    @property
    def released(self) -> np.ndarray:
        """Which real images have a released image of their own, shape ``n``."""
        mask = np.zeros(len(self.real), dtype=bool)
        mask[list(self.release.image_of_source)] = True
        return mask

    def released_pixels(self) -> Pixels:
        """The released image of each real one, in the order of the real images; zeros where there is none."""
        pixels = np.zeros_like(self.real.pixels)
        for source, image in self.release.image_of_source.items():
            pixels[source] = self.release.pixels[image]
        return pixels


@dataclass(frozen=True)
class AttackerKnowledge:
    """What an attacker may use.

    Attributes:
        training: real images of the roles S and A.
        own: releases of real images of the role A, made by the attacker with the system that is judged.
        choice: releases of the role V2: attackers, signs and thresholds are chosen on them.
        frozen: embedding of the encoder that the system optimised against; None where there is none.
        anonymize: the system itself, from images and a seed to images; None where the attacker does not have it.
        members: releases of real images that the system was trained on (role S); only membership asks for them.

    Raises:
        ManifestError: ``GM-M032``, ``GM-M033`` where what is learned from and what is chosen on share a patient, or
            members are among those who should be none.
    """

    training: RealImages
    own: Judged
    choice: Judged
    frozen: Embed | None = None
    anonymize: Callable[[Pixels, int], Pixels] | None = None
    members: Judged | None = None

    def __post_init__(self) -> None:
        check_disjoint({"training": self.training.cohort, "choice": self.choice.real.cohort})
        check_disjoint({"own": self.own.real.cohort, "choice": self.choice.real.cohort})
        if self.members is not None:
            for name, part in (("own", self.own), ("choice", self.choice)):
                check_disjoint({"members": self.members.real.cohort, name: part.real.cohort})

    def refuse_overlap(self, judged: Judged) -> None:
        """Refuses a release of patients that an attacker has learned from or was chosen on.

        Raises:
            ManifestError: ``GM-M032``, ``GM-M033``.
        """
        known = {
            "training": self.training.cohort,
            "own": self.own.real.cohort,
            "choice": self.choice.real.cohort,
        }
        if self.members is not None:
            known["members"] = self.members.real.cohort
        for name, cohort in known.items():
            check_disjoint({name: cohort, "judged": judged.real.cohort})


@runtime_checkable
class Attack(Protocol):
    """One attack: learns what it may, then judges a release."""

    name: str

    def fit(self, knowledge: AttackerKnowledge) -> None:
        """Learns from what the attacker knows."""

    def score(self, judged: Judged, context: RunContext) -> Iterable[Result]:
        """Result lines for one release."""
