"""Small cohorts whose images carry a signature of their patient, and releases of them; shared by the attack tests."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from gmia_monai.attacks.base import AttackerKnowledge, Judged
from gmia_monai.data.cohort import Cohort, ImageRecord
from gmia_monai.data.release import RealImages, Release

SIZE = 32
IMAGES_EACH = 3
LOWER = np.repeat([0.0, 1.0], SIZE // 2)[:, None]


@cache
def real_images(name: str, n_patients: int = 24, noise: float = 0.03, seed: int = 0) -> RealImages:
    """Images of patients ``<name>0`` …: an 8 x 8 pattern of grey values for each patient, plus noise; the lower half
    is brighter in men."""
    rng = np.random.default_rng([seed, *name.encode()])
    records, pixels = [], []
    for p in range(n_patients):
        signature = np.kron(rng.random((8, 8)), np.ones((SIZE // 8, SIZE // 8)))
        sex, age = "MF"[int(rng.integers(2))], float(rng.integers(30, 34))
        for i in range(IMAGES_EACH):
            label = (("Effusion", float(rng.integers(2))),)
            path = Path(f"/{name}/{p}_{i}.png")
            records.append(
                ImageRecord(path, f"{name}{p}", view="PA", sex=sex, age=age + i % 2, labels=label, folder="f")
            )
            pixels.append(0.8 * signature + 0.2 * (sex == "M") * LOWER + noise * rng.standard_normal((SIZE, SIZE)))
    array = np.clip(np.stack(pixels), 0, 1).astype(np.float32)[:, None]
    return RealImages(Cohort(tuple(records), findings=("Effusion",)), array)


def released(real: RealImages, system: str, seed: int = 0, policy: str = "") -> Judged:
    """``unchanged``, ``noise``, or ``negative``, which inverts each image: identity at the far side."""
    pixels = {
        "unchanged": lambda: real.pixels,
        "negative": lambda: 1.0 - real.pixels,
        "noise": lambda: np.random.default_rng(seed).random(real.pixels.shape, dtype=np.float32),
    }[system]()
    return Judged(real, Release(system, pixels, tuple((i,) for i in range(len(real))), policy))


def flat(pixels: np.ndarray) -> np.ndarray:
    """An encoder that sees the signature: centred pixels."""
    flat = pixels.reshape(len(pixels), -1) - 0.5
    return (flat / np.linalg.norm(flat, axis=1, keepdims=True)).astype(np.float32)


def knowledge(system: str, **more: object) -> AttackerKnowledge:
    """What an attacker of that system knows; the frozen encoder is :func:`flat`."""
    return AttackerKnowledge(
        training=real_images("s", 16),
        own=released(real_images("a"), system, seed=1),
        choice=released(real_images("v"), system, seed=2),
        **{"frozen": flat, **more},  # type: ignore[arg-type]
    )


def judged(system: str, policy: str = "") -> Judged:
    """The release that is scored."""
    return released(real_images("t"), system, seed=3, policy=policy)
