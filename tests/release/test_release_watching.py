"""The gate's networks: what they say is what the networks say, an image at a time or many."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gmia_monai.networks import IdentityNet, UtilityNet
from gmia_monai.release.calibration import surroundings_of
from gmia_monai.release.layout import Layout
from gmia_monai.release.watching import NetworkWatch

RNG = np.random.default_rng(0)
IMAGES = RNG.random((5, 32, 32), dtype=np.float32)


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    return IdentityNet(32, "small_dense_pooled", 16).eval(), UtilityNet(4, "small_densenet").eval()


@pytest.fixture(scope="module")
def watch(networks):
    verifier, diagnostic = networks
    with torch.no_grad():
        features = diagnostic.features(torch.rand(600, 1, 32, 32)).double().numpy()
        learned = verifier(torch.from_numpy(IMAGES[3:4, None])).double().numpy()
    others = RNG.normal(size=(9, 16))
    around = surroundings_of(features[:400], features[400:])
    layout = Layout(np.full(256, 0.01), -20.0)
    return NetworkWatch(verifier, diagnostic, around, layout, np.concatenate([others, learned]), {"gate": "a" * 64})


def test_embeddings_are_compared_by_their_cosine(networks, watch):
    with torch.no_grad():
        own = networks[0](torch.from_numpy(IMAGES[:, None]))
    embedded = watch.embed(IMAGES)
    expected = F.cosine_similarity(own[:1], own[1:]).numpy()
    np.testing.assert_allclose(watch.compare(embedded[0], embedded[1:]), expected, atol=1e-5)
    np.testing.assert_allclose(watch.embed(IMAGES[2:3])[0], embedded[2], atol=1e-5)


def test_findings_are_probabilities(networks, watch):
    with torch.no_grad():
        expected = torch.sigmoid(networks[1](torch.from_numpy(IMAGES[:, None]))).numpy()
    np.testing.assert_allclose(watch.findings(IMAGES), expected, atol=1e-6)


def test_what_is_unlike_the_known_images_is_strange(watch):
    known = RNG.random((50, 32, 32), dtype=np.float32)
    assert (watch.strangeness(known) <= 1).mean() > 0.9
    assert (watch.strangeness(np.stack([np.zeros((32, 32)), np.ones((32, 32))]).astype(np.float32)) > 1).all()


def test_copies_of_learned_images_are_found(watch):
    near = watch.nearest_copy(IMAGES)
    assert near[3] == pytest.approx(1.0) and watch.weights == {"gate": "a" * 64}
