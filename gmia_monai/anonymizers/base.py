"""What every system offers, so that one suite judges all: from real images and a seed to a release."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from gmia_monai.anonymizers.store import Unit, UnitStore, finished_units, to_levels
from gmia_monai.data.release import Convergence, RealImages, Release

__all__ = ["Anonymizer", "ImageAnonymizer", "Outcome", "image_seeds"]


@dataclass(frozen=True)
class Outcome:
    """How one image came out.

    Attributes:
        converged: whether the system met its own criterion.
        steps: updates that it made.
    """

    converged: bool = True
    steps: int = 0


@runtime_checkable
class Anonymizer(Protocol):
    """A system under judgement, whatever its releases are made from: one image each, several, or none.

    Attributes:
        name: of the system and of the setting that sets it apart.
        fingerprint: hash of the settings and the weights that decide the pixels.
        policy: what it says of two released images of one patient, see :data:`gmia_monai.data.release.POLICIES`.
    """

    name: str
    fingerprint: str
    policy: str

    def anonymize(self, real: RealImages, seed: int = 0, store: UnitStore | None = None) -> Release:
        """Makes a release; the same images, settings and seed give the same one, from finished units where ``store``
        has some."""


class ImageAnonymizer(ABC):
    """A system that makes one released image from one real image, a unit of images at a time.

    Pixels leave as what a file of 8 bits holds: multiples of 1/255.

    Args:
        name: name of the system and of the setting that sets it apart, e.g. ``gmia m=-0.5``.
        fingerprint: hash of the settings and the weights that decide the pixels; finished units are found by it.
        policy: what it says of two released images of one patient.
        unit_size: images that are worked on together.
        random: whether the seed changes anything; False lets every seed find the same finished units.
        settings: of the optimisation of each image, for the result lines; None for a system that does not optimise.
        description: the settings that matter in words.
    """

    def __init__(
        self,
        name: str,
        fingerprint: str,
        policy: str = "",
        unit_size: int = 16,
        random: bool = False,
        settings: Mapping[str, object] | None = None,
        description: str = "",
    ) -> None:
        self.name = name
        self.fingerprint = fingerprint
        self.policy = policy
        self.unit_size = unit_size
        self.random = random
        self.settings = settings
        self.description = description

    @abstractmethod
    def anonymize_batch(
        self, images: Float[Tensor, "b 1 h w"], seeds: Sequence[int]
    ) -> tuple[Float[Tensor, "b 1 h w"], list[Outcome]]:
        """Released images in [0, 1], not yet rounded to 8 bits, and how each came out.

        Args:
            images: real images in [0, 1].
            seeds: one an image.
        """

    def anonymize(self, real: RealImages, seed: int = 0, store: UnitStore | None = None) -> Release:
        """Makes a release of all images, each with itself as its only source; a system that optimises says how each
        came out, images from finished units as well.

        Args:
            real: what to anonymize.
            seed: decides, with an image's own pixels, what is random for it.
            store: finished units are kept there, and are not made again.
        """
        seeds, known = self.seeds_of(real, seed), self.known_of(real)
        pixels, outcomes = self.anonymize_pixels(real.pixels, seed, store, seeds, known)
        convergence = None
        if self.settings is not None:
            converged = np.array([outcome.converged for outcome in outcomes], dtype=bool)
            steps = np.array([outcome.steps for outcome in outcomes], dtype=np.int64)
            convergence = Convergence(converged, steps, self.settings, self.description)
        sources = tuple((i,) for i in range(len(real)))
        return Release(self.name, pixels, sources, self.policy, convergence=convergence)

    def seeds_of(self, real: RealImages, seed: int) -> Sequence[int] | None:
        """A seed for each image, where more than its own pixels and ``seed`` decide it; None: nothing else does."""
        return None

    def known_of(self, real: RealImages) -> Float32[np.ndarray, "n k"] | None:
        """What the system takes from the records of images; None: nothing."""
        return None

    def anonymize_known(
        self, images: Float[Tensor, "b 1 h w"], seeds: Sequence[int], known: Float32[np.ndarray, "b k"]
    ) -> tuple[Float[Tensor, "b 1 h w"], list[Outcome]]:
        """As :meth:`anonymize_batch`, for systems that take something from the records, see :meth:`known_of`."""
        return self.anonymize_batch(images, seeds)

    def anonymize_pixels(
        self,
        pixels: Float[np.ndarray, "n 1 h w"],
        seed: int = 0,
        store: UnitStore | None = None,
        seeds: Sequence[int] | None = None,
        known: Float32[np.ndarray, "n k"] | None = None,
    ) -> tuple[Float32[np.ndarray, "n 1 h w"], list[Outcome]]:
        """As :meth:`anonymize`, from pixels to pixels; ``seeds``: :meth:`seeds_of`, ``known``: :meth:`known_of`."""

        def unit_of(part: slice) -> Unit:
            unit = np.ascontiguousarray(pixels[part], dtype=np.float32)
            chance = image_seeds(unit, seed) if seeds is None else list(seeds[part])
            decides = "" if not self.random else seed if seeds is None else chance
            told = None if known is None else np.ascontiguousarray(known[part])

            def make() -> tuple[UInt8[np.ndarray, "b 1 h w"], list[tuple[bool, int]]]:
                images = torch.from_numpy(unit)
                if told is None:
                    found, how = self.anonymize_batch(images, chance)
                else:
                    found, how = self.anonymize_known(images, chance, told)
                return to_levels(found), [(o.converged, o.steps) for o in how]

            facts = f"{self.fingerprint} {decides} {unit.shape}".encode()
            return (facts, unit.tobytes(), b"" if told is None else told.tobytes()), make

        released = np.empty(pixels.shape, np.float32)
        outcomes: list[Outcome] = []
        for part, images, how in finished_units(len(pixels), self.unit_size, unit_of, store, self.name):
            released[part] = images
            outcomes += [Outcome(bool(converged), int(steps)) for converged, steps in how]
        return released, outcomes


def image_seeds(pixels: Float[np.ndarray, "b 1 h w"], seed: int) -> list[int]:
    """A seed for each image, from its own pixels: neither its place nor its neighbours decide what becomes of it."""
    digests = [hashlib.sha256(f"{seed} ".encode() + np.ascontiguousarray(image).tobytes()) for image in pixels]
    return [int.from_bytes(digest.digest()[:7], "little") for digest in digests]
