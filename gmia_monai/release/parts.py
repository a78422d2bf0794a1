"""Parts that a release is made with: what redraws images, and what looks at the result. They come in from outside."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float, Float32

from gmia_monai.dicom.text import Word
from gmia_monai.errors import UsageError
from gmia_monai.release.gate import Gate

__all__ = ["Parts", "Redrawing", "ReleasedImage", "TextFinder", "Watching", "WholeCheck"]


class Redrawing(Protocol):
    """A system that makes a new image from each.

    Attributes:
        image_size: side of its images.
        description: what it does, in plain letters.
        weights: SHA-256 of each network that has a part in it, by name.
    """

    @property
    def image_size(self) -> int: ...

    @property
    def description(self) -> str: ...

    @property
    def weights(self) -> Mapping[str, str]: ...

    def __call__(
        self,
        images: Float32[np.ndarray, "n s s"],
        known: Sequence[Mapping[str, Any]],
        handles: Sequence[str],
        patients: Sequence[str],
        seed: int,
    ) -> Float32[np.ndarray, "n s s"]:
        """New images in [0, 1]; the same arguments give the same ones.

        Args:
            images: sources in [0, 1].
            known: ``view``, ``sex`` and ``age`` of each, as far as the header says.
            handles: names of the images; what is drawn hangs on them.
            patients: names of the patients.
            seed: secret of the project.
        """


class Watching(Protocol):
    """Networks that judge new images; none of them has a part in making them.

    Attributes:
        weights: SHA-256 of each, by name.
    """

    @property
    def weights(self) -> Mapping[str, str]: ...

    def embed(self, images: Float32[np.ndarray, "n s s"]) -> Float[np.ndarray, "n d"]:
        """Embeddings of identity."""

    def compare(self, one: Float[np.ndarray, "d"], others: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "m"]:
        """Scores of one embedding with others; higher for one person."""

    def findings(self, images: Float32[np.ndarray, "n s s"]) -> Float[np.ndarray, "n k"]:
        """Probabilities of findings."""

    def strangeness(self, images: Float32[np.ndarray, "n s s"]) -> Float[np.ndarray, "n"]:
        """How unlike the images that the networks know; above 1 it is held."""

    def nearest_copy(self, images: Float32[np.ndarray, "n s s"]) -> Float[np.ndarray, "n"]:
        """Largest similarity with an image that the networks learned from."""


class TextFinder(Protocol):
    """Finds text in an image."""

    def __call__(self, image: Float[np.ndarray, "h w"]) -> list[Word]:
        """Words that are no markers; raises where it cannot look."""


@dataclass(frozen=True)
class ReleasedImage:
    """One released image beside its source.

    Attributes:
        handle: of the instance.
        patient: keyed hash.
        known: ``view``, ``sex`` and ``age``, as far as they are known.
        source: in [0, 1], at the model's size.
        released: what the written file gives at that size.
    """

    handle: str
    patient: str
    known: Mapping[str, Any] = field(repr=False)
    source: Float32[np.ndarray, "s s"] = field(repr=False)
    released: Float32[np.ndarray, "s s"] = field(repr=False)


class WholeCheck(Protocol):
    """Attacks a release as a whole."""

    def __call__(self, images: Sequence[ReleasedImage], watch: Callable[[int, int], None]) -> dict[str, Any]:
        """Plain values for the ledger, ``passed`` and ``told`` among them.

        Args:
            images: of the release.
            watch: is told how many parts of how many are done.
        """


@dataclass(frozen=True)
class Parts:
    """All parts of a release.

    Attributes:
        redraw: makes new images.
        watch: judges them.
        find_text: looks for text, before and after.
        gate: decides.
        calibration: SHA-256 of the file that the limits of the gate are from.
        rates: what that file says of how often the limits hold images by chance.
        batch: the attack on the whole release; None: none is made.

    Raises:
        UsageError: ``GM-U407`` where a network that judges is one of those that make.
    """

    redraw: Redrawing
    watch: Watching
    find_text: TextFinder
    gate: Gate
    calibration: str = field(default="")
    rates: Mapping[str, float] = field(default_factory=dict)
    batch: WholeCheck | None = None

    def __post_init__(self) -> None:
        both = set(self.redraw.weights.values()) & set(self.watch.weights.values())
        if both:
            names = sorted(name for name, digest in self.watch.weights.items() if digest in both)
            raise UsageError(
                "GM-U407",
                "a network that judges the images has a part in making them",
                got=", ".join(names),
                next_step="train the verifier of the gate by itself",
            )
