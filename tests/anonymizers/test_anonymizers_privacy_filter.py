"""The privacy filter: which images it rejects, and that its threshold keeps the rate that it was given."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from attack_cohorts import real_images
from tiny_diffusion import save_diffusion

from gmia_monai.anonymizers.privacy_filter import PrivacyFilter, threshold_at_rate
from gmia_monai.data.release import RealImages
from gmia_monai.data.roles import check_disjoint
from gmia_monai.errors import ManifestError, UsageError
from gmia_monai.networks import SiameseVerifier


class _Pixels(torch.nn.Module):
    """Retrieval by what the image shows."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image.flatten(1) - 0.5


class _Compare(SiameseVerifier):
    """Logit 6 for equal images, less in proportion to their mean difference."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image.flatten(1)

    def compare(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return 6.0 - 60.0 * (a - b).abs().mean(dim=-1)


def _filter(training: RealImages, **more: object) -> PrivacyFilter:
    return PrivacyFilter(training, _Pixels(), _Compare(features=4), **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return save_diffusion(tmp_path_factory.mktemp("models"))


@pytest.fixture
def without_files(monkeypatch):
    """Cohorts of these tests have no files whose content could be compared."""
    monkeypatch.setattr("gmia_monai.data.roles._contents", lambda sets: [set() for _ in sets])


def test_a_copy_is_rejected_and_noise_is_not():
    training = real_images("s", 16)
    found = _filter(training, threshold_logit=2.0)
    images = torch.from_numpy(training.pixels[:5])
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(0))
    assert found.rejects(images).all() and not found.rejects(noise).any()
    logits, best, nearest = found.nearest(images)
    assert torch.allclose(logits, torch.full((5,), 6.0)) and best.tolist() == nearest.tolist() == list(range(5))


def test_the_score_is_the_largest_over_the_nearest():
    training, others = real_images("s", 16), torch.from_numpy(real_images("v", 4).pixels)
    found = _filter(training, n_nearest=3)
    flat, known = others.flatten(1), torch.from_numpy(training.pixels).flatten(1)
    for i, image in enumerate(flat):
        cosines = torch.nn.functional.cosine_similarity(image[None] - 0.5, known - 0.5)
        nearest = sorted(range(len(known)), key=lambda j: -float(cosines[j]))[:3]  # noqa: B023
        expected = max(6.0 - 60.0 * float((image - known[j]).abs().mean()) for j in nearest)
        assert float(found.scores(others[i : i + 1])) == pytest.approx(expected, abs=1e-3)
    assert (found.scores(others) >= _filter(training, n_nearest=1).scores(others) - 1e-5).all()
    assert _filter(training, n_nearest=10**6).n_nearest == len(training)


@pytest.mark.parametrize("rate", [0.0, 0.001, 0.01, 0.1, 0.37])
def test_the_threshold_keeps_its_rate(rate):
    scores = np.random.default_rng(0).normal(size=200)
    tau = threshold_at_rate(scores, rate)
    assert (scores >= tau).mean() == pytest.approx(math.floor(rate * 200) / 200)
    tied = np.repeat([0.0, 1.0], 100)
    assert (tied >= threshold_at_rate(tied, rate)).mean() <= rate


@pytest.mark.parametrize(("negatives", "n"), [("nearest", 72), ("random", 72 * 48)])
def test_recorded_networks_get_a_threshold_of_the_stated_rate(models, without_files, negatives, n):
    training, others = real_images("s", 16), real_images("v", 24)
    found = PrivacyFilter.calibrated(models, training, others, 0.1, negatives, n_nearest=2)
    c = found.calibration
    assert c is not None and (c.n, c.n_patients, c.rate, c.negatives) == (n, 24, 0.1, negatives)
    assert c.tau == pytest.approx(1 / (1 + math.exp(-found.threshold_logit)))
    assert 0.0 < c.reached <= 0.1
    if negatives == "nearest":
        rejected = found.rejects(torch.from_numpy(others.pixels)).double().mean()
        assert float(rejected) == pytest.approx(c.reached)
    else:
        one, other = (found.verifier(torch.from_numpy(real.pixels)) for real in (others, training))
        pairs = [found.verifier.compare(feature[None], other) for feature in one]
        share = float((torch.cat(pairs).double() >= found.threshold_logit).double().mean())
        assert share == pytest.approx(c.reached, abs=2 / n)
    assert (
        f"of {n} {negatives} negatives of 24 patients" in found.description and "nearest 2 of 48" in found.description
    )
    assert found.facts["rate"] == 0.1 and found.facts["n_training"] == 48
    assert found.rejects(torch.from_numpy(training.pixels)).all(), "a copy has the largest score that there is"


def test_the_fingerprint_tells_filters_apart():
    training = real_images("s", 4)
    prints = [
        _filter(training).fingerprint,
        _filter(training, threshold_logit=1.0).fingerprint,
        _filter(training, n_nearest=2).fingerprint,
        _filter(training, weights={"verifier": "0"}).fingerprint,
        _filter(real_images("v", 4)).fingerprint,
    ]
    assert len(set(prints)) == len(prints) and prints[0] == _filter(training).fingerprint


def test_images_are_found_again_among_those_of_training():
    training = real_images("s", 4)
    found = _filter(training)
    assert found.places(training.take([5, 2])).tolist() == [5, 2]
    assert found.places(real_images("v", 1)).tolist() == [-1] * 3


def test_a_person_in_both_sets_is_refused(models):
    with pytest.raises(ManifestError) as caught:
        PrivacyFilter.calibrated(models, real_images("s", 4), real_images("s", 4))
    with pytest.raises(ManifestError) as expected:
        check_disjoint({"a": real_images("s", 4).cohort, "b": real_images("s", 4).cohort})
    assert caught.value.code == expected.value.code


@pytest.mark.parametrize("more", [{"negatives": "hard"}, {"rate": 1.0}, {"rate": -0.1}])
def test_calibrations_that_make_no_sense_are_refused(models, more):
    with pytest.raises(UsageError) as caught:
        PrivacyFilter.calibrated(models, real_images("s", 4), real_images("v", 4), **more)
    assert caught.value.code == "GM-U079"
