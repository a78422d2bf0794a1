"""LoadRadiographd in MONAI's chains, configs and data sets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import DataLoader, PersistentDataset
from monai.transforms import Compose
from PIL import Image

from gmia_monai.errors import InputError
from gmia_monai.transforms import CentreSquared, LoadRadiographd, ResizeSquared, frame_key, read_radiograph

RNG = np.random.default_rng(6)


def test_image_and_frame_are_those_of_the_reader(tmp_path):
    Image.fromarray(RNG.integers(0, 255, (40, 50)).astype(np.uint8)).save(tmp_path / "a.png")
    out = LoadRadiographd("image", track_meta=True)({"image": tmp_path / "a.png"})
    image, frame = read_radiograph(tmp_path / "a.png")
    np.testing.assert_array_equal(out["image"].numpy(), image[None])
    assert out[frame_key("image")] == frame


def test_a_config_wires_the_chain_with_monais_augmentation(tmp_path):
    """As a bundle config does it: frozen part cached on disk, random part after it, batches of plain tensors."""
    for i in range(4):
        Image.fromarray(RNG.integers(0, 255, (50, 40)).astype(np.uint8)).save(tmp_path / f"{i}.png")
    config = {
        "chain": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "gmia_monai.transforms.LoadRadiographd", "keys": "image"},
                {"_target_": "gmia_monai.transforms.BorderCropd", "keys": "image"},
                {"_target_": "gmia_monai.transforms.CentreSquared", "keys": "image"},
                {"_target_": "gmia_monai.transforms.ResizeSquared", "keys": "image", "size": 32},
                {"_target_": "RandFlipd", "keys": "image", "prob": 0.5, "spatial_axis": 1},
                {"_target_": "RandRotated", "keys": "image", "prob": 1.0, "range_x": 0.1},
                {"_target_": "EnsureTyped", "keys": "image", "track_meta": False},
            ],
        }
    }
    chain = ConfigParser(config).get_parsed_content("chain")
    items = [{"image": str(path)} for path in sorted(tmp_path.glob("*.png"))]
    data = PersistentDataset(items, chain, cache_dir=tmp_path / "cache")
    first, second = (torch.stack([data[i]["image"] for i in range(4)]) for _ in range(2))
    assert first.shape == (4, 1, 32, 32) and 0 <= first.min() < first.max() <= 1
    assert len(list((tmp_path / "cache").glob("*.pt"))) == 4 and not torch.equal(first, second)
    assert type(next(iter(DataLoader(data, batch_size=4)))["image"]) is torch.Tensor


def test_training_batches_are_plain_tensors(tmp_path):
    Image.fromarray(RNG.integers(0, 255, (40, 40)).astype(np.uint8)).save(tmp_path / "a.png")
    out = Compose([LoadRadiographd("image"), CentreSquared("image"), ResizeSquared("image", 32)])(
        {"image": tmp_path / "a.png", "label": 1}
    )
    assert set(out) == {"image", "label"} and type(out["image"]) is torch.Tensor
    assert out["image"].dtype == torch.float32 and out["image"].shape == (1, 32, 32)


def test_missing_keys(tmp_path):
    with pytest.raises(KeyError):
        LoadRadiographd("image")({"other": 1})
    assert LoadRadiographd("image", allow_missing_keys=True)({"other": 1}) == {"other": 1}


def test_errors_keep_their_code_inside_a_monai_chain(tmp_path):
    """MONAI wraps what a transform raises in RuntimeError; the coded error is its cause."""
    (tmp_path / "a.png").write_bytes(b"broken")
    with pytest.raises(RuntimeError) as caught:
        Compose([LoadRadiographd("image")])({"image": tmp_path / "a.png"})
    assert isinstance(caught.value.__cause__, InputError) and caught.value.__cause__.code == "GM-D003"


def test_errors_name_the_file_only_where_asked(tmp_path):
    path = tmp_path / "broken.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(InputError) as quiet:
        LoadRadiographd("image")({"image": str(path)})
    with pytest.raises(InputError, match="broken.png") as named:
        LoadRadiographd("image", name_file=True)({"image": str(path)})
    assert "broken" not in str(quiet.value)
    assert named.value.code == quiet.value.code
