"""The system in an attacker's hands: from images and a seed to images, with the records that the attacker knows."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

import numpy as np
from jaxtyping import Float32

from gmia_monai.anonymizers.base import ImageAnonymizer
from gmia_monai.anonymizers.store import UnitStore
from gmia_monai.data.release import RealImages

__all__ = ["Anonymize", "held_anonymizer"]

Anonymize = Callable[[Float32[np.ndarray, "n 1 h w"], int], Float32[np.ndarray, "n 1 h w"]]
"""The system, from images and a seed to images."""


def held_anonymizer(
    anonymizer: ImageAnonymizer, store: UnitStore | None = None, parts: Iterable[RealImages] = ()
) -> Anonymize:
    """A system as who holds it can run it, with seeds of their own: those of the judged release are a secret.

    A system that takes something from the records gets those of the images, which whoever holds a real image knows as
    well; for images that are in none of ``parts``, it does without.

    Args:
        anonymizer: the system.
        store: finished units.
        parts: real images whose records attackers know.
    """
    known = list(parts)
    places: dict[bytes, tuple[int, int]] = {}

    def anonymize(pixels: Float32[np.ndarray, "n 1 h w"], seed: int) -> Float32[np.ndarray, "n 1 h w"]:
        if not places:
            places.update({_key(image): (k, i) for k, part in enumerate(known) for i, image in enumerate(part.pixels)})
        found = [places.get(_key(image)) for image in pixels]
        released = np.empty_like(pixels, dtype=np.float32)
        for k in sorted({place[0] for place in found if place is not None}):
            rows = [row for row, place in enumerate(found) if place is not None and place[0] == k]
            real = known[k].take([place[1] for place in found if place is not None and place[0] == k])
            facts = anonymizer.seeds_of(real, seed), anonymizer.known_of(real)
            released[rows] = anonymizer.anonymize_pixels(pixels[rows], seed, store, *facts)[0]
        unknown = [row for row, place in enumerate(found) if place is None]
        if unknown:
            released[unknown] = anonymizer.anonymize_pixels(pixels[unknown], seed, store)[0]
        return released

    return anonymize


def _key(image: Float32[np.ndarray, "1 h w"]) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(image, dtype=np.float32).tobytes()).digest()
