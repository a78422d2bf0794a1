"""Writing: a result in the size, depth and kind of its input, whole or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float, Integer
from monai.data import NibabelWriter, PILWriter

from gmia_monai.dicom.atomic import atomic_path
from gmia_monai.dicom.intensity import from_unit, integer_to_unit, quantise, values_to_unit
from gmia_monai.errors import UsageError
from gmia_monai.transforms.frame import Frame
from gmia_monai.typing import PathLike

__all__ = ["OUTPUT_SUFFIX", "write_image"]

# JPEG is written as PNG: its loss would come after the margin has been measured. DICOM is written by the release plane.
OUTPUT_SUFFIX = {"png": ".png", "jpeg": ".png", "dicom": ".png", "nifti": ".nii.gz"}
# NIfTI points to the patient's right-to-left and posterior-to-anterior: rows downwards are minus y.
_NIFTI_AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])


def write_image(
    path_without_suffix: PathLike, image: Float[np.ndarray, "rows cols"], frame: Frame
) -> tuple[Path, Float[np.ndarray, "rows cols"]]:
    """Write ``image`` as the kind of file that it came from, PNG or NIfTI; JPEG and DICOM become PNG.

    A DICOM file has a header, and what may stand in one is for the release plane to say: here there is none.

    Args:
        path_without_suffix: folder and name; the suffix is added.
        image: float in [0, 1], MONOCHROME2, as `restore` gives it.
        frame: of the input.

    Returns:
        the path, and the image in [0, 1] as `read_radiograph` finds it there, rounding included (for NIfTI of 16-bit
        integers in the input's own scale). PNG has 8 bits where the input has, else 16.

    Raises:
        UsageError: GM-U063 the image has another size than its frame.
        InputError: GM-D008 NaN or infinity.
    """
    image = np.asarray(image)
    if image.shape != (frame.rows, frame.cols):
        raise UsageError(
            "GM-U063", "the image has another size than its input", got=image.shape, expected=(frame.rows, frame.cols)
        )
    path = Path(f"{Path(path_without_suffix)}{OUTPUT_SUFFIX[frame.kind]}")
    if frame.kind == "nifti":
        values, unit = _nifti_values(image, frame)
        _write_nifti(path, values)
        return path, unit
    bits = 8 if frame.bits == 8 else 16
    levels = from_unit(image, bits)
    _write_png(path, levels)
    return path, integer_to_unit(levels, bits)


def _write_png(path: Path, levels: Integer[np.ndarray, "h w"]) -> None:
    # PILWriter's own scaling cuts fractions off instead of rounding, so it gets integers and no scale.
    writer = PILWriter(output_dtype=levels.dtype, scale=None)
    writer.set_data_array(levels, channel_dim=None)
    with atomic_path(path) as temporary:
        writer.write(temporary, reverse_indexing=False)


def _write_nifti(path: Path, values: np.ndarray) -> None:
    writer = NibabelWriter(output_dtype=values.dtype)
    writer.set_data_array(np.ascontiguousarray(values.T), channel_dim=None)
    # Not by set_metadata: it sends the array through its resampler, which fails on two dimensions (monai 1.6.1).
    writer.affine = _NIFTI_AFFINE
    with atomic_path(path) as temporary:
        writer.write(temporary)


def _nifti_values(image: Float[np.ndarray, "h w"], frame: Frame) -> tuple[np.ndarray, Float[np.ndarray, "h w"]]:
    """Values for the file, and what they mean in [0, 1]: floats as they are, integers in the input's scale and type."""
    unit = quantise(image, 32)
    if frame.dtype == "float32":
        return unit, unit
    values = np.rint(unit.astype(np.float64) * (frame.high - frame.low) + frame.low).astype(frame.dtype)
    return values, values_to_unit(values, frame.low, frame.high)
