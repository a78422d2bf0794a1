"""Scores of a new image's pixels: the gate asks for them before a release, ``verify`` after it."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, UInt16

from gmia_monai.dicom.intensity import integer_to_unit
from gmia_monai.release.parts import TextFinder, Watching
from gmia_monai.release.pixels import model_image

__all__ = ["pixel_scores", "scores_with_sources"]


def pixel_scores(
    levels: UInt16[np.ndarray, "h w"], size: int, watch: Watching, find_text: TextFinder
) -> dict[str, list[float]]:
    """``contrast``, ``copy`` and ``text``: what the new image tells by itself.

    Args:
        levels: of the file as it is written.
        size: side of the model's image.
        watch: networks of the gate.
        find_text: looks for text.
    """
    new = model_image(levels, size).astype(np.float32)[None]
    return {
        "contrast": [float(new.std())],
        "copy": [float(watch.nearest_copy(new)[0])],
        "text": [float(len(find_text(integer_to_unit(levels, 16))))],
    }


def scores_with_sources(
    levels: UInt16[np.ndarray, "h w"],
    own: Float32[np.ndarray, "s s"],
    sources: Float32[np.ndarray, "m s s"],
    watch: Watching,
) -> dict[str, list[float]]:
    """``identity``, one score for each source, and ``utility_drift``, the mean change of the findings' probabilities.

    Args:
        levels: of the file as it is written.
        own: the image it was made of.
        sources: all images of the patient.
        watch: networks of the gate.
    """
    new = model_image(levels, own.shape[0]).astype(np.float32)[None]
    embedded = np.asarray(watch.embed(np.concatenate([new, sources])))
    drift = np.abs(np.asarray(watch.findings(new)) - np.asarray(watch.findings(own[None]))).mean()
    identity = [float(score) for score in watch.compare(embedded[0], embedded[1:])]
    return {"identity": identity, "utility_drift": [float(drift)]}
