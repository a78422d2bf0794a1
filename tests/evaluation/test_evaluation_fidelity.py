"""Fidelity of releases: each line against the metric it is the mean of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from attack_cohorts import real_images, released

from gmia_monai.attacks.base import Judged
from gmia_monai.data.release import RealImages, Release
from gmia_monai.errors import UsageError
from gmia_monai.evaluation.fidelity import evaluate_fidelity
from gmia_monai.losses.perceptual import CXRPerceptualLoss, import_torchvision
from gmia_monai.metrics import image_quality
from gmia_monai.metrics.kid import KernelDistance
from gmia_monai.metrics.results import RunContext
from gmia_monai.networks.utility import UtilityNet

CONTEXT = RunContext("system", "cxr64")
REAL = real_images("t", 12)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    net = UtilityNet(2, "small")
    with torch.no_grad():
        for _ in range(5):
            net(torch.from_numpy(REAL.pixels))  # other than initial statistics
    return net.eval()


def blurred(strength=0.3, order=None):
    """A release in another order than its sources."""
    order = np.arange(len(REAL)) if order is None else order
    pixels = REAL.pixels[order] * (1 - strength) + strength * 0.5
    return Judged(REAL, Release("blurred", pixels.astype(np.float32), tuple((int(i),) for i in order)))


def lines_of(judged, network, **more):
    arguments = {"networks": {"loss": network}, "n_boot": 50} | more
    return {line.name.removesuffix(".v1"): line for line in evaluate_fidelity(judged, CONTEXT, **arguments)}


@torch.no_grad()
def test_lines_are_means_over_images_and_their_sources(network):
    order = np.random.default_rng(0).permutation(len(REAL))[:30]
    perceptual = CXRPerceptualLoss(network)
    lines = lines_of(blurred(order=order), network, perceptual={"lpips_cxr": perceptual}, findings=("x", "y"))
    x = torch.from_numpy(REAL.pixels)
    y = 0.7 * x + 0.15
    expected = {
        "fidelity_psnr": image_quality.psnr(x, y),
        "fidelity_ssim": image_quality.ssim(x, y),
        "fidelity_ms_ssim_3scale": image_quality.ms_ssim_3scale(x, y),
        "fidelity_lpips_cxr": perceptual(y, x),
        "feature_drift.loss": (network.features(x) - network.features(y)).square().mean(dim=1),
        "logit_drift.loss": (network(x) - network(y)).abs().mean(dim=1),
        "probability_drift.loss": (network(x).sigmoid() - network(y).sigmoid()).abs().mean(dim=1),
    }
    for name, values in expected.items():
        assert lines[name].value == pytest.approx(float(values[order].mean()), rel=1e-3), name
        assert lines[name].low <= lines[name].value <= lines[name].high
        assert (lines[name].n_images, lines[name].n_patients) == (
            30,
            len({REAL.cohort[int(i)].patient_id for i in order}),
        )
    drift = (network(x) - network(y)).abs()[order].mean(dim=0).tolist()
    assert lines["logit_drift.loss"].extra["per_finding"] == pytest.approx({"x": drift[0], "y": drift[1]}, abs=1e-5)
    assert set(lines) == {*expected, "kid.loss"}


def test_each_folder_has_its_mean(network):
    records = [replace(record, folder="ab"[i % 3 == 0]) for i, record in enumerate(REAL.cohort)]
    real = RealImages(replace(REAL.cohort, records=tuple(records)), REAL.pixels)
    pixels = REAL.pixels.copy()
    pixels[1::3] = 0.5  # one of the folder ``a``
    judged = Judged(real, Release("x", pixels, tuple((i,) for i in range(len(real)))))
    lines = lines_of(judged, network)
    folders = lines["fidelity_ssim"].extra["per_folder"]
    ssim = image_quality.ssim(torch.from_numpy(pixels), torch.from_numpy(REAL.pixels)).numpy()
    first = np.arange(len(real)) % 3 != 0
    assert folders["a"] == {"mean": pytest.approx(float(ssim[first].mean()), abs=1e-5), "n_images": int(first.sum())}
    assert folders["b"]["mean"] == pytest.approx(1.0, abs=1e-5)
    assert lines["fidelity_psnr"].extra["per_folder"]["b"]["mean"] is None, "unchanged images have no finite one"
    assert "per_folder" in lines["logit_drift.loss"].extra


def test_unchanged_images_do_not_differ_and_noise_does(network):
    lines, noise = (lines_of(released(REAL, system), network) for system in ("unchanged", "noise"))
    assert lines["fidelity_psnr"].value is None and lines["fidelity_psnr"].extra["reason"] == "infinite"
    assert (lines["fidelity_ssim"].low, lines["fidelity_ssim"].high) == pytest.approx((1.0, 1.0), abs=1e-5)
    assert lines["feature_drift.loss"].value == lines["logit_drift.loss"].value == 0.0
    assert (lines["kid.loss"].value, lines["kid.loss"].high) == pytest.approx((0.0, 0.0), abs=1e-6)
    assert noise["kid.loss"].low > 0.0
    assert noise["fidelity_ssim"].high < 0.2 and noise["logit_drift.loss"].low > 0.0


@torch.no_grad()
def test_generated_and_joint_releases_have_a_kernel_distance_alone(network):
    n = len(REAL)
    features = network.features(torch.from_numpy(REAL.pixels)).numpy()
    for sources in ([()] * n, [(i, (i + 1) % n) for i in range(n)]):
        judged = Judged(REAL, Release("made", REAL.pixels, tuple(sources)))
        lines = lines_of(judged, network)
        assert set(lines) == {"kid.loss"}
        expected = KernelDistance(features, features, REAL.cohort.patient_index, 100 + np.arange(n), sources)()
        assert lines["kid.loss"].value == pytest.approx(expected, abs=2e-6)
        assert lines["kid.loss"].n_images == n


def test_large_images_have_the_metrics_of_five_scales_too(network):
    import_torchvision()
    pytest.importorskip("piq")
    rng = np.random.default_rng(0)
    coarse = np.kron(rng.random((6, 1, 22, 22)), np.ones((8, 8))).astype(np.float32)
    noisy = np.clip(coarse + 0.05 * rng.standard_normal(coarse.shape), 0, 1).astype(np.float32)
    real = RealImages(REAL.cohort[:6], coarse)
    lines = lines_of(Judged(real, Release("noisy", noisy, tuple((i,) for i in range(6)))), network)
    x, y = torch.from_numpy(coarse), torch.from_numpy(noisy)
    assert lines["fidelity_iw_ssim"].value == pytest.approx(float(image_quality.iw_ssim(y, x).mean()), abs=1e-5)
    assert lines["fidelity_ms_ssim"].value == pytest.approx(float(image_quality.ms_ssim(x, y).mean()), abs=1e-5)


def test_findings_of_another_network_are_refused(network):
    with pytest.raises(UsageError, match="GM-U350"):
        lines_of(blurred(), network, findings=("x",))
