"""PLAN: its loss against a plain restatement, its paths, what is released of them, and who is paired with whom."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from attack_cohorts import SIZE, real_images
from tiny_bundle import ToyNet, save_tiny

from gmia_monai.anonymizers.base import Anonymizer
from gmia_monai.anonymizers.plan import Plan, label_cross_entropy, privacy_divergence
from gmia_monai.anonymizers.plan_pairs import draw_pairs, shared_labels
from gmia_monai.anonymizers.store import UnitStore
from gmia_monai.data.cohort import Cohort, ImageRecord
from gmia_monai.errors import IntegrityError, UsageError
from gmia_monai.networks import load_recorded, pretrained, save_network
from gmia_monai.networks.patient_classifier import PatientClassifier

LABELS = torch.tensor([[1.0, 0.0, math.nan], [0.0, 0.0, 1.0]])


def _toy(n_findings: int = 1, stop_after: int = 10**9, **settings) -> Plan:
    """PLAN on single layers; after so many looks at identities it is interrupted."""
    net = ToyNet(SIZE)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        phi_class = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(SIZE**2, n_findings)).requires_grad_(False)
    looks = []

    def phi_id(images: torch.Tensor) -> torch.Tensor:
        looks.append(len(images))
        if len(looks) > stop_after:
            raise KeyboardInterrupt
        return 5.0 * net.identity(images)

    system = Plan(net.encoder, net.synthesis, phi_id, phi_class, {"toy": "0"}, **{"steps": 6, "lr": 0.02} | settings)
    system.looks = looks
    return system


def _ends(n_pairs: int = 2) -> torch.Tensor:
    return torch.from_numpy(real_images("t", 4).pixels[: 2 * n_pairs]).unflatten(0, (n_pairs, 2))


def test_divergence_is_that_of_the_uniform_from_the_softmax():
    logits = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    for found, row in zip(privacy_divergence(logits), logits.double(), strict=True):
        p = row.exp() / row.exp().sum()
        assert float(found) == pytest.approx(float(sum(0.2 * math.log(0.2 / p[k]) for k in range(5))), abs=1e-5)
    assert privacy_divergence(torch.full((1, 2004), 3.0)).abs().max() < 1e-5, "nobody in particular"


def test_label_term_is_the_probability_of_the_set_of_known_findings():
    logits = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, -2.0]])
    p = torch.sigmoid(logits)
    expected = [-math.log(p[0, 0] * (1 - p[0, 1])), -math.log((1 - p[1, 0]) * (1 - p[1, 1]) * p[1, 2])]
    assert label_cross_entropy(logits, LABELS).tolist() == pytest.approx(expected, rel=1e-5)
    assert label_cross_entropy(logits, torch.full((2, 3), math.nan)).tolist() == [0.0, 0.0]


def test_the_loss_is_the_published_one():
    system = _toy(3, n_points=8, chunk=4, lambda_id=0.3, lambda_path=0.7, lambda_class=1.9)
    generator = torch.Generator().manual_seed(3)
    ends, inner = torch.randn(2, 2, 16, generator=generator), torch.randn(2, 6, 16, generator=generator)
    expected = 0.0
    for p in range(2):
        points = [ends[p, 0], *inner[p], ends[p, 1]]
        expected += 0.7 * sum(float(((b - a) ** 2).sum()) for a, b in zip(points, points[1:], strict=False))
        for chunk in (points[1:5], points[5:7]):
            images = [system.synthesis(w[None], noise_mode="const").clamp(0, 1) for w in chunk]
            kl = [float(privacy_divergence(system.phi_id(x))) for x in images]
            ce = [float(label_cross_entropy(system.phi_class(x), LABELS[p : p + 1])) for x in images]
            expected += 0.3 * np.mean(kl) + 1.9 * np.mean(ce)
    assert float(system.loss(ends, inner, LABELS)) == pytest.approx(expected, rel=1e-5)


def test_a_unit_is_the_same_as_independent_runs_of_adam():
    system = _toy(3, n_points=5)
    together = system.paths(_ends(), LABELS)
    for p in range(2):
        ends = system.encoder(_ends()[p])[None]
        start = torch.stack([torch.lerp(ends[0, 0], ends[0, 1], i / 4) for i in (1, 2, 3)])[None]
        w = start.clone().requires_grad_(True)
        adam = torch.optim.Adam([w], lr=0.02, betas=(0.9, 0.999))
        for _ in range(6):
            adam.zero_grad()
            system.loss(ends, w, LABELS[p : p + 1]).backward()
            adam.step()
        with torch.no_grad():
            expected = system.synthesis(w[0], noise_mode="const").clamp(0, 1)
        assert torch.allclose(together[p], expected, atol=1e-4)
        assert (w - start).abs().max() > 0.01, "the points moved"


def test_optimisation_lowers_the_divergence_from_nobody():
    straight, published = _toy(steps=0), _toy(steps=60)
    free, stiff = _toy(steps=60, lambda_path=0.0), _toy(steps=60, lambda_path=100.0)
    labels = torch.full((2, 1), math.nan)
    images = [system.paths(_ends(), labels) for system in (straight, published, free, stiff)]
    kl = [float(privacy_divergence(published.phi_id(x.flatten(0, 1))).mean()) for x in images]
    assert kl[1] < kl[0] and kl[2] < 0.5 * kl[0]
    moved = [float((x - images[0]).abs().mean()) for x in images]
    assert moved[2] > moved[1] > moved[3], "the length of the path holds the points"


def test_optimisation_keeps_the_label_of_the_ends():
    straight, optimised = _toy(steps=0), _toy(steps=60, lambda_path=0.0)
    for wanted in (0.0, 1.0):
        labels = torch.full((2, 1), wanted)
        logits = [optimised.phi_class(system.paths(_ends(), labels).flatten(0, 1)) for system in (straight, optimised)]
        losses = [float(label_cross_entropy(x, torch.full((4, 1), wanted)).mean()) for x in logits]
        assert losses[1] < losses[0]


@pytest.mark.parametrize("n_points", [4, 7])
def test_inner_points_are_released_and_the_ends_are_not(n_points):
    real = real_images("t", 6)
    system = _toy(steps=0, n_points=n_points)
    release = system.anonymize(real, seed=2)
    assert isinstance(system, Anonymizer) and release.kind == "k_to_one" and release.policy == ""
    pairs = release.sources[:: n_points - 2]
    assert len(release) == len(pairs) * (n_points - 2)
    with torch.no_grad():
        codes = system.encoder(torch.from_numpy(real.pixels))
        ends = system.synthesis(codes).clamp(0, 1).numpy()
    for i, (a, b) in enumerate(release.sources):
        assert real.cohort.patient_index[a] != real.cohort.patient_index[b]
        share = (1 + i % (n_points - 2)) / (n_points - 1)
        with torch.no_grad():
            expected = system.synthesis(torch.lerp(codes[a : a + 1], codes[b : b + 1], share)).clamp(0, 1).numpy()[0]
        assert np.abs(release.pixels[i] - expected).max() <= 0.5 / 255 + 1e-5
        assert min(np.abs(release.pixels[i] - ends[e]).max() for e in (a, b)) > 1.5 / 255
    flat = [i for pair in pairs for i in pair]
    assert len(flat) == len(set(flat)) >= len(real) - 1


def test_labels_are_those_of_both_ends():
    real = real_images("t", 12)
    release = _toy(steps=0).anonymize(real)
    own = real.cohort.label_matrix()[:, 0]
    assert release.findings == ("Effusion",)
    for label, (a, b) in zip(release.labels[:, 0], release.sources, strict=True):
        assert label == own[a] if own[a] == own[b] else np.isnan(label)
    assert np.isnan(release.labels).sum() <= 2, "one pair is left over, at most"


def test_seed_decides_the_pairs_and_nothing_else_is_random():
    real = real_images("t", 5)
    first, again, other = (_toy().anonymize(real, seed) for seed in (0, 0, 1))
    assert np.array_equal(first.pixels, again.pixels) and first.sources == again.sources
    assert first.sources != other.sources


def test_a_stopped_run_goes_on(tmp_path: Path):
    real, store = real_images("t", 6), UnitStore(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        _toy(unit_pairs=2, stop_after=15).anonymize(real, store=store)
    rest = _toy(unit_pairs=2)
    whole = rest.anonymize(real, store=store)
    units = math.ceil(len(whole) / 4)
    assert len(rest.looks) == 6 * (units - 2), "two units of six steps were there"
    assert np.array_equal(whole.pixels, _toy(unit_pairs=2).anonymize(real).pixels)
    changed = _toy(unit_pairs=2, lambda_id=0.2)
    changed.anonymize(real, store=store)
    assert len(changed.looks) == 6 * units, "units of other settings are not taken"


def _cohort(rows: list[tuple[str, str, tuple[str, ...]]]) -> Cohort:
    records = [
        ImageRecord(Path(f"{i}.png"), patient, folder=folder, labels=tuple((name, 1.0) for name in names))
        for i, (patient, folder, names) in enumerate(rows)
    ]
    return Cohort(tuple(records), findings=("Edema", "Mass"))


def test_pairs_share_folder_and_findings_before_anything_else():
    cohort = _cohort(
        [
            ("a", "f", ("Edema",)),
            ("b", "f", ("Edema",)),
            ("c", "f", ("Mass",)),
            ("d", "f", ("Edema", "Mass")),
            ("e", "f", ()),
            ("e", "f", ()),
            ("g", "h", ()),
            ("h", "k", ("Edema",)),
        ]
    )
    labels = cohort.label_matrix()
    for seed in range(5):
        pairs = {frozenset(pair) for pair in draw_pairs(cohort, labels, seed).tolist()}
        assert {frozenset((0, 1)), frozenset((2, 3))} <= pairs, "the same set, then any finding"
        assert len(pairs) == 4 and frozenset((4, 5)) not in pairs, "the rest with anybody, never with oneself"
    shared = shared_labels(labels, np.array([[0, 1], [2, 3]]))
    assert shared[0].tolist() == [1.0, 0.0] and np.isnan(shared[1, 0]) and shared[1, 1] == 1.0


def test_nobody_is_left_over_who_need_not_be():
    cohort = _cohort([("a", "f", ())] * 6 + [(f"p{i}", "f", ()) for i in range(10)])
    for seed in range(5):
        pairs = draw_pairs(cohort, cohort.label_matrix(), seed)
        assert sorted(pairs.ravel().tolist()) == list(range(16))
        assert all(cohort.patient_index[a] != cohort.patient_index[b] for a, b in pairs)
    alone = _cohort([("a", "f", ())] * 3)
    assert draw_pairs(alone, alone.label_matrix()).shape == (0, 2)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = save_tiny(tmp_path_factory.mktemp("models"))
    arguments = {"image_size": 32, "n_patients": 6, "embedding_dim": 16}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_network(folder / "plan_identity.safetensors", PatientClassifier(**arguments), arguments)
    return folder


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setitem(pretrained.NETWORKS, "PatientClassifier", PatientClassifier)


def test_it_runs_from_recorded_weights(models, registered):
    real = real_images("t", 2)
    system = Plan.from_weights(models, steps=2, findings=["Effusion"])
    classifier = system.phi_class
    system.phi_class = lambda images: classifier(images)[:, :1]  # the tiny one has three findings
    release = system.anonymize(real)
    straight = Plan.from_weights(models, steps=0)
    assert (system.name, straight.name) == ("plan steps=2", "plan straight")
    assert system.fingerprint != straight.fingerprint and straight.phi_id is None
    assert release.sources == straight.anonymize(real).sources
    assert np.abs(release.pixels - straight.anonymize(real).pixels).max() > 1 / 255
    autoencoder = load_recorded(models, "aegan")
    with torch.no_grad():
        ends = autoencoder(torch.from_numpy(real.pixels)).clamp(0, 1).numpy()
    assert min(np.abs(image - end).max() for image in release.pixels for end in ends) > 1 / 255


def test_weights_that_are_not_recorded_are_asked_for(tmp_path):
    folder = save_tiny(tmp_path)
    with pytest.raises(IntegrityError) as caught:
        Plan.from_weights(folder)
    assert caught.value.code == "GM-W001" and "plan_identity" in str(caught.value)
    assert len(Plan.from_weights(folder, steps=0).anonymize(real_images("t", 2))) > 0, "no classifier is needed"


def test_names_tell_settings_apart():
    systems = [_toy(), _toy(steps=0), _toy(n_points=10), _toy(name="plan"), _toy(steps=0, n_points=5)]
    expected = ["plan steps=6", "plan straight", "plan steps=6 n=10", "plan", "plan straight n=5"]
    assert [s.name for s in systems] == expected
    assert len({s.fingerprint for s in systems}) == 4, "a name decides no pixels"


@pytest.mark.parametrize(
    "settings",
    [{"n_points": 2}, {"steps": -1}, {"lr": 0.0}, {"betas": (0.9, 1.0)}, {"lambda_id": -1.0}, {"chunk": 0}]
    + [{"unit_pairs": 0}],
)
def test_unusable_settings_are_refused(settings):
    with pytest.raises(UsageError) as caught:
        _toy(**settings)
    assert caught.value.code == "GM-U077"


@pytest.mark.parametrize("what", ["no classifier", "one patient", "other findings"])
def test_what_it_cannot_work_with_is_refused(what):
    with pytest.raises(UsageError) as caught:
        if what == "no classifier":
            Plan(ToyNet(SIZE).encoder, ToyNet(SIZE).synthesis, None, None, {})
        elif what == "one patient":
            _toy().anonymize(real_images("t", 1))
        else:
            _toy(findings=("Effusion", "Hernia")).anonymize(real_images("t", 2))
    assert caught.value.code == "GM-U077"
