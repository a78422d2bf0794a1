"""Systems under judgement, by name: controls and GMIA."""

from __future__ import annotations

from gmia_monai.anonymizers.base import Anonymizer, ImageAnonymizer, Outcome
from gmia_monai.anonymizers.controls import Noise, Reconstruction, Shuffled, Unchanged
from gmia_monai.anonymizers.gmia import GMIA
from gmia_monai.anonymizers.store import UnitStore

__all__ = [
    "ANONYMIZERS",
    "GMIA",
    "Anonymizer",
    "ImageAnonymizer",
    "Noise",
    "Outcome",
    "Reconstruction",
    "Shuffled",
    "Unchanged",
    "UnitStore",
]

ANONYMIZERS: dict[str, type[ImageAnonymizer]] = {
    "identity": Unchanged,
    "noise": Noise,
    "shuffled": Shuffled,
    "reconstruction": Reconstruction,
    "gmia": GMIA,
}
