"""Frame, crop, resize and back."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from monai.data import CacheDataset, DataLoader
from monai.transforms import Compose
from PIL import Image

from gmia_monai.errors import UsageError
from gmia_monai.transforms import (
    BorderCropd,
    Box,
    CentreSquared,
    Frame,
    LoadRadiographd,
    ResizeSquared,
    collate_frames,
    restore,
)

RNG = np.random.default_rng(2)


def test_crops_add_up_and_stop_at_resize():
    frame = Frame(100, 80, 8).cropped(Box(10, 5, 60, 50)).cropped(Box(3, 4, 40, 40))
    assert frame.box == Box(13, 9, 40, 40) and frame.resized(64).model_size == 64
    with pytest.raises(UsageError, match="GM-U061"):
        frame.resized(64).cropped(Box(0, 0, 32, 32))


def test_restore_puts_the_crop_back_and_fills_with_the_results_own_border():
    image = RNG.random((50, 70)).astype(np.float32)
    box = Box(4, 9, 40, 40)
    patch = image[4:44, 9:49]
    frame = Frame(50, 70, 8).cropped(box).resized(40)
    back = restore(patch[None], frame)
    assert back.shape == (50, 70) and back.dtype == np.float32
    np.testing.assert_array_equal(back[4:44, 9:49], patch)
    outside = np.ones((50, 70), dtype=bool)
    outside[4:44, 9:49] = False
    border = np.median(np.concatenate([patch[0], patch[-1], patch[:, 0], patch[:, -1]]))
    assert np.unique(back[outside]) == pytest.approx([border])
    assert np.unique(restore(torch.from_numpy(patch), frame, fill="zero")[outside]) == [0]


def test_restore_scales_back_to_the_crop():
    rows, cols = np.mgrid[:128, :160]
    smooth = ((rows + cols) / 286).astype(np.float32)
    chain = Compose([CentreSquared("image"), ResizeSquared("image", 32)])
    out = chain({"image": torch.from_numpy(smooth)[None], "image_frame": Frame(128, 160, 8)})
    back = restore(out["image"], out["image_frame"])
    assert out["image"].shape == (1, 32, 32) and back.shape == (128, 160)
    np.testing.assert_allclose(back[4:-4, 20:-20], smooth[4:-4, 20:-20], atol=1e-3)


def test_frame_follows_the_image_through_a_loader(tmp_path):
    for i, shape in enumerate([(60, 90), (90, 50), (64, 64)]):
        Image.fromarray(RNG.integers(20, 255, shape).astype(np.uint8)).save(tmp_path / f"{i}.png")
    items = [{"image": str(p), "index": i} for i, p in enumerate(sorted(tmp_path.glob("*.png")))]
    chain = Compose(
        [
            LoadRadiographd("image", track_meta=True),
            BorderCropd("image"),
            CentreSquared("image"),
            ResizeSquared("image", 32),
        ]
    )
    batch = next(iter(DataLoader(CacheDataset(items, chain, progress=False), batch_size=3, collate_fn=collate_frames)))
    assert batch["image"].shape == (3, 1, 32, 32) and batch["index"].tolist() == [0, 1, 2]
    assert [(f.rows, f.cols) for f in batch["image_frame"]] == [(60, 90), (90, 50), (64, 64)]
    assert batch["image_frame"][0].box == Box(0, 15, 60, 60)
    assert pickle.loads(pickle.dumps(batch["image_frame"][1])) == batch["image_frame"][1]


def test_transforms_refuse_what_is_not_one_grey_image():
    for transform in (BorderCropd("image"), CentreSquared("image"), ResizeSquared("image", 32)):
        for shape in [(3, 40, 40), (40, 40), (1, 1, 40, 40)]:
            with pytest.raises(UsageError, match="GM-U065"):
                transform({"image": torch.rand(shape)})
