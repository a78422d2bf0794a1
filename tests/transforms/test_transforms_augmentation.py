"""Random changes of batches: exact where they must be, drawn for each image, the same for a seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from gmia_monai.errors import UsageError
from gmia_monai.transforms import BatchAugmentation


def images(n: int = 8, h: int = 32, w: int = 32) -> torch.Tensor:
    return torch.rand(n, 1, h, w, generator=torch.Generator().manual_seed(0))


def test_nothing_asked_for_nothing_changed() -> None:
    x = images()
    assert torch.equal(BatchAugmentation()(x), x)


def test_flip_of_all_is_a_mirror_and_of_some_a_choice() -> None:
    x = images(200)
    assert torch.equal(BatchAugmentation(flip_prob=1.0)(x), x.flip(-1))
    torch.manual_seed(0)
    y = BatchAugmentation(flip_prob=0.3)(x)
    mirrored = (y == x.flip(-1)).flatten(1).all(1)
    assert torch.equal(y[~mirrored], x[~mirrored])
    assert 35 <= int(mirrored.sum()) <= 85


@pytest.mark.parametrize("shape", [(32, 32), (24, 40)])
def test_shift_moves_whole_pixels_and_repeats_the_border(shape: tuple[int, int]) -> None:
    x = images(64, *shape)
    torch.manual_seed(0)
    y = BatchAugmentation(shift_px=3)(x)
    padded = np.pad(x[:, 0].numpy(), ((0, 0), (3, 3), (3, 3)), mode="edge")
    found = set()
    for before, after in zip(padded, y[:, 0].numpy(), strict=True):
        errors = {
            (dy, dx): np.abs(before[3 + dy : 3 + dy + shape[0], 3 + dx : 3 + dx + shape[1]] - after).max()
            for dy in range(-3, 4)
            for dx in range(-3, 4)
        }
        best = min(errors, key=errors.get)
        assert errors[best] < 1e-4
        found.add(best)
    assert len(found) > 20
    assert max(abs(d) for shift in found for d in shift) == 3


@pytest.mark.parametrize("shape", [(33, 33), (33, 49)])
def test_rotation_and_zoom_against_scipy(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    smooth = ndimage.gaussian_filter(np.random.default_rng(0).random(shape), 2.0)
    monkeypatch.setattr("gmia_monai.transforms.augmentation._between", lambda b, low, high: torch.full((b,), high))
    y = BatchAugmentation(rotate_deg=20.0, zoom=0.2, affine_prob=1.0)(torch.from_numpy(smooth).float()[None, None])
    angle, size = np.deg2rad(20.0), 1.2
    matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) / size
    centre = (np.array(shape) - 1) / 2
    expected = ndimage.affine_transform(smooth, matrix, centre - matrix @ centre, order=1, mode="nearest")
    assert np.abs(y[0, 0].numpy() - expected).max() < 1e-4


def test_images_that_are_not_turned_stay_as_they_are() -> None:
    x = images(100)
    torch.manual_seed(0)
    same = (BatchAugmentation(rotate_deg=10.0, affine_prob=0.5)(x) - x).abs().flatten(1).amax(1) < 1e-4
    assert 30 <= int(same.sum()) <= 70


def test_zero_padding_darkens_the_corners() -> None:
    y = BatchAugmentation(rotate_deg=45.0, affine_prob=1.0, padding="zeros")(torch.ones(16, 1, 32, 32))
    assert float(y[:, :, 0, 0].min()) == 0.0
    assert torch.allclose(y[:, :, 16, 16], torch.ones(16, 1))


def test_contrast_keeps_black_and_order_and_stays_in_range() -> None:
    ramp = torch.linspace(0, 1, 32).expand(300, 1, 4, 32).contiguous()
    torch.manual_seed(0)
    y = BatchAugmentation(contrast=0.4)(ramp)
    assert float(y[..., 0].abs().max()) == 0.0
    assert bool((y.diff(dim=-1) > 0).all())
    assert float(y.max()) <= 1.2
    white = y[:, 0, 0, -1]  # a gamma leaves 1 at 1: what moves it is the gain
    assert 0.35 < float((white != 1.0).float().mean()) < 0.65
    assert float(white.min()) >= 0.8


def test_erasing_covers_one_rectangle_with_one_grey_value() -> None:
    x = images(100)
    torch.manual_seed(0)
    y = BatchAugmentation(erase_prob=1.0, erase_size=0.5)(x)
    for before, after in zip(x[:, 0], y[:, 0], strict=True):
        changed = before != after
        rows, columns = changed.any(1).nonzero().flatten(), changed.any(0).nonzero().flatten()
        box = after[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert float(box.min()) == float(box.max())
        assert 3 <= box.shape[0] <= 17
        assert 3 <= box.shape[1] <= 17
        assert int(changed.sum()) == box.numel()
    kept = (BatchAugmentation(erase_prob=0.2)(x) == x).flatten(1).all(1)
    assert int(kept.sum()) > 60


def test_a_seed_repeats_every_draw() -> None:
    augmentation = BatchAugmentation(0.5, 4, 10.0, 0.1, 0.5, 0.3, 0.5)
    torch.manual_seed(3)
    first = augmentation(images())
    torch.manual_seed(3)
    assert torch.equal(first, augmentation(images()))
    assert not torch.equal(first, augmentation(images()))


@pytest.mark.parametrize(
    "arguments", [{"flip_prob": 1.5}, {"zoom": 1.0}, {"contrast": -0.1}, {"shift_px": -1}, {"padding": "mirror"}]
)
def test_numbers_out_of_range_are_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="GM-U066"):
        BatchAugmentation(**arguments)
