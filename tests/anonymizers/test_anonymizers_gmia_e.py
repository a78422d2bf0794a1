"""GMIA and the reconstruction of E-training take the other auto-encoder, and say so."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attack_cohorts import real_images
from tiny_bundle import save_tiny

from gmia_monai.anonymizers import GMIA, GMIAE, Reconstruction, ReconstructionE
from gmia_monai.errors import IntegrityError
from gmia_monai.networks import load_recorded, save_network
from gmia_monai.weights import read_index


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = save_tiny(tmp_path_factory.mktemp("models"))
    other = load_recorded(save_tiny(tmp_path_factory.mktemp("other"), seed=1), "aegan")
    save_network(folder / "aegan_e.safetensors", other, read_index(folder)["aegan"]["arguments"])
    return folder


def test_the_reconstruction_is_of_the_other_auto_encoder(models):
    real = real_images("t", 2)
    release = ReconstructionE.from_weights(models).anonymize(real)
    with torch.no_grad():
        expected = load_recorded(models, "aegan_e")(torch.from_numpy(real.pixels)).clamp(0, 1).numpy()
    assert np.abs(release.pixels - expected).max() <= 0.5 / 255 + 1e-6
    assert release.system == "reconstruction e-training"
    assert not np.array_equal(release.pixels, Reconstruction.from_weights(models).anonymize(real).pixels)


def test_gmia_on_it_has_its_own_name_and_units(models):
    settings = {"max_steps": 2, "min_steps": 2, "margin_cos": -1.0}
    ours, published = (cls.from_weights(models, **settings) for cls in (GMIAE, GMIA))
    assert (ours.name, published.name) == ("gmia-e m=-1", "gmia m=-1")
    assert ours.fingerprint != published.fingerprint
    real = real_images("t", 2)
    assert not np.array_equal(ours.anonymize(real).pixels, published.anonymize(real).pixels)
    assert GMIAE.from_weights(models, name="mine", **settings).name == "mine"


def test_without_its_weights_it_says_so(tmp_path):
    with pytest.raises(IntegrityError, match="GM-W001"):
        GMIAE.from_weights(save_tiny(tmp_path))
