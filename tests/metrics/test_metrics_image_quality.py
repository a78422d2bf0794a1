"""Image quality against scikit-image and a re-statement of multi-scale SSIM on top of it."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from skimage.transform import downscale_local_mean

from gmia_monai.errors import UsageError
from gmia_monai.losses.perceptual import import_torchvision
from gmia_monai.metrics.image_quality import iw_ssim, mean_squared_error, ms_ssim, ms_ssim_3scale, psnr, ssim


def _pair(side: int, noise: float = 0.05, batch: int = 3):
    rng = np.random.default_rng(side)
    smooth = np.cumsum(np.cumsum(rng.normal(size=(batch, side, side)), axis=1), axis=2)
    smooth -= smooth.min(axis=(1, 2), keepdims=True)
    x = smooth / smooth.max(axis=(1, 2), keepdims=True)
    y = np.clip(x + noise * rng.normal(size=x.shape), 0, 1)
    return tuple(torch.from_numpy(a[:, None].astype(np.float32)) for a in (x, y))


def _skimage_ssim(x, y, window=11, full=False):
    # skimage's Gaussian window has 2 * int(3.5 * 1.5 + 0.5) + 1 = 11 px; a shorter one needs a smaller truncation
    truncate = {11: 3.5, 7: 2.0}[window]
    return structural_similarity(
        x, y, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, truncate=truncate, full=full
    )


def test_psnr_is_skimages_per_image():
    x, y = _pair(64)
    ours = psnr(x, y)
    assert ours.shape == (3,)
    for i in range(3):
        assert float(ours[i]) == pytest.approx(peak_signal_noise_ratio(x[i, 0].numpy(), y[i, 0].numpy(), data_range=1))
    assert torch.allclose(10 * torch.log10(1 / mean_squared_error(x, y)), ours)
    assert torch.isinf(psnr(x, x)).all()


@pytest.mark.parametrize("side", [32, 64, 128])
def test_ssim_is_skimages_per_image(side):
    x, y = _pair(side)
    for i, value in enumerate(ssim(x, y)):
        assert float(value) == pytest.approx(_skimage_ssim(x[i, 0].numpy(), y[i, 0].numpy()), abs=2e-4)


def _contrast_and_ssim(x, y):
    """Mean contrast-structure term and SSIM over full windows, from skimage's uncropped maps."""
    _, whole = _skimage_ssim(x, y, full=True)
    inside = (slice(5, -5), slice(5, -5))
    from scipy.ndimage import gaussian_filter

    mean_x, mean_y = (gaussian_filter(a.astype(np.float64), 1.5, truncate=3.5) for a in (x, y))
    luminance = (2 * mean_x * mean_y + 1e-4) / (mean_x**2 + mean_y**2 + 1e-4)
    return (whole / luminance)[inside].mean(), whole[inside].mean()


def _naive_ms_ssim(x, y, weights):
    product = 1.0
    for level, weight in enumerate(weights):
        contrast, whole = _contrast_and_ssim(x, y)
        product *= max(whole if level == len(weights) - 1 else contrast, 0.0) ** weight
        x, y = (downscale_local_mean(a, (2, 2)) for a in (x, y))
    return product


@pytest.mark.parametrize(
    ("metric", "side", "weights"),
    [
        (ms_ssim, 176, np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333])),
        (ms_ssim_3scale, 64, np.array([0.0448, 0.2856, 0.3001]) / 0.6305),
        (ms_ssim_3scale, 128, np.array([0.0448, 0.2856, 0.3001]) / 0.6305),
    ],
)
def test_multi_scale_is_the_product_over_scales(metric, side, weights):
    x, y = _pair(side, noise=0.1)
    for i, value in enumerate(metric(x, y)):
        naive = _naive_ms_ssim(x[i, 0].numpy().astype(float), y[i, 0].numpy().astype(float), weights)
        assert float(value) == pytest.approx(naive, abs=1e-3)
        assert 0.1 < naive < 0.99


def test_small_images_have_a_small_window():
    x, y = _pair(32)
    value = ms_ssim_3scale(x, y)
    assert ((value > 0) & (value < 1)).all()
    assert torch.allclose(ms_ssim_3scale(x, x), torch.ones(3), atol=1e-5)


def test_quality_falls_with_noise():
    values = [[float(m(*_pair(64, noise)).mean()) for m in (psnr, ssim, ms_ssim_3scale)] for noise in (0.02, 0.1, 0.3)]
    assert (np.diff(np.array(values), axis=0) < 0).all()


def test_sizes_that_do_not_fit_are_refused():
    x, _ = _pair(128)
    with pytest.raises(UsageError, match="GM-U232"):
        ms_ssim(x, x)
    # with shapes executed, the annotation refuses first
    with pytest.raises((UsageError, TypeCheckError), match="GM-U231|Type-check"):
        psnr(x, x[:2])


@pytest.fixture
def piq():
    import_torchvision()
    return pytest.importorskip("piq")


def test_piq_agrees_on_psnr_ssim_and_ms_ssim(piq):
    x, y = _pair(192)
    for ours, theirs in (
        (psnr(x, y), piq.psnr(x, y, reduction="none")),
        (ssim(x, y), piq.ssim(x, y, downsample=False, reduction="none")),
        (ms_ssim(x, y), piq.multi_scale_ssim(x, y, reduction="none")),
    ):
        torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=1e-4)


def test_iw_ssim_falls_with_noise_and_is_one_for_equal_images(piq):
    x, little = _pair(161, 0.02, batch=2)
    _, much = _pair(161, 0.2, batch=2)
    torch.testing.assert_close(iw_ssim(x, x), torch.ones(2), atol=1e-4, rtol=0)
    assert (iw_ssim(little, x) > iw_ssim(much, x) + 0.1).all()
    torch.testing.assert_close(
        iw_ssim(x, little), torch.cat([iw_ssim(x[i : i + 1], little[i : i + 1]) for i in (0, 1)])
    )


def test_iw_ssim_of_a_black_reference_is_not_measurable_and_spares_the_others(piq):
    x, y = _pair(161, batch=2)
    x[0] = 0.0
    assert torch.isnan(iw_ssim(y, x)).tolist() == [True, False]
    assert 0 <= float(iw_ssim(x[:1], y[:1])) < 0.1


def test_iw_ssim_refuses_small_images_and_says_what_is_missing(monkeypatch):
    x, y = _pair(160, batch=1)
    with pytest.raises(UsageError, match="GM-U232"):
        iw_ssim(x, y)
    monkeypatch.setitem(sys.modules, "piq", None)
    with pytest.raises(UsageError, match="GM-U353"):
        iw_ssim(*_pair(161, batch=1))
