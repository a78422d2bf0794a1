"""Border crop and centred square, as transforms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gmia_monai.errors import UsageError
from gmia_monai.transforms import BorderCropd, Box, CentreSquared, Frame


def framed(shape=(120, 100), top=20, left=10, height=80, width=70) -> np.ndarray:
    image = np.zeros(shape, dtype=np.float32)
    image[top : top + height, left : left + width] = 0.5
    return image


def test_transforms_crop_and_record():
    image = framed()
    data = {"image": torch.from_numpy(image)[None], "image_frame": Frame(120, 100, 8), "other": 5}
    out = CentreSquared("image")(BorderCropd("image")(data))
    assert out["image_frame"].box == Box(25, 10, 70, 70) and out["other"] == 5
    assert torch.equal(out["image"][0], torch.from_numpy(image[25:95, 10:80])) and data["image"].shape == (1, 120, 100)
    assert BorderCropd("image")({"image": data["image"]})["image"].shape == (1, 80, 70)


def test_mask_key():
    mask = torch.zeros(1, 120, 100)
    mask[:, 50:60, 30:40] = 1
    out = CentreSquared("image", mask_key="mask")({"image": torch.rand(1, 120, 100), "mask": mask})
    assert out["image"].shape == (1, 70, 70) and out["mask"].shape == (1, 120, 100)
    with pytest.raises(UsageError, match="GM-U062"):
        CentreSquared("image", mask_key="mask")({"image": torch.rand(1, 60, 60), "mask": mask})
