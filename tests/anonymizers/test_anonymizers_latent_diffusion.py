"""Generated releases: findings, seeds, resumed units, and what the filter does to them."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from attack_cohorts import real_images
from tiny_diffusion import FINDINGS, SIZE, save_diffusion, tiny_diffusion

from gmia_monai.anonymizers import Anonymizer, UnitStore
from gmia_monai.anonymizers.latent_diffusion import LatentDiffusion
from gmia_monai.data.cohort import Cohort
from gmia_monai.data.release import RealImages
from gmia_monai.errors import UsageError
from gmia_monai.networks.latent_diffusion import LatentDiffusionNet
from gmia_monai.networks.pretrained import NETWORKS

FEW = {"n_steps": 2, "unit_size": 4}


class _Filter:
    """Rejects the first draws of each image, those of some for ever."""

    fingerprint, description = "f", "made up"

    def __init__(self, rejected_draws: int = 1) -> None:
        self.rejected_draws, self.calls = rejected_draws, 0

    def rejects(self, images: torch.Tensor) -> torch.Tensor:
        assert torch.allclose((images * 255).round(), images * 255, atol=1e-4), "what is released is judged"
        self.calls += 1
        return torch.full((len(images),), self.calls <= self.rejected_draws)


def _system(**more) -> LatentDiffusion:
    return LatentDiffusion(tiny_diffusion(), "w", **(FEW | more))


def _without_labels(real: RealImages, which: slice = slice(None)) -> RealImages:
    records = list(real.cohort.records)
    records[which] = [replace(r, labels=None) for r in records[which]]
    return RealImages(replace(real.cohort, records=tuple(records)), real.pixels)


def test_a_release_has_an_image_for_each_label_vector():
    real, system = real_images("t", 3), _system()
    release = system.anonymize(real, seed=1)
    assert isinstance(system, Anonymizer) and release.kind == "generated" and release.policy == "unlinkable"
    assert release.pixels.shape == (9, 1, SIZE, SIZE) and release.system == system.name == "latent diffusion g=1.5"
    assert np.abs(release.pixels * 255 - np.rint(release.pixels * 255)).max() < 1e-4
    assert release.findings == tuple(FINDINGS)
    own = real.cohort.label_matrix(["Effusion"])[:, 0]
    assert sorted(release.labels[:, 0]) == sorted(own)
    assert np.isnan(release.labels[:, 1]).all(), "nobody looked for it"
    assert system.last_rejection_rate == 0.0 and "no filter" in system.description


def test_the_order_of_labels_is_the_seeds():
    real, system = real_images("t", 8), _system()
    first, again, other = (system.draw_labels(real, seed)[:, 0] for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert not np.array_equal(first, real.cohort.label_matrix(["Effusion"])[:, 0])


def test_images_without_labels_take_those_of_others():
    real = real_images("t", 4)
    labels = _system().draw_labels(_without_labels(real, slice(0, 8)))
    assert len(labels) == 12 and not np.isnan(labels[:, 0]).any()
    known = real.cohort.label_matrix(["Effusion"])[8:, 0]
    assert sorted(labels[:, 0]) == sorted(np.tile(known, 3))


@pytest.mark.parametrize("real", ["nobody looked", "other findings"])
def test_without_known_findings_nothing_is_drawn(real):
    images = real_images("t", 2)
    if real == "nobody looked":
        images = _without_labels(images)
    else:
        images = RealImages(Cohort(tuple(replace(r, labels=(("Hernia", 1.0),)) for r in images.cohort)), images.pixels)
    with pytest.raises(UsageError) as caught:
        _system().anonymize(images)
    assert caught.value.code == "GM-U079"


def test_pixels_of_real_images_do_not_matter_and_seeds_and_people_do():
    real, system = real_images("t", 2), _system()
    first = system.anonymize(real, 0).pixels
    assert np.array_equal(first, system.anonymize(RealImages(real.cohort, 1 - real.pixels), 0).pixels)
    for other in (system.anonymize(real, 1), system.anonymize(real_images("a", 2), 0)):
        assert np.abs(first - other.pixels).mean() > 1e-3


def test_an_image_does_not_depend_on_its_unit():
    real = real_images("t", 3)
    pixels = [_system(unit_size=n).anonymize(real).pixels for n in (2, 9)]
    assert np.abs(pixels[0] - pixels[1]).max() <= 1.001 / 255, "but for rounding"


def test_finished_units_are_not_drawn_again(tmp_path, monkeypatch):
    real, store = real_images("t", 3), UnitStore(tmp_path)
    drawn = []
    original = LatentDiffusionNet.sample

    def stop_after_one(self, labels, *more, **and_more):
        if drawn:
            raise KeyboardInterrupt
        drawn.append(len(labels))
        return original(self, labels, *more, **and_more)

    monkeypatch.setattr(LatentDiffusionNet, "sample", stop_after_one)
    with pytest.raises(KeyboardInterrupt):
        _system().anonymize(real, 0, store)
    drawn.clear()
    monkeypatch.setattr(
        LatentDiffusionNet, "sample", lambda self, labels, *m: drawn.append(len(labels)) or original(self, labels, *m)
    )
    resumed = _system().anonymize(real, 0, store)
    assert drawn == [4, 1]
    assert np.array_equal(resumed.pixels, _system().anonymize(real, 0).pixels)
    drawn.clear()
    for other in (_system(guidance=2.0), _system(filter=_Filter(0))):
        other.anonymize(real, 0, store)
    assert sum(drawn) == 18, "other settings have units of their own"


def test_rejected_images_are_drawn_again():
    real = real_images("t", 1)
    plain, system = _system(), _system(filter=_Filter(2))
    release = system.anonymize(real)
    assert release.system == "latent diffusion g=1.5 filtered" and len(release) == 3
    assert np.abs(release.pixels - plain.anonymize(real).pixels).mean() > 1e-3
    assert system.last_rejection_rate == pytest.approx(2 / 3) and system.last_left_out == 0
    assert re.search(r"filter: made up; at most 10 draws.*66.67% of the draws rejected", system.description)


def test_what_is_always_rejected_is_left_out(tmp_path):
    real, store = real_images("t", 2), UnitStore(tmp_path)
    for _ in range(2):  # a resumed run says the same
        system = _system(filter=_Filter(3), max_draws=3)
        release = system.anonymize(real, 0, store)
        assert len(release) == len(release.labels) == 2 and system.last_left_out == 4
        assert system.last_rejection_rate == pytest.approx(12 / 14)
    with pytest.raises(UsageError) as caught:
        _system(filter=_Filter(10**6), max_draws=2).anonymize(real)
    assert caught.value.code == "GM-U079"


def test_recorded_weights_with_and_without_filter(tmp_path, monkeypatch):
    monkeypatch.setitem(NETWORKS, "LatentDiffusionNet", LatentDiffusionNet)
    monkeypatch.setattr("gmia_monai.data.roles._contents", lambda sets: [set() for _ in sets])
    models = save_diffusion(tmp_path / "models")
    plain = LatentDiffusion.from_weights(models, filtered=False, **FEW)
    assert plain.filter is None and plain.fingerprint != _system().fingerprint
    with pytest.raises(UsageError) as caught:
        LatentDiffusion.from_weights(models, **FEW)
    assert caught.value.code == "GM-U079"
    training, others = real_images("s", 6), real_images("v", 6)
    filtered = LatentDiffusion.from_weights(models, training, lambda: others, rate=0.2, n_nearest=2, **FEW)
    assert filtered.filter.calibration.rate == 0.2 and filtered.filter.n_nearest == 2
    assert filtered.filter.rejects(torch.from_numpy(training.pixels)).all()
    assert LatentDiffusion.from_weights(models, filter=filtered.filter, **FEW).fingerprint == filtered.fingerprint
