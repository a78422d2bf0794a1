"""How much longer MONAI's random transforms, one image at a time, take than the same changes of a whole batch.

Prints one line of JSON: milliseconds an image of both, and their ratio, on one thread.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable

import torch
from monai.transforms import Compose, RandAdjustContrast, RandAffine, RandScaleIntensity
from torch import Tensor

from gmia_monai.transforms import BatchAugmentation

SHIFT_PX, ROTATE_DEG, ZOOM, CONTRAST = 4, 8.0, 0.1, 0.3


def one_at_a_time() -> Callable[[Tensor], Tensor]:
    """MONAI's transforms with the ranges of :class:`BatchAugmentation`."""
    change = Compose(
        [
            RandAffine(
                prob=0.5,
                rotate_range=math.radians(ROTATE_DEG),
                scale_range=ZOOM,
                translate_range=SHIFT_PX,
                padding_mode="border",
            ),
            RandAdjustContrast(prob=0.5, gamma=(1 - CONTRAST, 1 + CONTRAST)),
            RandScaleIntensity(prob=0.5, factors=CONTRAST / 2),
        ]
    )
    return lambda images: torch.stack([change(image) for image in images])


def milliseconds(change: Callable[[Tensor], Tensor], images: Tensor, repeats: int) -> float:
    """Median time an image."""
    change(images)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        change(images)
        times.append(time.perf_counter() - start)
    return statistics.median(times) / len(images) * 1e3


def main(arguments: list[str] | None = None) -> int:
    """Measures both in one run; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    images = torch.rand(options.batch_size, 1, options.image_size, options.image_size)
    batch = BatchAugmentation(shift_px=SHIFT_PX, rotate_deg=ROTATE_DEG, zoom=ZOOM, contrast=CONTRAST)
    slow = milliseconds(one_at_a_time(), images, options.repeats)
    fast = milliseconds(batch, images, options.repeats)
    print(json.dumps(vars(options) | {"monai_ms": slow, "batch_ms": fast, "ratio": slow / fast}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
