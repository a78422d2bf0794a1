"""Writing: a result in the size, depth and kind of its input, whole or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float, Integer
from monai.data import NibabelWriter, PILWriter

from gmia_monai.dicom.atomic import atomic_path
from gmia_monai.dicom.intensity import from_unit, integer_to_unit, quantise, values_to_unit
from gmia_monai.dicom.secondary_capture import CaptureIdentity, write_secondary_capture
from gmia_monai.errors import UsageError
from gmia_monai.transforms.frame import Frame
from gmia_monai.typing import PathLike

__all__ = ["OUTPUT_SUFFIX", "write_image"]

# JPEG is written as PNG: its loss would come after the margin has been measured.
OUTPUT_SUFFIX = {"png": ".png", "jpeg": ".png", "dicom": ".dcm", "nifti": ".nii.gz"}
# NIfTI points to the patient's right-to-left and posterior-to-anterior: rows downwards are minus y.
_NIFTI_AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])


def write_image(
    path_without_suffix: PathLike,
    image: Float[np.ndarray, "rows cols"],
    frame: Frame,
    *,
    capture: CaptureIdentity | None = None,
) -> tuple[Path, Float[np.ndarray, "rows cols"]]:
    """Write ``image`` as the kind of file that it came from: PNG (also for JPEG), DICOM secondary capture, NIfTI.

    Args:
        path_without_suffix: folder and name; the suffix is added.
        image: float in [0, 1], MONOCHROME2, as `restore` gives it.
        frame: of the input.
        capture: pseudonyms of the DICOM object; needed for DICOM only.

    Returns:
        the path, and the image in [0, 1] as `read_radiograph` finds it there, rounding included (for DICOM and NIfTI of
        16-bit integers in the input's own scale).

    Raises:
        UsageError: GM-U063 the image has another size than its frame, GM-U064 DICOM without ``capture``.
        InputError: GM-D008 NaN or infinity.
    """
    image = np.asarray(image)
    if image.shape != (frame.rows, frame.cols):
        raise UsageError(
            "GM-U063", "the image has another size than its input", got=image.shape, expected=(frame.rows, frame.cols)
        )
    path = Path(f"{Path(path_without_suffix)}{OUTPUT_SUFFIX[frame.kind]}")
    if frame.kind == "dicom":
        if capture is None:
            raise UsageError(
                "GM-U064", "DICOM output without pseudonyms", next_step="pass capture=CaptureIdentity(...)"
            )
        levels = from_unit(image, frame.bits)
        write_secondary_capture(path, levels, bits_stored=frame.bits, identity=capture)
        return path, integer_to_unit(levels, frame.bits)
    if frame.kind == "nifti":
        values, unit = _nifti_values(image, frame)
        _write_nifti(path, values)
        return path, unit
    levels = from_unit(image, frame.bits)
    _write_png(path, levels)
    return path, integer_to_unit(levels, frame.bits)


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
