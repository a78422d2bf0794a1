"""Systems of the benchmark redraw what a release gives them, and say of which weights they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_bundle import save_tiny

from gmia_monai.data.known import known_facts, known_of_cohort
from gmia_monai.engines.prior import fit_prior
from gmia_monai.errors import UsageError
from gmia_monai.networks import load_recorded, save_network
from gmia_monai.release.policy import Policy
from gmia_monai.release.redrawing import SystemRedraw
from gmia_monai.weights import read_index

KNOWN = known_facts(["Effusion"])
FACTS = [
    {"view": "PA", "sex": "F", "age": 40},
    {"view": "AP", "sex": "", "age": None},
    {"view": "", "sex": "M", "age": 9},
]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Untrained networks and a prior."""
    from attack_cohorts import real_images

    folder, real = save_tiny(tmp_path_factory.mktemp("models")), real_images("s", 16)
    images = torch.from_numpy(real.pixels)
    with torch.no_grad():
        codes, logits = load_recorded(folder, "aegan").encoder(images), load_recorded(folder, "utility")(images)
    prior, built = fit_prior(codes, logits, torch.from_numpy(known_of_cohort(real.cohort, KNOWN)), KNOWN, rank=8)
    save_network(folder / "prior.safetensors", prior, built)
    return folder


def _policy(name: str = "robust", linkage: str = "unlinkable", **settings) -> Policy:
    system = {"name": name, "settings": settings, "image_size": 32}
    return Policy.model_validate({"linkage": linkage, "system": system})


def _images(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((3, 32, 32), dtype=np.float32)


def test_ours_draws_by_handle_or_by_patient_and_knows_no_pixel_but_its_findings(models):
    policy = _policy(steps=2)
    redraw = SystemRedraw.from_policy(policy, models)
    index = read_index(models)
    names = ("aegan", "utility", "prior")
    assert redraw.weights == {index[n]["file"]: index[n]["sha256"] for n in names} and redraw.image_size == 32
    handles, patients = ["a" * 16, "b" * 16, "c" * 16], ["p", "p", "q"]
    one = redraw(_images(), FACTS, handles, patients, 7)
    assert one.shape == (3, 32, 32) and 0 <= one.min() and one.max() <= 1
    assert np.array_equal(one, redraw(_images(), FACTS, handles, patients, 7))
    assert not np.array_equal(one, redraw(_images(), FACTS, handles, patients, 8))
    assert not np.array_equal(one, redraw(_images(), FACTS, handles[::-1], patients, 7))
    linked = SystemRedraw.from_policy(_policy(linkage="pseudonymous", steps=0), models)
    same = [FACTS[0]] * 3
    alike = linked(np.repeat(_images()[:1], 3, axis=0), same, handles, ["p", "p", "q"], 7)
    near = lambda a, b: np.abs(alike[a] - alike[b]).max() < 0.02  # noqa: E731
    assert near(0, 1) and not near(0, 2)


@pytest.mark.parametrize(
    ("policy", "code"),
    [
        (_policy("k_salsa"), "GM-U419"),
        (_policy("identity"), "GM-U419"),
        (_policy("nonsense"), "GM-U419"),
        (_policy("robust", colour=3), "GM-U420"),
        (_policy("gmia", linkage="unlinkable"), "GM-U419"),
    ],
)
def test_what_cannot_be_used_is_refused(models, policy, code):
    with pytest.raises(UsageError, match=code):
        SystemRedraw.from_policy(policy, models)
