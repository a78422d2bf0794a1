"""Latent editing: terms fall, images do not touch each other, nothing moves without a term."""

from __future__ import annotations

import pytest
import torch
from tiny_bundle import ToyNet, phantoms

from gmia_monai.errors import UsageError
from gmia_monai.inferers.latent_editing import edit_latents
from gmia_monai.losses.editing import EnsembleIdentity, Near, Realism, random_views, view_parameters
from gmia_monai.losses.identity import cosine


@pytest.fixture(scope="module")
def net():
    return ToyNet()


def _images(n):
    return phantoms(n, 8)


def test_a_term_falls_and_the_result_is_the_image_of_its_code(net):
    images = _images(4)
    target = net.utility.features(images.flip(0))
    found = edit_latents(net.encoder(images), net.synthesis, {"u": (1.0, Near(net.utility.features, target))}, steps=40)
    assert (found.last["u"] < 0.5 * found.first["u"]).all()
    assert torch.equal(found.image, net.synthesis(found.w, "const").clamp(0, 1))
    again = ((net.utility.features(found.image) - target) ** 2).mean(dim=1)
    assert torch.allclose(found.last["u"], again)


def test_a_batch_is_as_many_runs_of_its_own(net):
    images, seeds = _images(3), [5, 6, 7]

    def run(rows):
        part = images[rows]
        views = view_parameters([seeds[i] for i in rows], 6)
        terms = {
            "id": (1.0, EnsembleIdentity([net.identity], [net.identity(part)], [0.1], views)),
            "u": (0.3, Near(net.utility.features, net.utility.features(part))),
            "real": (0.1, Realism(lambda x: x.mean(dim=(2, 3)))),
        }
        return edit_latents(net.encoder(part), net.synthesis, terms, steps=6)

    both = run([0, 1, 2])
    for i in range(3):
        assert torch.allclose(run([i]).image, both.image[i : i + 1], atol=1e-5)


def test_without_a_weighted_term_or_a_step_nothing_moves(net):
    w = net.encoder(_images(2))
    for terms, steps in (
        ({}, 5),
        ({"u": (0.0, lambda *_: 1 / 0)}, 5),
        ({"u": (1.0, lambda x, w, s: x.mean((1, 2, 3)))}, 0),
    ):
        assert torch.equal(edit_latents(w, net.synthesis, terms, steps=steps).w, w)


@pytest.mark.parametrize("settings", [{"lr": 0.0}, {"steps": -1}, {"betas": (1.0, 0.9)}])
def test_settings_out_of_range_are_refused(net, settings):
    with pytest.raises(UsageError, match="GM-U052"):
        edit_latents(net.encoder(_images(1)), net.synthesis, {}, **settings)
    with pytest.raises(UsageError, match="GM-U052"):
        edit_latents(net.encoder(_images(1)), net.synthesis, {"u": (-1.0, lambda *_: None)})


def test_identity_is_two_sided_and_averages_over_encoders():
    g = torch.Generator().manual_seed(0)
    image, first, second = (torch.randn(3, 6, generator=g) for _ in range(3))
    encoders = [lambda x: x, lambda x: -x]
    values = EnsembleIdentity(encoders, [first, second], [0.2, -0.1])(image, image, 0)
    expected = ((cosine(first, image) - 0.2).abs() + (cosine(second, -image) + 0.1).abs()) / 2
    assert torch.allclose(values, expected)
    hinge = EnsembleIdentity(encoders[:1], [first], [0.2], two_sided=False)(image, image, 0)
    assert torch.allclose(hinge, (cosine(first, image) - 0.2).clamp_min(0))


def test_views_stay_near_the_image_and_are_the_image_without_a_change():
    images = phantoms(2, 32)
    assert torch.allclose(random_views(images, torch.zeros(2, 6)), images, atol=1e-5)
    views = random_views(images, view_parameters([1, 2], 1)[0])
    assert views.shape == images.shape and 0 <= views.min() and views.max() <= 1
    assert 0.005 < (views - images).abs().mean() < 0.25
    assert torch.equal(view_parameters([1, 2], 3)[:, 1], view_parameters([2], 3)[:, 0])
