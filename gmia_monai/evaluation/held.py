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
        from_records = None
        if found and None not in found:
            rows = [anonymizer.known_of(known[k].take([i])) for k, i in found]  # type: ignore[misc]
            from_records = None if any(row is None for row in rows) else np.concatenate(rows)
        return anonymizer.anonymize_pixels(pixels, seed, store, None, from_records)[0]

    return anonymize


def _key(image: Float32[np.ndarray, "1 h w"]) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(image, dtype=np.float32).tobytes()).digest()
