"""Deformation: the corrected operator rests where the field is zero, the released one moves the border."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import map_coordinates

from gmia_monai.errors import UsageError
from gmia_monai.networks.deformation import (
    DeformationNet,
    deform,
    gaussian_blur,
    gaussian_taps,
    largest_shift_px,
)

TINY = (4, 4, 8, 8, 8, 4)


def _images(n: int = 3, h: int = 64, w: int = 64, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, 1, h, w, generator=torch.Generator().manual_seed(seed))


def _kernel() -> np.ndarray:
    row, column = np.mgrid[-4:5, -4:5]
    kernel = np.exp(-(row**2 + column**2) / (2 * 2.0**2))
    return kernel / kernel.sum()


@pytest.mark.parametrize(("padding", "mode"), [("replicate", "edge"), ("constant", "constant")])
def test_the_blur_is_a_convolution_with_the_normalised_kernel(padding, mode):
    x = _images(1, 20, 31).double()
    wide = np.pad(x[0, 0].numpy(), 4, mode=mode)
    naive = np.array([[(wide[i : i + 9, j : j + 9] * _kernel()).sum() for j in range(31)] for i in range(20)])
    found = gaussian_blur(x, gaussian_taps(), padding)[0, 0].numpy()
    np.testing.assert_allclose(found, naive, atol=1e-12)


def test_deform_is_the_equation():
    images, field = _images(1, 24, 40), _images(2, 24, 40, seed=1).permute(1, 0, 2, 3) * 2 - 1
    mu = 0.2
    blurred = np.stack(
        [
            np.array([[(w[i : i + 9, j : j + 9] * _kernel()).sum() for j in range(40)] for i in range(24)])
            for w in (np.pad(f, 4, mode="edge") for f in field[0].double().numpy())
        ]
    )
    row, column = np.mgrid[0:24, 0:40].astype(float)
    at = np.stack([row - mu * blurred[1] * 23 / 2, column - mu * blurred[0] * 39 / 2])
    at[0], at[1] = at[0].clip(0, 23), at[1].clip(0, 39)
    expected = map_coordinates(images[0, 0].double().numpy(), at, order=1)
    assert np.abs(at - np.stack([row, column])).max() > 1.0
    np.testing.assert_allclose(deform(images, field, mu, gaussian_taps())[0, 0].numpy(), expected, atol=2e-5)


def test_without_a_field_the_corrected_operator_rests_and_the_released_one_moves_the_border():
    ramp = torch.linspace(0, 1, 64).expand(1, 1, 64, 64).contiguous()  # the grey value tells the column
    still = torch.zeros(1, 2, 64, 64)
    assert (deform(ramp, still, 0.01, gaussian_taps()) - ramp).abs().max() * 63 < 1e-3, "pixels"
    images = (_images() * 255).round() / 255  # as files hold them
    same = deform(images, still.expand(3, -1, -1, -1), 0.01, gaussian_taps())
    assert torch.equal((same * 255).round(), (images * 255).round())
    moved = (deform(ramp, still, 0.01, gaussian_taps(), legacy=True) - ramp).abs()[0, 0] * 63
    assert moved[:, 0].max() > 10, "many pixels at the border"
    assert moved[8:-8, 8:-8].max() < 1e-3
    corner = (deform(images, still.expand(3, -1, -1, -1), 0.01, gaussian_taps(), legacy=True) - images).abs()
    assert corner[..., :4, :].mean() > 0.1


def test_inside_both_operators_are_equal():
    images, field = _images(2), 2 * torch.rand(2, 2, 64, 64, generator=torch.Generator().manual_seed(3)) - 1
    both = [deform(images, field, 0.04, gaussian_taps(), legacy) for legacy in (False, True)]
    torch.testing.assert_close(both[0][..., 4:-4, 4:-4], both[1][..., 4:-4, 4:-4], atol=1e-4, rtol=0)
    assert (both[0] - both[1]).abs().max() > 0.1


def test_no_pixel_moves_further_than_mu():
    assert largest_shift_px(0.01, 64) == pytest.approx(0.315) and largest_shift_px(0.01, 256) == pytest.approx(1.275)
    ramp = torch.linspace(0, 1, 64).expand(1, 1, 64, 64).contiguous()
    for sign in (-1.0, 1.0):
        moved = deform(ramp, torch.full((1, 2, 64, 64), sign), 0.01, gaussian_taps()) - ramp
        assert moved.abs().max() * 63 == pytest.approx(0.315, abs=1e-3)
        assert torch.sign(moved[0, 0, 5, 30]) == -sign, "a positive field samples from the left"


def test_the_network_deforms_by_its_own_field_and_learns():
    torch.manual_seed(0)
    network = DeformationNet(0.05, TINY)
    images = _images()
    field = network.eval().field(images)
    assert field.shape == (3, 2, 64, 64) and field.abs().max() < 1
    torch.testing.assert_close(network(images), deform(images, field, 0.05, gaussian_taps()))
    target = F.avg_pool2d(images, 5, 1, 2)
    (network(images) - target).square().mean().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())
    assert any(p.grad.abs().max() > 0 for p in network.parameters())


@pytest.mark.parametrize("legacy", [False, True])
def test_the_network_can_be_scripted(legacy):
    network = DeformationNet(0.02, TINY, legacy).eval()
    scripted = torch.jit.script(network)
    for images in (_images(), _images(2, 96, 48)):
        out = scripted(images)
        assert out.shape == images.shape and 0.0 <= out.min() and out.max() <= 1.0
        torch.testing.assert_close(out, network(images))


def test_the_published_network_has_the_published_size():
    assert sum(p.numel() for p in DeformationNet().parameters()) * 4 == pytest.approx(31.1e6, rel=0.01)


@pytest.mark.parametrize("settings", [{"mu": -0.1}, {"mu": float("nan")}, {"features": (8, 8)}, {"features": (0,) * 6}])
def test_unusable_settings_are_refused(settings):
    with pytest.raises(UsageError, match="GM-U013"):
        DeformationNet(**settings)
