"""Metrics and pictures of auto-encoders."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from PIL import Image

from gmia_monai.handlers import ReconstructionPictures, quality_metrics
from gmia_monai.metrics import image_quality


@pytest.mark.parametrize(
    "size, names",
    [(32, {"ssim"}), (64, {"ssim", "ms_ssim_3scale"}), (128, {"ssim", "ms_ssim_3scale"}), (256, {"ssim", "ms_ssim"})],
)
def test_the_names_of_metrics_follow_the_size(size, names):
    assert quality_metrics(size).keys() == names
    assert quality_metrics(size, lambda a, b: a).keys() == names | {"perceptual"}


def test_metrics_are_means_over_images_whatever_the_batches():
    g = torch.Generator().manual_seed(0)
    real = torch.rand(5, 1, 64, 64, generator=g)
    fake = (real + 0.2 * torch.rand(5, 1, 64, 64, generator=g)).clamp(0, 1)
    engine = Engine(lambda e, i: {"pred": fake[i], "label": real[i]})
    for name, metric in quality_metrics(64, lambda a, b: (a - b).abs().mean(dim=(1, 2, 3))).items():
        metric.attach(engine, name)
    engine.run([slice(0, 4), slice(4, 5)])
    found = engine.state.metrics
    assert found["ssim"] == pytest.approx(image_quality.ssim(fake, real).mean().item(), rel=1e-5)
    assert found["perceptual"] == pytest.approx((fake - real).abs().mean().item(), rel=1e-5)
    assert all(isinstance(v, float) for v in found.values())


def test_a_picture_of_the_first_batch_of_each_run(tmp_path):
    real = torch.full((3, 1, 4, 4), 0.25)
    fake = torch.full((3, 1, 4, 4), 0.5)
    fake[1] = 1.4
    engine = Engine(lambda e, b: {"pred": fake + b, "label": real})
    logged = []

    class Tracker:
        def log_picture(self, path):
            logged.append(path.name)

    ReconstructionPictures(tmp_path / "new", Tracker(), n_images=2).attach(engine)
    engine.run([0.0, 9.0], max_epochs=1)
    pixels = np.asarray(Image.open(tmp_path / "new" / "epoch=0001.png"))
    assert pixels.shape == (12, 8)
    assert pixels[0, 0] == 64 and pixels[8, 0] == 191  # 0.25; 0.5 + 0.5 - 0.25
    assert abs(int(pixels[4, 0]) - 128) <= 1
    assert pixels[4, 4] == 255 and pixels[8, 4] == 255  # values above 1 are white
    assert logged == ["epoch=0001.png"]
    engine.run([0.0], max_epochs=1)
    assert len(logged) == 2
