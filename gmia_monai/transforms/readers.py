"""Readers: one radiograph from a file through MONAI's reader for its format, row-major, in [0, 1], with its `Frame`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float
from monai.data import NibabelReader, PILReader, PydicomReader
from pydicom.dataset import FileDataset

from gmia_monai.dicom.codestream import check_codestream
from gmia_monai.dicom.decode import decoding
from gmia_monai.dicom.grey import grey_channel, nifti_range
from gmia_monai.dicom.intensity import dicom_to_unit, integer_to_unit, values_to_unit
from gmia_monai.dicom.intensity_tags import IntensityTags
from gmia_monai.dicom.limits import check_dataset, check_image, check_size
from gmia_monai.dicom.silence import header_silence
from gmia_monai.errors import InputError
from gmia_monai.transforms.frame import Frame, Kind
from gmia_monai.typing import PathLike

__all__ = ["SUFFIXES", "file_kind", "read_radiograph"]

SUFFIXES: dict[str, Kind] = {
    ".png": "png",
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".dcm": "dicom",
    ".dicom": "dicom",
    ".dic": "dicom",
    ".ima": "dicom",
    ".nii": "nifti",
    ".nii.gz": "nifti",
}
# What pydicom needs to turn pixel data into an array; nothing else of a header reaches MONAI's metadata.
_PIXEL_KEYWORDS = (
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelData",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
)


def file_kind(path: PathLike) -> Kind:
    """Format of a file, by its suffix, or by the DICOM magic where the suffix says nothing.

    Raises:
        InputError: GM-D001 no such file, GM-D002 a format that is not read.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError("GM-D001", "no such file", next_step="check the path and the manifest")
    name = path.name.lower()
    for suffix, kind in SUFFIXES.items():
        if name.endswith(suffix):
            return kind
    with path.open("rb") as stream:
        if stream.read(132)[128:] == b"DICM":
            return "dicom"
    raise InputError("GM-D002", "the format of the file is not read", expected="PNG, JPEG, DICOM or NIfTI")


def read_radiograph(path: PathLike) -> tuple[Float[np.ndarray, "h w"], Frame]:
    """One grey radiograph.

    Args:
        path: PNG, JPEG, DICOM (8 to 16 bits, one frame) or NIfTI (one slice).

    Returns:
        float32 in [0, 1], MONOCHROME2, row-major, and its frame.

    Raises:
        InputError: GM-D001 missing or not to be opened, GM-D002 other format, GM-D003 cannot be decoded, GM-D004
            colour, GM-D005 several frames or slices, GM-D006 under 32 pixels, GM-D007 constant, GM-D008 NaN or
            infinity, GM-D009 no image in the file, GM-D010 too large, GM-D011 bit depth, GM-D012 look-up table or
            window cannot be applied.
    """
    with decoding():
        kind = file_kind(path)
        reader = {"png": _read_pil, "jpeg": _read_pil, "dicom": _read_dicom, "nifti": _read_nifti}[kind]
        image, frame = reader(Path(path))
    check_image(image)
    return image, frame


def _read_pil(path: Path) -> tuple[Float[np.ndarray, "h w"], Frame]:
    reader = PILReader(reverse_indexing=False, formats=("PNG", "JPEG"))
    picture = reader.read(path)
    kind: Kind = "png" if picture.format == "PNG" else "jpeg"
    check_size(picture.height, picture.width)
    if getattr(picture, "n_frames", 1) != 1:
        raise InputError("GM-D005", "the file holds several frames", got=picture.n_frames, expected=1)
    if picture.mode == "1":
        raise InputError("GM-D011", "bit depth out of range", got=1, expected="8 to 16")
    if picture.mode == "P":
        picture = picture.convert("RGBA")
    pixels = grey_channel(reader.get_data(picture)[0], picture.mode)
    bits = 8 if pixels.dtype == np.uint8 else 16
    frame = Frame(*pixels.shape, bits=bits, kind=kind, dtype=f"uint{bits}")
    return integer_to_unit(pixels, bits), frame


def _read_dicom(path: Path) -> tuple[Float[np.ndarray, "h w"], Frame]:
    reader = PydicomReader(swap_ij=False, prune_metadata=False)
    with header_silence():
        dataset = reader.read(path)
        check_dataset(dataset)
        check_codestream(dataset)
        tags = IntensityTags.from_dataset(dataset)
        # Stripped of the rescale, the reader gives stored values: the same conversion as everywhere, to the last bit.
        pixels, _ = reader.get_data(_pixels_only(dataset))
    frame = Frame(
        int(dataset.Rows),
        int(dataset.Columns),
        bits=int(dataset.BitsStored),
        photometric=str(dataset.PhotometricInterpretation),
        kind="dicom",
        dtype=pixels.dtype.newbyteorder("=").name,
    )
    return dicom_to_unit(pixels, tags), frame


def _pixels_only(dataset: FileDataset) -> FileDataset:
    """The data set in place, without every element that decoding does not need."""
    keep = {dataset[keyword].tag for keyword in _PIXEL_KEYWORDS if keyword in dataset}
    for tag in [tag for tag in dataset.keys() if tag not in keep]:
        del dataset[tag]
    return dataset


def _read_nifti(path: Path) -> tuple[Float[np.ndarray, "h w"], Frame]:
    reader = NibabelReader()
    volume = reader.read(path)
    shape = volume.shape
    if len(shape) < 2 or any(n != 1 for n in shape[2:]):
        raise InputError("GM-D005", "the file holds several slices", got=f"{len(shape)}-D", expected="one slice")
    check_size(shape[1], shape[0])
    values = np.asarray(reader.get_data(volume)[0])
    if values.dtype.names or np.iscomplexobj(values):
        raise InputError("GM-D004", "the image is not monochrome", expected="real grey values")
    # NIfTI counts columns first.
    values = np.ascontiguousarray(values.reshape(shape[:2]).T)
    check_image(values)
    low, high = nifti_range(values)
    narrow = np.issubdtype(values.dtype, np.integer) and values.dtype.itemsize <= 2
    bits = 8 * values.dtype.itemsize if narrow else 32
    dtype = values.dtype.newbyteorder("=").name if narrow else "float32"
    frame = Frame(*values.shape, bits=bits, kind="nifti", dtype=dtype, low=low, high=high)
    return values_to_unit(values, low, high), frame
