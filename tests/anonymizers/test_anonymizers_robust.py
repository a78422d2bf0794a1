"""Ours: what enters a release under each policy, that its terms fall, and that groups do not know who asks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attack_cohorts import real_images
from scipy.ndimage import gaussian_filter
from tiny_bundle import save_tiny

from gmia_monai.anonymizers.robust import Robust
from gmia_monai.anonymizers.robust_groups import RobustGroups
from gmia_monai.anonymizers.store import UnitStore
from gmia_monai.data.known import known_facts, known_of_cohort
from gmia_monai.data.release import RealImages
from gmia_monai.engines.prior import fit_prior
from gmia_monai.errors import IntegrityError, UsageError
from gmia_monai.losses.identity import cosine
from gmia_monai.networks import Discriminator, IdentityNet, SiameseVerifier, load_recorded, save_network
from gmia_monai.networks.latent_diffusion import LatentDiffusionNet

KNOWN = known_facts(["Effusion"])


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Untrained networks, a prior fitted to them, a second encoder, a verifier and a discriminator."""
    folder = save_tiny(tmp_path_factory.mktemp("models"))
    real = real_images("s", 16)
    images = torch.from_numpy(real.pixels)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        arguments = {"image_size": 32, "architecture": "small", "embedding_dim": 16}
        save_network(folder / "identity_second.safetensors", IdentityNet(**arguments), arguments)
        save_network(folder / "verifier.safetensors", SiameseVerifier("small", 16), {"features": 16})
        sizes = {"image_size": 32, "channel_base": 256, "channel_max": 8}
        save_network(folder / "discriminator.safetensors", Discriminator(**sizes), sizes)
        sizes = {
            "image_size": 32, "findings": ["Nodule", "Effusion"], "autoencoder_channels": [8, 8], "channels": [8, 16],
            "attention": [False, True], "autoencoder_res_blocks": 1, "res_blocks": 1, "head_channels": 8,
            "context_dim": 8, "norm_groups": 4,
        }  # fmt: skip
        save_network(folder / "latent_diffusion.safetensors", LatentDiffusionNet(**sizes), sizes)
        with torch.no_grad():
            codes = load_recorded(folder, "aegan").encoder(images)
            logits = load_recorded(folder, "utility")(images)
        known = torch.from_numpy(known_of_cohort(real.cohort, KNOWN))
        prior, built = fit_prior(codes, logits, known, KNOWN, rank=8)
        save_network(folder / "prior.safetensors", prior, built)
    return folder


@pytest.fixture
def real():
    return real_images("t", 4)


def _pixels(system, real, seed=0):
    return system.anonymize(real, seed).pixels


def test_unlinkable_looks_at_no_pixel(models, real):
    system = Robust.from_weights(models, steps=3)
    other = RealImages(real.cohort, np.random.default_rng(0).random(real.pixels.shape, dtype=np.float32))
    assert np.array_equal(_pixels(system, real), _pixels(system, other))
    assert not np.array_equal(_pixels(system, real), _pixels(system, real, 1)), "another secret, another release"
    release = system.anonymize(real)
    assert release.policy == "unlinkable" and release.kind == "one_to_one" and release.convergence is not None


def test_an_image_does_not_depend_on_its_neighbours(models, real):
    system = Robust.from_weights(models, steps=3)
    few = _pixels(system, real.take([5, 2]))
    assert np.abs(few - _pixels(system, real)[[5, 2]]).max() <= 1.5 / 255


def test_pseudonymous_gives_a_patient_one_anatomy(models):
    real = real_images("t", 24)
    system = Robust.from_weights(models, steps=0, policy="pseudonymous")
    same = Robust.from_weights(models, steps=0)
    first, other = _pixels(system, real), _pixels(same, real)
    patient = real.cohort.patient_index
    facts = known_of_cohort(real.cohort, KNOWN)
    pairs = [(i, j) for i in range(len(real)) for j in range(i) if np.array_equal(facts[i], facts[j])]
    within = [(i, j) for i, j in pairs if patient[i] == patient[j]]
    assert within and all(np.array_equal(first[i], first[j]) for i, j in within)
    assert not any(np.array_equal(other[i], other[j]) for i, j in within)
    assert not any(np.array_equal(first[i], first[j]) for i, j in pairs if patient[i] != patient[j])


def test_drawn_logits_are_what_the_network_then_says(models, real):
    """The loss of the draw falls, image by image."""
    known = known_of_cohort(real.cohort, KNOWN)
    seeds = list(range(len(real)))
    utility, prior = load_recorded(models, "utility"), load_recorded(models, "prior")
    with torch.no_grad():
        drawn = prior.draw(torch.from_numpy(known), seeds)[1]

    def gap(steps):
        system = Robust.from_weights(models, steps=steps, lr=0.1)
        images, _ = system.anonymize_known(torch.from_numpy(real.pixels), seeds, known)
        with torch.no_grad():
            return ((utility(images) - drawn) / prior.scale[512:]).square().mean(dim=1)

    assert (gap(25) < gap(0)).float().mean() > 0.9 and gap(25).mean() < 0.5 * gap(0).mean()


def test_emphasis_parts_the_logits_of_findings(models, real):
    """Images with a finding and without it are further apart in the drawn logits that they are moved to."""
    system = Robust.from_weights(models, emphasis=3.0)
    known = torch.tensor([[1.0, 0.5, 0.5, 0.0, 0.0], [0.0, 0.5, 0.5, 0.0, 0.0]])
    plain, more = (system.prior.draw(known, [1, 1], 1.0, e)[1] for e in (1.0, 3.0))
    assert torch.allclose(more[0] - more[1], 3.0 * (plain[0] - plain[1]), atol=1e-4)
    assert not np.array_equal(_pixels(system, real), _pixels(Robust.from_weights(models), real))


@pytest.mark.parametrize("detail_px", [0.0, 1.5])
def test_the_refiner_redraws_the_moved_images_and_keeps_what_is_coarse(models, real, detail_px):
    plain = Robust.from_weights(models, steps=2)
    how = {"refiner": "latent_diffusion", "strength": 0.5, "refine_steps": 4, "detail_px": detail_px}
    refined = Robust.from_weights(models, steps=2, **how)
    release = refined.anonymize(real)
    network = load_recorded(models, "latent_diffusion")
    seeds = [seed ^ 0x5EED for seed in refined.seeds_of(real, 0)]
    effusion = torch.from_numpy(known_of_cohort(real.cohort, ["Effusion"]))
    labels = torch.cat([torch.full_like(effusion, torch.nan), effusion], dim=1)  # nobody looked for nodules
    with torch.no_grad():
        moved, _ = plain.anonymize_known(torch.from_numpy(real.pixels), plain.seeds_of(real, 0), plain.known_of(real))
        expected = network.redraw(moved, 0.5, seeds, labels, 1.0, 4).numpy()
    assert np.abs(expected - moved.numpy()).max() > 0.05
    if detail_px:

        def coarse(x):
            return gaussian_filter(x, (0, 0, detail_px, detail_px), mode="nearest", radius=(0, 0, 5, 5))

        expected = np.clip(expected - coarse(expected) + coarse(moved.numpy()), 0, 1)
    assert np.abs(release.pixels - expected).max() <= 0.5 / 255 + 1e-5
    assert "refined from 0.5" in refined.description
    other = RealImages(real.cohort, np.random.default_rng(0).random(real.pixels.shape, dtype=np.float32))
    assert np.array_equal(release.pixels, _pixels(refined, other)), "no pixel enters here either"


def test_identity_goes_to_the_cosine_of_strangers_under_every_encoder(models, real):
    names = ["identity", "identity_second"]
    shared = {"encoders": names, "strangers_cos": [0.1, -0.1], "start": "own", "lr": 0.1, "views": False}
    images = torch.from_numpy(real.pixels)

    def gaps(steps):
        system = Robust.from_weights(models, lambda_id=1.0, steps=steps, **shared)
        out, _ = system.anonymize_batch(images, list(range(len(images))))
        nets = [load_recorded(models, name) for name in names]
        with torch.no_grad():
            cos = [cosine(net(images), net(out)) for net in nets]
        return torch.stack([(c - t).abs() for c, t in zip(cos, (0.1, -0.1), strict=True)])

    assert (gaps(30).mean(dim=1) < 0.8 * gaps(0).mean(dim=1)).all()


@pytest.mark.parametrize("weight", ["lambda_logits", "lambda_features", "lambda_prior", "lambda_realism"])
def test_each_term_can_be_switched_on(models, real, weight):
    plain = Robust.from_weights(models, start="own", steps=4)
    system = Robust.from_weights(
        models,
        start="own",
        steps=4,
        encoders=["verifier"],
        lambda_id=0.5,
        discriminator="discriminator",
        **{weight: 1.0},
    )
    assert not np.array_equal(_pixels(plain, real), _pixels(system, real))
    assert weight.removeprefix("lambda_") in system.description


def test_neighbours_are_other_patients(models):
    training = real_images("s", 40)  # more than the 25 codes from which distances are rounded
    system = Robust.from_weights(models, start="neighbours", k=1, steps=0, training=lambda: training)
    codes, names = system.neighbours
    assert len(codes) == 40 and list(names) == list(dict.fromkeys(r.patient_id for r in training.cohort))
    own = torch.from_numpy(system.known_of(training)[:, -1]).long()
    assert own.tolist() == training.cohort.patient_index.tolist()
    with torch.no_grad():
        w = system.autoencoder.encoder(torch.from_numpy(training.pixels))
    started = system._mean_of_neighbours(w, own)
    nearest = (started[:, None] - codes[None]).norm(dim=2).argmin(dim=1)
    assert (nearest != own).all(), "of no image of a patient, not only the one that the code is of"
    stranger = real_images("t", 2)
    assert (system.known_of(stranger)[:, -1] == -1).all() and len(_pixels(system, stranger)) == 6


def test_settings_that_cannot_work_are_refused(models):
    wrong = [{"start": "elsewhere"}, {"policy": "k_anonymous"}, {"start": "neighbours"}]
    for settings in (*wrong, {"lambda_id": 1.0}, {"lambda_realism": 1.0}):
        with pytest.raises(UsageError, match="GM-U053"):
            Robust.from_weights(models, **settings)
    with pytest.raises(IntegrityError, match="GM-W001"):
        Robust.from_weights(models, encoders=["absent"])


def test_records_without_findings_are_refused(models, real):
    from gmia_monai.data.cohort import Cohort

    bare = RealImages(Cohort(real.cohort.records, findings=("Nodule",)), real.pixels)
    with pytest.raises(UsageError, match="GM-U309"):
        Robust.from_weights(models, steps=0).anonymize(bare)


def test_groups_are_of_k_patients_and_do_not_know_who_asks(models):
    real = real_images("t", 11)
    system = RobustGroups.from_weights(models, k=3, steps=2)
    release = system.anonymize(real)
    patients = release.source_patients(real.cohort)
    assert release.policy == "k_anonymous" and len(release) == 3 and {len(p) for p in patients} == {3}
    assert len(set.union(*patients)) == 9, "nobody twice, the remainder left out"
    order = np.random.default_rng(0).permutation(len(real))
    swapped = system.anonymize(real.take(order))
    by_members = {frozenset(order[list(s)].tolist()): p for s, p in zip(swapped.sources, swapped.pixels, strict=True)}
    for sources, image in zip(release.sources, release.pixels, strict=True):
        assert np.abs(by_members[frozenset(sources)] - image).max() <= 1.5 / 255, "another member first, the same image"


def test_groups_resume_and_refuse_groups_of_one(models, tmp_path):
    real, store = real_images("t", 8), UnitStore(tmp_path)
    system = RobustGroups.from_weights(models, k=2, steps=1, unit_size=2)
    first = system.anonymize(real, store=store)
    system._draw = None  # what is there is not drawn again
    assert np.array_equal(system.anonymize(real, store=store).pixels, first.pixels)
    with pytest.raises(UsageError, match="GM-U054"):
        RobustGroups.from_weights(models, k=1)
