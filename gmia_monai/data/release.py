"""A release: the images that a system gives away, and, for who judges it, which images each one was made from.

Systems differ in their sources: one image (image to image), k images (k-same systems), none (generated). Attacks take
every kind, and say so where a kind makes no sense to them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from gmia_monai.data.cohort import Cohort
from gmia_monai.errors import UsageError
from gmia_monai.typing import IntArray

__all__ = ["POLICIES", "Convergence", "RealImages", "Release"]

POLICIES = ("pseudonymous", "unlinkable", "k_anonymous")


@dataclass(frozen=True, eq=False, repr=False)
class RealImages:
    """Real radiographs with what is known of them.

    Attributes:
        cohort: the records.
        pixels: the images, in [0, 1], in the order of the records.

    Raises:
        UsageError: ``GM-U300`` where the two differ in length.
    """

    cohort: Cohort
    pixels: Float32[np.ndarray, "n 1 h w"] = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.cohort) != len(self.pixels):
            raise UsageError("GM-U300", "images and records do not fit", got=f"{len(self.pixels)}, {len(self.cohort)}")

    def __len__(self) -> int:
        return len(self.cohort)

    def __repr__(self) -> str:
        return f"RealImages({self.cohort!r}, {self.pixels.shape[-1]} px)"

    def take(self, index: Int[np.ndarray, "m"] | Sequence[int]) -> RealImages:
        """Some of the images, in the order of ``index``."""
        index = np.asarray(index, dtype=np.int64)
        return RealImages(self.cohort[index], self.pixels[index])

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of the pixels: what embeddings are cached under."""
        return hash_pixels(self.pixels)


@dataclass(frozen=True, eq=False, repr=False)
class Convergence:
    """How a system that optimises each image came out.

    Attributes:
        converged: whether the system's own criterion was met.
        steps: updates that were made.
        settings: of the optimisation, what JSON can hold.
        description: the settings that matter in words.
    """

    converged: Bool[np.ndarray, "n"]
    steps: Int[np.ndarray, "n"]
    settings: Mapping[str, object]
    description: str = ""


@dataclass(frozen=True, eq=False, repr=False)
class Release:
    """What a system gives away of one real cohort.

    Attributes:
        system: name of the system and of the setting that sets it apart, e.g. ``gmia m=-0.5``.
        pixels: released images in [0, 1].
        sources: for each image the positions of its sources in the real cohort: one, k or none.
        policy: ``pseudonymous``, ``unlinkable``, ``k_anonymous`` or empty: what the system says of two released images
            of one patient.
        labels: findings that are released with the images, ``nan`` where unknown; None: none are.
        findings: names of the columns of ``labels``.
        convergence: of each image, where the system optimises and says so.

    Raises:
        UsageError: ``GM-U301`` where lengths differ, ``GM-U302`` for pixels that are not finite numbers in [0, 1],
            ``GM-U307`` for a policy that is none of :data:`POLICIES`.
    """

    system: str
    pixels: Float32[np.ndarray, "n 1 h w"] = field(repr=False)
    sources: tuple[tuple[int, ...], ...] = field(repr=False)
    policy: str = ""
    labels: Float[np.ndarray, "n k"] | None = field(default=None, repr=False)
    findings: tuple[str, ...] = ()
    convergence: Convergence | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sources", tuple(tuple(int(i) for i in s) for s in self.sources))
        if self.policy and self.policy not in POLICIES:
            expected = ", ".join(POLICIES) + ", or nothing"
            raise UsageError("GM-U307", "unknown policy of a release", got=self.policy, expected=expected)
        n = len(self.pixels)
        if (
            len(self.sources) != n
            or (self.labels is not None and self.labels.shape != (n, len(self.findings)))
            or (
                self.convergence is not None and not len(self.convergence.converged) == len(self.convergence.steps) == n
            )
        ):
            raise UsageError("GM-U301", "images, sources and labels of a release do not fit", got=f"{n} images")
        if n and not (np.isfinite(self.pixels).all() and 0.0 <= self.pixels.min() and self.pixels.max() <= 1.0):
            raise UsageError("GM-U302", "released pixels out of range", expected="finite, 0 to 1")

    def __len__(self) -> int:
        return len(self.pixels)

    def __repr__(self) -> str:
        return f"Release({self.system!r}, {len(self)} {self.kind} images)"

    @property
    def kind(self) -> str:
        """``one_to_one``, ``k_to_one`` or ``generated``."""
        if not any(self.sources):
            return "generated"
        return "one_to_one" if all(len(s) <= 1 for s in self.sources) else "k_to_one"

    @cached_property
    def image_of_source(self) -> dict[int, int]:
        """Position of the released image for the position of its only source; a source released twice keeps the
        first."""
        found: dict[int, int] = {}
        for i, source in enumerate(self.sources):
            if len(source) == 1:
                found.setdefault(source[0], i)
        return found

    def source_patients(self, real: Cohort) -> list[set[int]]:
        """For each image, the patients (positions in ``real.patients``) it was made from."""
        return [set(real.patient_index[list(source)].tolist()) if source else set() for source in self.sources]

    def only_source(self) -> IntArray:
        """Position of the source of each image.

        Raises:
            UsageError: ``GM-U303`` where an image has none or several.
        """
        if any(len(source) != 1 for source in self.sources):
            raise UsageError(
                "GM-U303", "this needs a release with one source an image", got=f"{self.kind} release {self.system}"
            )
        return np.array([source[0] for source in self.sources], dtype=np.int64)

    def take(self, index: Int[np.ndarray, "m"] | Sequence[int]) -> Release:
        """Some of the images, in the order of ``index``."""
        index = np.asarray(index, dtype=np.int64)
        found = self.convergence
        return replace(
            self,
            pixels=self.pixels[index],
            sources=tuple(self.sources[i] for i in index.tolist()),
            labels=None if self.labels is None else self.labels[index],
            convergence=found and replace(found, converged=found.converged[index], steps=found.steps[index]),
        )

    def with_pixels(self, pixels: Float32[np.ndarray, "n 1 h w"], system: str | None = None) -> Release:
        """The same sources with other pixels; for controls."""
        return replace(self, pixels=pixels, system=self.system if system is None else system, convergence=None)

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of pixels and sources: names the release in result lines."""
        digest = hashlib.sha256(hash_pixels(self.pixels).encode())
        digest.update(repr(self.sources).encode())
        return digest.hexdigest()


def hash_pixels(pixels: Float[np.ndarray, "n 1 h w"]) -> str:
    """SHA-256 of shape, type and values."""
    digest = hashlib.sha256(f"{pixels.shape} {pixels.dtype}".encode())
    digest.update(np.ascontiguousarray(pixels).tobytes())
    return digest.hexdigest()
