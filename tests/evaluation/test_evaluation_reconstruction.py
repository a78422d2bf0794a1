"""PCA against scikit-learn; reconstruction figures against their definition."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError
from sklearn.decomposition import PCA as SklearnPCA

from gmia_monai.errors import UsageError
from gmia_monai.evaluation.reconstruction import evaluate_reconstruction, fit_pca, pca_reconstruct
from gmia_monai.metrics.image_quality import ssim
from gmia_monai.metrics.results import RunContext


def _images(n: int, side: int, seed: int = 0) -> torch.Tensor:
    """Smooth images of about twenty directions, and a little noise."""
    rng = np.random.default_rng(seed)
    basis = np.random.default_rng(9).normal(size=(20, side, side))
    basis = np.cumsum(np.cumsum(basis, axis=1), axis=2) / side
    images = np.tensordot(rng.normal(size=(n, 20)), basis, axes=1)
    images = 1 / (1 + np.exp(-images / 3)) + 0.02 * rng.normal(size=images.shape)
    return torch.from_numpy(np.clip(images, 0, 1)[:, None].astype(np.float32))


@pytest.mark.parametrize(("n", "side"), [(40, 32), (300, 8)])  # fewer, and more, images than pixels
def test_pca_is_sklearns(n, side):
    images = _images(n, side)
    flat = images.flatten(1).numpy()
    ours, theirs = fit_pca(flat, 6), SklearnPCA(6, svd_solver="full").fit(flat.astype(np.float64))
    assert ours.variance == pytest.approx(theirs.explained_variance_, rel=1e-4)
    signs = np.sign((ours.components * theirs.components_).sum(axis=1, keepdims=True))
    assert np.allclose(ours.components * signs, theirs.components_, atol=2e-3)
    assert np.allclose(ours.components @ ours.components.T, np.eye(6), atol=1e-5)
    test = _images(10, side, seed=1)
    back = theirs.inverse_transform(theirs.transform(test.flatten(1).double().numpy())).clip(0, 1)
    assert np.allclose(pca_reconstruct(ours, test).flatten(1).numpy(), back, atol=1e-4)
    assert ours.truncated(2).components.shape[0] == 2
    assert np.array_equal(ours.truncated(2).components, ours.components[:2])


def test_components_that_do_not_exist_are_refused():
    flat = _images(5, 8).flatten(1).numpy()
    assert fit_pca(flat, 4).components.shape == (4, 64)
    for number in (0, 5):
        with pytest.raises(UsageError, match="GM-U261"):
            fit_pca(flat, number)


def test_figures_are_means_of_the_images_and_beside_the_baselines():
    train, test = _images(60, 32), _images(25, 32, seed=2)
    patients, folders = np.arange(25) // 2, np.where(np.arange(25) < 10, "a", "b")
    pca = fit_pca(train.flatten(1).numpy(), 16)
    context = RunContext("ae_gan", "cxr32", command="c")

    def brighter(images):
        return images + 0.5  # far beyond 1 in places: the output must be clipped

    results = evaluate_reconstruction(
        brighter,
        test,
        patients,
        context,
        baselines={"pca_16": partial(pca_reconstruct, pca), "pca_2": partial(pca_reconstruct, pca.truncated(2))},
        folders=folders,
        batch_size=7,
        n_boot=100,
    )
    table = {(r.system, r.name): r for r in results}
    assert len(table) == 9
    clipped = (test + 0.5).clamp(0, 1)
    mse = (clipped - test).square().mean(dim=(1, 2, 3)).double()
    psnr = table["ae_gan", "reconstruction_psnr.v1"]
    assert psnr.value == pytest.approx(float((10 * torch.log10(1 / mse)).mean()), abs=1e-4)
    assert psnr.extra["pooled_psnr"] == pytest.approx(float(10 * torch.log10(1 / mse.mean())), abs=1e-4)
    assert psnr.extra["per_folder"]["a"]["n_images"] == 10
    assert psnr.extra["per_folder"]["a"]["mean"] == pytest.approx(float((10 * torch.log10(1 / mse[:10])).mean()), 1e-4)
    assert table["ae_gan", "reconstruction_ssim.v1"].value == pytest.approx(float(ssim(clipped, test).mean()), abs=1e-4)
    assert (psnr.n_patients, psnr.n_images) == (13, 25)
    assert psnr.low < psnr.value < psnr.high
    values = [table[system, "reconstruction_psnr.v1"].value for system in ("pca_16", "pca_2")]
    assert values[0] > values[1] + 1


def test_a_perfect_copy_is_infinite_and_said_to_be():
    test = _images(4, 32)
    results = evaluate_reconstruction(lambda x: x, test, np.arange(4), RunContext("unchanged", "cxr32"), n_boot=5)
    table = {r.name: r for r in results}
    assert table["reconstruction_psnr.v1"].value is None
    assert table["reconstruction_psnr.v1"].extra["reason"] == "infinite"
    assert table["reconstruction_ssim.v1"].value == pytest.approx(1.0, abs=1e-5)


def test_five_scales_where_the_size_allows():
    test = _images(2, 176)
    results = evaluate_reconstruction(lambda x: x * 0.9, test, np.arange(2), RunContext("x", "cxr176"), n_boot=5)
    assert "reconstruction_ms_ssim.v1" in {r.name for r in results}


def test_patients_must_fit_images():
    # with shapes executed, the annotation refuses the first of these before the function does
    with pytest.raises((UsageError, TypeCheckError), match="GM-U262|Type-check"):
        evaluate_reconstruction(lambda x: x, _images(4, 32), np.arange(3), RunContext("x", "p"))
    with pytest.raises(UsageError, match="GM-U262"):
        evaluate_reconstruction(lambda x: x, torch.zeros(0, 1, 32, 32), np.arange(0), RunContext("x", "p"))
