"""What the training of a classifier of patients needs: images held out of each patient, and where to start."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from gmia_monai.engines.finish import start_from
from gmia_monai.networks.patient_classifier import PatientClassifier
from gmia_monai.typing import PathLike

__all__ = ["hold_out_images", "start_patient_classifier"]


def hold_out_images(
    items: Sequence[Mapping[str, Any]], min_images: int = 3
) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """Parts a training list: one image, the first by hash, of each patient with ``min_images`` or more is held out.

    Args:
        items: of :func:`gmia_monai.engines.identity_datalist`, whose ``label`` is the number of the patient.
        min_images: below 2 it counts as 2, so that nobody is without an image to learn from.

    Returns:
        images to learn from, and images that are held out, each in the order of the list.
    """
    by_patient: dict[int, list[tuple[bytes, int]]] = {}
    for i, item in enumerate(items):
        digest = hashlib.sha256(str(item["key"]).encode("utf-8")).digest()
        by_patient.setdefault(int(item["label"]), []).append((digest, i))
    held = {min(images)[1] for images in by_patient.values() if len(images) >= max(min_images, 2)}
    return [item for i, item in enumerate(items) if i not in held], [items[i] for i in sorted(held)]


def start_patient_classifier(network: PatientClassifier, path: PathLike | None) -> PatientClassifier:
    """Fills the encoder from the weights of an identity encoder; an empty path leaves it as it was initialised.

    Raises:
        IntegrityError: as :func:`gmia_monai.weights.load_weights`.
    """
    start_from(network.encoder, path)
    return network
