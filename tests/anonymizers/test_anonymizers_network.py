"""PriCheXy-Net and Privacy-Net as systems: names, weights, the operator."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attack_cohorts import real_images

from gmia_monai.anonymizers import Anonymizer
from gmia_monai.anonymizers.network import PriCheXy, PrivacyNet
from gmia_monai.errors import IntegrityError, UsageError
from gmia_monai.networks.deformation import DeformationNet
from gmia_monai.networks.image_translation import TranslationNet
from gmia_monai.networks.pretrained import NETWORKS, load_recorded, save_network

TINY = [4, 4, 8, 8, 8, 4]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    for kind in (DeformationNet, TranslationNet):
        NETWORKS.setdefault(kind.__name__, kind)
    folder = tmp_path_factory.mktemp("models")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for name, mu in (("prichexy", 0.01), ("prichexy_mu0.04", 0.04)):
            arguments = {"mu": mu, "features": TINY, "legacy": False}
            save_network(folder / f"{name}.safetensors", DeformationNet(**arguments), arguments)
        for name in ("privacy_net", "privacy_net_port"):
            save_network(folder / f"{name}.safetensors", TranslationNet(TINY), {"features": TINY})
    return folder


def _all(models):
    return {
        "prichexy mu=0.01": PriCheXy.from_weights(models),
        "prichexy mu=0.01 legacy": PriCheXy.from_weights(models, legacy=True),
        "prichexy mu=0.04": PriCheXy.from_weights(models, "prichexy_mu0.04"),
        "privacy-net minimax": PrivacyNet.from_weights(models),
        "privacy-net port": PrivacyNet.from_weights(models, "port"),
    }


def test_systems_have_their_names_and_hashes_of_their_own(models):
    systems = _all(models)
    assert [system.name for system in systems.values()] == list(systems)
    assert len({system.fingerprint for system in systems.values()}) == len(systems)
    real = real_images("t", 2)
    for system in systems.values():
        release = system.anonymize(real)
        assert isinstance(system, Anonymizer) and release.policy == "pseudonymous" and release.kind == "one_to_one"
        assert PriCheXy.from_weights(models).fingerprint == systems["prichexy mu=0.01"].fingerprint
        assert np.array_equal(release.pixels, system.anonymize(real, seed=9).pixels), "no chance in it"


def test_the_release_is_what_the_recorded_network_makes_of_the_image(models):
    real = real_images("t", 3)
    for name, system in (("prichexy", PriCheXy.from_weights(models)), ("privacy_net", PrivacyNet.from_weights(models))):
        with torch.no_grad():
            expected = load_recorded(models, name)(torch.from_numpy(real.pixels)).numpy()
        assert np.abs(system.anonymize(real).pixels - expected).max() <= 0.5 / 255 + 1e-5
        system.unit_size = 2
        alone = system.anonymize_pixels(real.pixels[4:5])[0]
        assert np.abs(alone - expected[4:5]).max() <= 0.5 / 255 + 1e-5


def test_a_small_field_leaves_the_image_nearly_as_it_was_and_the_released_operator_moves_the_border(models):
    real = real_images("t", 4)
    moved = {name: np.abs(s.anonymize(real).pixels - real.pixels) for name, s in list(_all(models).items())[:3]}
    corrected, legacy = moved["prichexy mu=0.01"], moved["prichexy mu=0.01 legacy"]
    assert corrected.mean() < moved["prichexy mu=0.04"].mean() < legacy.mean()
    assert legacy[..., :4, :].mean() > 3 * corrected[..., :4, :].mean()
    assert np.abs(legacy - corrected)[..., 5:-5, 5:-5].max() <= 1.01 / 255


def test_other_variants_and_other_networks_are_refused(models, tmp_path):
    with pytest.raises(UsageError, match="GM-U069"):
        PrivacyNet.from_weights(models, "released")
    with pytest.raises(UsageError, match="GM-U069"):
        PriCheXy.from_weights(models, "privacy_net")
    with pytest.raises(IntegrityError, match="GM-W001"):
        PriCheXy.from_weights(models, "prichexy_mu1")
