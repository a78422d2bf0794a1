"""k-SALSA makes one image of k different patients, the same whatever the order of the images, and goes on where it was
stopped."""

from __future__ import annotations

import inspect
import json
import math

import numpy as np
import pytest
import torch
from attack_cohorts import real_images
from tiny_bundle import SIZE, phantoms, save_tiny

from gmia_monai.anonymizers import k_salsa
from gmia_monai.anonymizers.base import Anonymizer
from gmia_monai.anonymizers.grouping import same_size_clusters
from gmia_monai.anonymizers.k_salsa import KSalsa, ramped_rate
from gmia_monai.anonymizers.store import UnitStore
from gmia_monai.errors import IntegrityError, UsageError
from gmia_monai.losses.style import crop_grams, local_style
from gmia_monai.networks import AEGAN, UtilityNet

WEIGHTS = {"aegan": "0", "utility": "1"}


def system(dtype=torch.float32, **settings) -> KSalsa:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        networks = [AEGAN(SIZE, channel_base=256, channel_max=32), UtilityNet(3, "small")]
    aegan, utility = (network.to(dtype).eval().requires_grad_(False) for network in networks)
    return KSalsa(aegan, utility, WEIGHTS, **{"k": 3, "n_steps": 3, "unit_size": 2} | settings)


def total_loss(made: KSalsa, image: torch.Tensor, sources: torch.Tensor) -> torch.Tensor:
    """The weighted loss of one image against its ``k`` sources, re-stated."""
    own = made.utility.features(image[None])[0]
    theirs = made.utility.features(sources)
    content = sum(1 - own @ f / (own.norm() * f.norm()) for f in theirs) / len(theirs)
    first = [(crop_grams(made.early_features(x))) for x in (image[None], sources)]
    return made.lambda_content * content + made.lambda_style * local_style(first[0], first[1][None])[0]


def test_the_published_settings_are_the_defaults():
    defaults = {p.name: p.default for p in inspect.signature(KSalsa).parameters.values()}
    published = {"k": 5, "lambda_content": 100.0, "lr": 0.1, "n_steps": 100, "grid": 4}
    assert {key: defaults[key] for key in published} == published


def test_the_rate_goes_up_and_down_as_published(monkeypatch):
    for n in (100, 40):
        for step in range(n):
            t = step / n
            up = t / 0.05 if t < 0.05 else 1.0
            down = 1.0 if t < 0.75 else 0.5 + 0.5 * math.cos(math.pi * (t - 0.75) / 0.25)
            assert ramped_rate(step, n, 0.1) == pytest.approx(0.1 * up * down, abs=1e-12)
    rates = []

    class Spy(torch.optim.Adam):
        def step(self, closure=None):
            rates.append(self.param_groups[0]["lr"])
            return super().step(closure)

    monkeypatch.setattr(k_salsa.torch.optim, "Adam", Spy)
    system(n_steps=8).merge(phantoms(3)[None])
    assert rates == [ramped_rate(step, 8, 0.1) for step in range(8)] and max(rates) == 0.1


def test_every_image_has_k_different_patients_and_the_rest_is_dropped():
    real = real_images("t", 11)
    made = system()
    release = made.anonymize(real, seed=1)
    assert isinstance(made, Anonymizer) and (made.name, release.policy) == ("k_salsa k=3", "k_anonymous")
    assert release.kind == "k_to_one" and release.pixels.shape == (3, 1, 32, 32) and release.labels.shape == (3, 1)
    patients = release.source_patients(real.cohort)
    assert [len(group) for group in patients] == [3] * 3 and len(set.union(*patients)) == 9
    levels = release.pixels * 255
    assert np.abs(levels - np.rint(levels)).max() < 1e-4


def test_groups_are_of_patients_with_similar_codes():
    real, made = real_images("t", 10), system()
    groups = made.groups(real, 2)
    chosen = np.array(sorted(groups.ravel()))
    with torch.no_grad():
        codes = {int(i): made.aegan.encoder(torch.from_numpy(real.pixels[i : i + 1]))[0].numpy() for i in chosen}
    spread = np.mean([np.linalg.norm(codes[i] - codes[group[0]]) for group in groups for i in group[1:]])
    every = np.mean([np.linalg.norm(codes[i] - codes[j]) for i in codes for j in codes if i != j])
    assert spread < every
    with pytest.raises(UsageError) as caught:
        system(k=11).groups(real)
    assert caught.value.code == "GM-U067"
    assert same_size_clusters(np.stack(list(codes.values())).astype(np.float64), 3).shape == groups.shape


def test_the_order_of_the_images_changes_nothing_but_their_positions():
    real = real_images("t", 8)
    order = np.random.default_rng(0).permutation(len(real))
    first, second = system().anonymize(real), system().anonymize(real.take(order))
    assert np.array_equal(first.pixels, second.pixels)
    assert first.sources == tuple(tuple(order[list(group)].tolist()) for group in second.sources)


def test_the_seed_chooses_the_images_and_the_same_one_gives_the_same_release():
    real = real_images("t", 8)
    first, again, other = (system().anonymize(real, seed) for seed in (0, 0, 1))
    assert first.content_hash == again.content_hash
    assert {i for group in first.sources for i in group} != {i for group in other.sources for i in group}


def test_an_image_is_a_function_of_its_group_alone():
    images = phantoms(9, dtype=torch.float64).unflatten(0, (3, 3))
    made = system(torch.float64)
    whole, _ = made.merge(images)
    single = torch.cat([made.merge(group[None])[0] for group in images])
    torch.testing.assert_close(whole, single, rtol=1e-6, atol=1e-7)
    turned, _ = made.merge(images.flip(1))
    torch.testing.assert_close(whole, turned, rtol=1e-6, atol=1e-7, msg="whoever of the group comes first")


def test_the_start_is_the_mean_code_and_the_loss_comes_down_from_there():
    images = phantoms(6).unflatten(0, (2, 3))
    made = system(n_steps=15, lr=0.003)
    with torch.no_grad():
        codes = made.aegan.encoder(images.flatten(0, 1)).unflatten(0, (2, 3))
        start = made.aegan.synthesis(codes.mean(dim=1)).clamp(0, 1)
        sources = made.aegan.synthesis(codes.flatten(0, 1)).clamp(0, 1).unflatten(0, (2, 3))
        # The rate of the first step is zero, so that one step stays where it starts.
        torch.testing.assert_close(system(n_steps=1).merge(images)[0], start)
        end, outcomes = made.merge(images)
        for i in range(2):
            assert total_loss(made, end[i], sources[i]) < total_loss(made, start[i], sources[i])
    assert [(o.converged, o.steps) for o in outcomes] == [(True, 15)] * 2
    assert (end - start).abs().max() > 1 / 255


def test_the_loss_is_that_of_the_paper():
    made, images = system(), phantoms(4)
    with torch.no_grad():
        content = torch.nn.functional.normalize(made.utility.features(images[1:]), dim=1)[None]
        style = crop_grams(made.early_features(images[1:]))[None]
        parts = made.losses(images[:1], content, style)
        ours = made.lambda_content * parts[0] + made.lambda_style * parts[1]
        assert ours.item() == pytest.approx(total_loss(made, images[0], images[1:]).item(), rel=1e-4)
        assert all(part.item() > 0 for part in parts)
        first = made.utility.trunk.conv1((images - 0.5) / 0.25)
        expected = torch.relu(made.utility.trunk.bn1(first))
    assert torch.equal(made.early_features(images), expected)


def test_no_step_that_helps_is_no_success():
    _, outcomes = system(n_steps=1).merge(phantoms(3)[None])
    assert not outcomes[0].converged, "the first step has rate zero"


def test_a_stopped_run_goes_on_and_other_settings_are_not_mistaken(tmp_path, monkeypatch):
    real, store = real_images("t", 12), UnitStore(tmp_path)
    asked = []
    merge = KSalsa.merge

    def stopping(self, images):
        if len(asked) == 1:
            asked.append(0)
            raise KeyboardInterrupt
        asked.append(len(images))
        return merge(self, images)

    monkeypatch.setattr(KSalsa, "merge", stopping)
    with pytest.raises(KeyboardInterrupt):
        system().anonymize(real, store=store)
    resumed = system().anonymize(real, store=store)
    assert asked == [2, 0, 2], "the first unit of two groups was not made again"
    again = system().anonymize(real, store=store)
    assert len(asked) == 3
    fresh = system().anonymize(real)
    assert fresh.content_hash == resumed.content_hash == again.content_hash
    assert again.convergence.steps.tolist() == [3] * 4 == fresh.convergence.steps.tolist()
    system(lambda_style=1.0).anonymize(real, store=store)
    assert len(asked) == 7, "two units without the store, two of other settings"


def test_the_release_says_what_was_done(caplog):
    with caplog.at_level("INFO"):
        found = system().anonymize(real_images("t", 6)).convergence
    assert json.loads(json.dumps(found.settings)) == found.settings and found.settings["lambda_style"] == 150.0
    assert "groups of 3 different patients" in found.description
    assert "2 groups of 3 of the 6 patients; different sets of findings in a group: at least" in caplog.text


@pytest.mark.parametrize(
    "setting",
    [{"k": 1}, {"lambda_content": -1.0}, {"lambda_style": -1.0}, {"lr": 0.0}, {"n_steps": 0}, {"grid": 0}],
)
def test_settings_out_of_range_are_refused(setting):
    with pytest.raises(UsageError) as caught:
        system(**setting)
    assert caught.value.code == "GM-U068" and next(iter(setting)) in str(caught.value)


def test_it_is_built_from_recorded_weights(tmp_path):
    made = KSalsa.from_weights(save_tiny(tmp_path), k=2, n_steps=2)
    release = made.anonymize(real_images("t", 5))
    assert release.system == "k_salsa k=2" and len(release) == 2
    index = json.loads((tmp_path / "index.json").read_text())
    assert index["aegan"]["sha256"] in made.fingerprint and index["utility"]["sha256"] in made.fingerprint
    (tmp_path / "utility.safetensors").unlink()
    with pytest.raises(IntegrityError):
        KSalsa.from_weights(tmp_path)
