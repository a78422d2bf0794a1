"""Local style alignment against loops over crops."""

from __future__ import annotations

import pytest
import torch

from gmia_monai.losses.style import crop_grams, local_style


def naive_grams(features: torch.Tensor, grid: int) -> torch.Tensor:
    rows, columns = features.shape[2] // grid, features.shape[3] // grid
    images = []
    for image in features:
        grams = []
        for i in range(grid):
            for j in range(grid):
                crop = image[:, i * rows : (i + 1) * rows, j * columns : (j + 1) * columns].reshape(len(image), -1)
                grams.append(sum(torch.outer(v, v) for v in crop.T) / crop.numel())
        images.append(torch.stack(grams))
    return torch.stack(images)


def naive_style(centroid: torch.Tensor, sources: torch.Tensor) -> torch.Tensor:
    found = []
    for own, theirs in zip(centroid, sources, strict=True):
        distances = []
        for source in theirs:
            for t in source:
                cosines = [float((s * t).sum() / (s.norm() * t.norm())) for s in own]
                s = own[cosines.index(max(cosines))]
                distances.append((s - t).square().sum())
        found.append(sum(distances) / len(distances))
    return torch.stack(found)


@pytest.mark.parametrize(("grid", "shape"), [(4, (2, 3, 8, 8)), (2, (1, 5, 4, 12)), (1, (3, 2, 5, 7))])
def test_a_gram_matrix_is_the_mean_outer_product_of_a_crop(grid, shape):
    torch.manual_seed(0)
    features = torch.randn(shape, dtype=torch.float64)
    torch.testing.assert_close(crop_grams(features, grid), naive_grams(features, grid))


def test_the_size_of_the_map_leaves_the_scale_alone():
    features = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    larger = features.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(crop_grams(features), crop_grams(larger))


def test_a_map_that_cannot_be_cut_is_refused():
    with pytest.raises(ValueError, match="multiples of the grid"):
        crop_grams(torch.zeros(1, 2, 8, 6))


def test_style_is_that_of_the_nearest_crops():
    torch.manual_seed(1)
    centroid, sources = (crop_grams(torch.randn(n, 3, 8, 8, dtype=torch.float64)) for n in (2, 6))
    sources = sources.unflatten(0, (2, 3))
    torch.testing.assert_close(local_style(centroid, sources), naive_style(centroid, sources))


def test_parts_that_have_changed_places_are_no_change_of_style():
    torch.manual_seed(2)
    grams = crop_grams(torch.randn(1, 4, 8, 8, dtype=torch.float64))
    moved = grams[:, torch.randperm(grams.shape[1])]
    assert float(local_style(grams, moved.unsqueeze(1))) < 1e-20
    assert float(local_style(grams, 2.0 * moved.unsqueeze(1))) > 1e-3, "but a stronger contrast is"


def test_the_gradient_goes_through_the_chosen_crops_alone():
    torch.manual_seed(3)
    crops = torch.stack([torch.eye(2), torch.tensor([[0.0, 1.0], [1.0, 0.0]])])[None].requires_grad_(True)
    local_style(crops, torch.eye(2).expand(1, 3, 1, 2, 2) * 3).sum().backward()
    assert torch.equal(crops.grad[0, 0], torch.eye(2) * -4.0) and not crops.grad[0, 1].any()


def test_a_black_crop_has_a_finite_gradient():
    crops = torch.zeros(1, 16, 3, 3, requires_grad=True)
    loss = local_style(crops, torch.ones(1, 2, 16, 3, 3))
    loss.sum().backward()
    assert loss.item() == pytest.approx(9.0) and torch.isfinite(crops.grad).all()
