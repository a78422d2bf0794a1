"""Writing: a new image as the kind of file that its source was, in its size, depth and photometric sense."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image

from gmia_monai.dicom.atomic import atomic_path
from gmia_monai.dicom.intensity import from_unit
from gmia_monai.release.instance import Instance
from gmia_monai.release.pixels import full_image

__all__ = ["encode", "put"]


def encode(instance: Instance, square: Float[np.ndarray, "s s"], background: str) -> bytes:
    """The file of a new image.

    Args:
        instance: what is known of its source.
        square: the new image at the model's size, in [0, 1].
        background: see :func:`gmia_monai.release.pixels.full_image`.

    Raises:
        InputError: ``GM-D008`` for an image with NaN or infinity.
    """
    image = full_image(square, instance.rows, instance.columns, background)
    levels = from_unit(image, instance.bits, instance.photometric)
    if instance.format == "dicom":
        return _dicom(instance, levels)
    if instance.format == "nifti":
        return _nifti(levels)
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, "PNG")
    return buffer.getvalue()


def _dicom(instance: Instance, levels: np.ndarray) -> bytes:
    dataset = instance.dataset()
    dataset.set_pixel_data(
        np.ascontiguousarray(levels), instance.photometric, instance.bits, generate_instance_uid=False
    )
    if dataset.Modality == "DX":
        dataset.PresentationLUTShape = "INVERSE" if instance.photometric == "MONOCHROME1" else "IDENTITY"
    dataset.WindowCenter, dataset.WindowWidth = str(2 ** (instance.bits - 1)), str(2**instance.bits)
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _nifti(levels: np.ndarray) -> bytes:
    import gzip

    from nibabel import Nifti1Image

    # NIfTI says nothing of its range: bytes and [0, 1] are read as such. It counts columns first, rows up.
    values = levels if levels.dtype == np.uint8 else (levels / np.float32(65535)).astype(np.float32)
    volume = Nifti1Image(np.ascontiguousarray(values.T), np.diag([-1.0, -1.0, 1.0, 1.0]))  # type: ignore[no-untyped-call]
    return gzip.compress(volume.to_bytes(), mtime=0)


def put(path: Path, raw: bytes) -> None:
    """Writes a file that is on the disk when this returns; one of that name is replaced, a link is not followed."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(raw)
