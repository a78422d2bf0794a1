"""Intensity: the one owner of every conversion between stored pixel values and [0, 1] in the MONOCHROME2 sense.

DICOM follows the grey-scale pipeline of PS3.3: modality LUT or rescale (C.11.1), then VOI LUT or window (C.11.2), then
the photometric sense (C.7.6.3.1.2), MONOCHROME1 being inverted. The range that becomes [0, 1]:

- with a VOI LUT or a window, its output range;
- without, and with 8 bits stored and no modality transform, 0 to 255 (-128 to 127 signed);
- without, otherwise, the image's own extremes: files of 10 to 12 bits often declare 16, and would come out black.

PNG and JPEG are scaled by their full range, 8 or 16 bits.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Integer, Shaped

from gmia_monai.dicom.intensity_tags import IntensityTags
from gmia_monai.dicom.limits import check_finite
from gmia_monai.errors import InputError

__all__ = ["apply_window", "dicom_to_unit", "from_unit", "integer_to_unit", "quantise", "values_to_unit"]


def dicom_to_unit(
    pixels: Shaped[np.ndarray, "h w"], tags: IntensityTags, *, rescaled: bool = False
) -> Float[np.ndarray, "h w"]:
    """Pixel values of one DICOM frame as float32 in [0, 1], MONOCHROME2 sense.

    Args:
        pixels: stored values, or values after rescale slope and intercept where ``rescaled`` is set.
        tags: what the header says of them.
        rescaled: slope and intercept have been applied, as MONAI's PydicomReader does where the header has them.

    Raises:
        InputError: GM-D007 where all values are the same and nothing says what range they stand in.
    """
    values = pixels.astype(np.float64)
    if tags.modality_lut is not None:
        values = tags.modality_lut((values - tags.intercept) / tags.slope if rescaled else values)
    elif not rescaled:
        values = values * tags.slope + tags.intercept
    if tags.voi_lut is not None:
        unit = tags.voi_lut(values) / (2**tags.voi_lut.bits - 1)
    elif tags.window is not None:
        unit = apply_window(values, *tags.window, tags.function)
    else:
        unit = values_to_unit(values, *_range(values, tags))
    if tags.photometric == "MONOCHROME1":
        unit = 1.0 - unit
    result: np.ndarray = unit.astype(np.float32)
    return result


def apply_window(
    values: Shaped[np.ndarray, "h w"], centre: float, width: float, function: str = "LINEAR"
) -> Float[np.ndarray, "h w"]:
    """Window of PS3.3 C.11.2.1.2 (LINEAR) and C.11.2.1.3 (LINEAR_EXACT, SIGMOID), output range [0, 1], float64.

    Args:
        values: output of the modality transform.
        centre: in the same unit.
        width: at least 1 for LINEAR, above 0 otherwise.
        function: LINEAR, LINEAR_EXACT or SIGMOID.
    """
    x = values.astype(np.float64)
    if function == "SIGMOID":
        # Beyond 700 the exponential overflows; the result is 0 or 1 to double precision long before.
        return 1.0 / (1.0 + np.exp(np.clip(-4.0 * (x - centre) / width, -700.0, 700.0)))
    if function == "LINEAR_EXACT":
        return np.clip((x - centre) / width + 0.5, 0.0, 1.0)
    if width == 1:
        return (x > centre - 0.5).astype(np.float64)
    return np.clip((x - (centre - 0.5)) / (width - 1.0) + 0.5, 0.0, 1.0)


def values_to_unit(values: Shaped[np.ndarray, "h w"], low: float, high: float) -> Float[np.ndarray, "h w"]:
    """``low`` to 0 and ``high`` to 1, linearly, clipped; float32.

    Raises:
        InputError: GM-D007 where ``low`` equals ``high``.
    """
    if low == high:
        raise InputError("GM-D007", "the image is constant", expected="at least two grey values")
    return np.clip((values.astype(np.float64) - low) / (high - low), 0.0, 1.0).astype(np.float32)


def integer_to_unit(pixels: Integer[np.ndarray, "h w"], bits: int) -> Float[np.ndarray, "h w"]:
    """Unsigned integers (PNG, JPEG) by their full range: value / (2^bits - 1), float32."""
    return values_to_unit(pixels, 0.0, float(2**bits - 1))


def from_unit(
    image: Float[np.ndarray, "h w"], bits: int, photometric: str = "MONOCHROME2"
) -> Integer[np.ndarray, "h w"]:
    """[0, 1] to unsigned integers of ``bits`` bits, to the nearest value (uint8 for 8 bits, uint16 above).

    Raises:
        InputError: GM-D011 outside 8 to 16 bits, GM-D004 unknown photometric interpretation, GM-D008 NaN or infinity.
    """
    if not 8 <= bits <= 16:
        raise InputError("GM-D011", "bit depth out of range", got=bits, expected="8 to 16")
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise InputError("GM-D004", "the image is not monochrome", expected="MONOCHROME1 or MONOCHROME2")
    check_finite(image)
    top = 2**bits - 1
    levels = np.floor(np.clip(image.astype(np.float64), 0.0, 1.0) * top + 0.5)
    if photometric == "MONOCHROME1":
        levels = top - levels
    integers: np.ndarray = levels.astype(np.uint8 if bits == 8 else np.uint16)
    return integers


def quantise(image: Float[np.ndarray, "h w"], bits: int) -> Float[np.ndarray, "h w"]:
    """The image as a reader finds it after writing at ``bits`` bits: float32 in [0, 1], 2^bits levels.

    Above 16 bits (NIfTI) float32 is written as it is, so only clipped.

    Raises:
        InputError: as `from_unit`.
    """
    if bits > 16:
        check_finite(image)
        clipped: np.ndarray = np.clip(image, 0.0, 1.0).astype(np.float32)
        return clipped
    return integer_to_unit(from_unit(image, bits), bits)


def _range(values: Shaped[np.ndarray, "h w"], tags: IntensityTags) -> tuple[float, float]:
    """Values that become 0 and 1 where the header gives neither VOI LUT nor window."""
    plain = tags.modality_lut is None and tags.slope == 1.0 and tags.intercept == 0.0
    if plain and tags.bits_stored == 8:
        return (-128.0, 127.0) if tags.signed else (0.0, 255.0)
    return float(values.min()), float(values.max())
