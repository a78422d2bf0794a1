"""Refitting finds what a fixed permutation of pixels hides; averaging helps; budgets and refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from attack_cohorts import SIZE, flat, judged, knowledge, real_images, released

from gmia_monai.attacks.attackers import ATTACKERS, adaptive, make_attackers
from gmia_monai.attacks.attackers.adaptive import AdaptiveAttacker, real_side, released_side
from gmia_monai.attacks.attackers.averaging import AveragingAttacker
from gmia_monai.attacks.attackers.frozen import FrozenAttacker
from gmia_monai.attacks.attackers.linear import LinearAttacker
from gmia_monai.attacks.attackers.trained import TrainedAttacker
from gmia_monai.attacks.base import Judged, TooLittleDataError
from gmia_monai.attacks.refit import RefitRecipe, refit
from gmia_monai.attacks.refit_pair import RefitPair
from gmia_monai.attacks.refit_store import RefitStore
from gmia_monai.data.cohort import Cohort, ImageRecord
from gmia_monai.data.release import RealImages, Release
from gmia_monai.data.threats import threat_pairs
from gmia_monai.errors import UsageError
from gmia_monai.metrics.verification import roc_auc
from gmia_monai.networks import IdentityNet, SiameseVerifier, load_network, save_network

PLAIN = RefitRecipe(
    steps=40,
    patients=16,
    lr=2e-3,
    validate_every=20,
    shift_px=0,
    rotate_deg=0.0,
    zoom=0.0,
    contrast=0.0,
    erase_prob=0.0,
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> dict[str, list[Path]]:
    folder = tmp_path_factory.mktemp("attackers")
    arguments = {"image_size": SIZE, "architecture": "small", "embedding_dim": 32, "two_views": True}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_network(folder / "arcface.safetensors", IdentityNet(**arguments), arguments)
        save_network(folder / "siamese.safetensors", SiameseVerifier(features=64), {"features": 64})
    return {"arcface": [folder / "arcface.safetensors"], "snn": [folder / "siamese.safetensors"]}


def _rolled(name: str) -> Judged:
    """A system that moves the image in a circle and inverts it: the pattern is there, elsewhere."""
    real = real_images(name)
    pixels = 1.0 - np.roll(real.pixels, (SIZE // 2, SIZE // 4), axis=(2, 3))
    return Judged(real, Release("rolled", pixels, tuple((i,) for i in range(len(real)))))


def _rolled_knowledge(**more):
    known = knowledge("unchanged", **more)
    return type(known)(known.training, _rolled("a"), _rolled("v"), known.frozen, known.anonymize)


def _auc(attacker, case: Judged, threat: str = "T1") -> float:
    pairs = threat_pairs(case.real.cohort, threat, "random", case.released)
    return roc_auc(attacker.score(case, pairs, threat), pairs.same, pairs.weight)


def test_refitting_finds_what_a_trained_attacker_does_not(weights):
    known, case = _rolled_knowledge(), _rolled("t")
    before = TrainedAttacker("arcface", weights["arcface"])
    before.fit(known, 0)
    after = AdaptiveAttacker("adaptive_cross", weights["arcface"], "real", PLAIN)
    after.fit(known, 0)
    assert _auc(after, case) > max(0.75, _auc(before, case) + 0.1)


def test_the_siamese_network_can_be_refitted_too(weights):
    network = load_network(weights["snn"][0])
    side = released_side(released(real_images("a"), "unchanged"))
    losses = []

    def contrast(pair: RefitPair) -> float:
        with torch.no_grad():
            scores = pair.matrix(torch.from_numpy(side.pixels[::3]), torch.from_numpy(side.pixels[1::3]))
        losses.append(float(torch.nn.functional.cross_entropy(scores, torch.arange(len(scores)))))
        return -losses[-1]

    refit(RefitPair(network, shared=True), side, side, recipe=PLAIN, seed=0, validate=contrast)
    assert min(losses) < losses[0] - 0.2


def test_the_same_seed_gives_the_same_attacker_and_noise_teaches_nothing(weights):
    recipe = RefitRecipe(steps=6, patients=8, validate_every=3)
    scores = []
    for seed in (0, 0, 1):
        attacker = AdaptiveAttacker("adaptive_released", weights["arcface"], "released", recipe)
        attacker.fit(knowledge("noise"), seed)
        case = judged("noise")
        scores.append(attacker.score(case, threat_pairs(case.real.cohort, "T3", "random"), "T3"))
        assert abs(_auc(attacker, case) - 0.5) < 0.12
    assert np.array_equal(scores[0], scores[1]) and not np.array_equal(scores[0], scores[2])


def test_a_budget_takes_fewer_patients(weights):
    case = released(real_images("a"), "unchanged")
    side = released_side(case)
    few = side.of_patients(np.array([0, 5]))
    assert few.patient.tolist() == [0] * 3 + [5] * 3
    assert np.array_equal(few.pixels, side.pixels[[0, 1, 2, 15, 16, 17]])
    pair = RefitPair(IdentityNet(SIZE, "small", 8), shared=False)
    lonely = few.of_patients(np.array([0]))
    with pytest.raises(TooLittleDataError, match="GM-U314"):
        refit(pair, lonely, real_side(case), recipe=PLAIN, seed=0)


def _unlinkable(known: AttackerKnowledge) -> AttackerKnowledge:
    """Nobody knows which releases are of one person, so that only real images are averaged."""
    release = replace(known.choice.release, policy="unlinkable")
    return replace(known, choice=Judged(known.choice.real, release))


def test_averaging_is_the_mean_of_the_other_images(weights):
    attacker = AveragingAttacker({"frozen": FrozenAttacker})
    attacker.fit(_unlinkable(knowledge("unchanged")), 0)
    case = judged("unchanged")
    cohort, e = case.real.cohort, flat(case.real.pixels)
    pairs = threat_pairs(cohort, "T1", "random", negatives_per_positive=3)
    scores = attacker.score(case, pairs, "T1")
    for k in [0, 7, len(pairs) - 1]:
        i, j = int(pairs.first[k]), int(pairs.second[k])
        mates = [m for m in range(len(e)) if cohort.patient_index[m] == cohort.patient_index[j]]
        # of a stranger one image is left out, too, for the number must not tell
        left_out = [i] if pairs.same[k] else [m for m in mates if m != j]
        means = [e[[m for m in mates if m != out]].mean(0) for out in left_out]
        possible = [float(e[i] @ mean / np.linalg.norm(mean)) for mean in means]
        assert min(abs(scores[k] - p) for p in possible) < 1e-5


@pytest.mark.parametrize("side", ["real", "released"])
@pytest.mark.parametrize("knows", ["nothing", "exposures"])
def test_averaging_is_silent_where_nobody_is_released(side, knows):
    """Means of fewer images are noisier, which must not tell whose images they are. Who recognises exposures, but no
    patient, has T2; under T1 there is none to be recognised."""
    rng = np.random.default_rng(3)
    records = [
        ImageRecord(Path(f"/{p}_{i}.png"), f"p{p}", age=50.0)
        for p in range(200)
        for i in range(int(rng.integers(2, 5)))
    ]
    pixels = np.zeros((len(records), 1, 32, 32), np.float32)
    case = Judged(
        RealImages(Cohort(tuple(records)), pixels),
        Release("noise", pixels, tuple((i,) for i in range(len(records))), policy="pseudonymous"),
    )

    class Blind(FrozenAttacker):
        def embeddings(self, judged: Judged) -> tuple[np.ndarray, np.ndarray]:
            one, two = (0.5 + rng.standard_normal((len(records), 16)).astype(np.float32) for _ in range(2))
            return one, one if knows == "exposures" else two

    pairs = threat_pairs(case.real.cohort, "T1", "matched")
    attacker = AveragingAttacker({"blind": Blind})
    attacker._attackers, attacker.chosen["T1"] = {"blind": Blind()}, ("blind", side)
    aucs = [roc_auc(attacker.score(case, pairs, "T1"), pairs.same, pairs.weight) for _ in range(8)]
    assert abs(np.mean(aucs) - 0.5) < 0.015


def test_averaging_beats_one_image_on_noisy_ones(weights):
    attackers = FrozenAttacker(), AveragingAttacker({"frozen": FrozenAttacker})
    for attacker in attackers:
        attacker.fit(knowledge("unchanged"), 0)
    noisy = real_images("t", noise=0.9)
    one, many = (_auc(a, released(noisy, "unchanged", policy="pseudonymous")) for a in attackers)
    assert 0.55 < one < many


@pytest.mark.parametrize(("better", "kept"), [("later", False), ("earlier", True)])
def test_a_refit_says_whether_any_update_helped(weights, better, kept, tmp_path, monkeypatch):
    figures = iter(np.linspace(*((0.6, 0.9) if better == "later" else (0.9, 0.6)), 200))
    monkeypatch.setattr(AdaptiveAttacker, "_validation", lambda self, judged: lambda: float(next(figures)))
    for _ in range(2):  # refitted, then from the store
        recipe = replace(PLAIN, steps=4, validate_every=2)
        attacker = AdaptiveAttacker("x", weights["arcface"], "real", recipe, store=RefitStore(tmp_path))
        attacker.fit(_rolled_knowledge(), 0)
        assert attacker.kept_start is kept


def test_averaging_takes_the_embeddings_that_tell_most_on_v2(weights):
    """Identity at the far side counts as identity."""
    known = knowledge("negative")

    class Blind(FrozenAttacker):
        def fit(self, known, seed):
            self.use(lambda pixels: np.random.default_rng(0).standard_normal((len(pixels), 8)).astype(np.float32))

    attacker = AveragingAttacker({"blind": Blind, "frozen": FrozenAttacker})
    attacker.fit(_unlinkable(known), 0)
    assert attacker.chosen == dict.fromkeys(("T1", "T2", "T3"), ("frozen", "real"))
    assert _auc(attacker, judged("negative")) < 0.05
    attacker.fit(known, 0)
    assert {name for name, _ in attacker.chosen.values()} == {"frozen"}
    assert attacker.chosen["T2"][1] == "both", "where no policy speaks against it, releases are linked"


def test_several_releases_of_an_image_are_averaged(weights):
    real = real_images("t", noise=0.6)
    rng = np.random.default_rng(0)
    noisy = [np.clip(real.pixels + 0.5 * rng.standard_normal(real.pixels.shape), 0, 1) for _ in range(6)]
    once = tuple((i,) for i in range(len(real)))
    one = Judged(real, Release("noisy", noisy[0].astype(np.float32), once))
    many = Judged(real, Release("noisy", np.concatenate(noisy).astype(np.float32), once * 6))
    attacker = AveragingAttacker({"frozen": FrozenAttacker})
    attacker.fit(_unlinkable(knowledge("unchanged")), 0)
    assert _auc(attacker, many) > _auc(attacker, one) + 0.02


def test_every_name_makes_its_attacker(weights):
    makers = make_attackers(["adaptive_cross_snn", *ATTACKERS], weights["arcface"], weights["snn"])
    for name, make in makers.items():
        attacker = make()
        assert attacker.name == name
        assert isinstance(attacker, ATTACKERS[name.removesuffix("_snn")])
    assert makers["adaptive_cross_snn"]().weights == tuple(weights["snn"])
    with pytest.raises(UsageError, match="GM-U319"):
        make_attackers(["nobody"])
    with pytest.raises(UsageError, match="GM-U319"):
        make_attackers(["metadata", "fusion"])
    with pytest.raises(UsageError, match="GM-U313"):
        TrainedAttacker("snn", []).fit(knowledge("noise"), 0)


# -- what is refitted once ---------------------------------------------------------------------------------------------
def test_attackers_with_the_same_refit_share_it(weights, monkeypatch):
    calls = []
    monkeypatch.setattr(adaptive, "refit", lambda pair, *a, **k: calls.append(k["seed"]) or pair)
    known = knowledge("unchanged", anonymize=lambda pixels, seed: pixels)
    makers = make_attackers(["adaptive_cross", "averaging", "owner", "adaptive_released"], weights["arcface"])
    for make in makers.values():
        make().fit(known, 0)
    assert len(calls) == 2, "one against real images, one among released ones; a system without chance has no others"
    makers["adaptive_cross"]().fit(known, 1)
    assert len(calls) == 3


def test_a_system_that_inverts_identity_gives_the_refit_a_good_start(weights, monkeypatch):
    """Where the farthest match is the right one, the score is turned before the first update."""
    network = load_network(weights["arcface"][0])
    pair = RefitPair(network, shared=False)
    a, b = torch.randn(2, 5, 32)
    before = pair.compare(a, b)
    pair.turn()
    assert torch.equal(pair.compare(a, b), -before) and pair.state_dict()["sign"] == -1
    # Identity at the far side of the encoder: refitted for no update at all, the attacker must be right already.
    attacker = AdaptiveAttacker("adaptive_cross", weights["arcface"], "real", RefitRecipe(steps=1, patients=4, lr=0.0))
    attacker._validate = lambda pair, found: 0.1 if pair.sign > 0 else 0.9  # type: ignore[method-assign]
    monkeypatch.setattr(adaptive, "use_best_maps", lambda *_: (None, 0.8))
    attacker.fit(knowledge("negative"), 0)
    assert attacker.compare(a[:1], a[:1]).item() == pytest.approx(-1.0)


@pytest.mark.parametrize(("kind", "system"), [("arcface", "rolled"), ("snn", "negative")])
def test_a_refit_starts_where_the_linear_attacker_is(weights, kind, system):
    """Where a linear map of the embeddings undoes the system, nobody who learns more ends below it on V2."""
    known = _rolled_knowledge() if system == "rolled" else knowledge(system)
    pairs = threat_pairs(known.choice.real.cohort, "T1", "matched", known.choice.released, 20)

    def on_v2(attacker) -> float:
        attacker.fit(known, 0)
        return roc_auc(attacker.score(known.choice, pairs, "T1"), pairs.same, pairs.weight)

    plain = on_v2(TrainedAttacker(kind, weights[kind]))
    linear = on_v2(LinearAttacker("linear", weights[kind]))
    assert linear > max(plain, 1.0 - plain) + 0.05
    still = RefitRecipe(steps=1, patients=4, lr=0.0, bfloat16=False)
    start = AdaptiveAttacker("adaptive_cross", weights[kind], "real", still)
    assert on_v2(start) == pytest.approx(linear, abs=1e-3)
    moving = AdaptiveAttacker("adaptive_cross", weights[kind], "real", replace(PLAIN, steps=4, validate_every=2))
    assert on_v2(moving) >= linear - 1e-3


def test_released_images_among_themselves_have_one_map(weights):
    still = RefitRecipe(steps=1, patients=4, lr=0.0)
    attacker = AdaptiveAttacker("adaptive_released", weights["arcface"], "released", still)
    attacker.fit(_rolled_knowledge(), 0)
    assert attacker.embed_real is attacker.embed_released
    linear = LinearAttacker("linear", weights["arcface"])
    linear.fit(_rolled_knowledge(), 0)
    choice = _rolled_knowledge().choice
    assert _auc(attacker, choice, "T3") >= _auc(linear, choice, "T3") - 0.02


def test_the_start_is_part_of_what_a_refit_is_kept_under(weights, monkeypatch):
    """Other real images give other discriminants, and so another start."""
    calls = []
    monkeypatch.setattr(adaptive, "refit", lambda pair, *a, **k: calls.append(k["name"]) or pair)
    store = RefitStore()
    for training in (real_images("s", 16), real_images("s", 16), real_images("s", 12)):
        known = replace(knowledge("unchanged"), training=training)
        AdaptiveAttacker("adaptive_cross", weights["arcface"], "real", PLAIN, store=store).fit(known, 2)
    assert calls == ["refit adaptive_cross, seed 2"] * 2


def test_refitting_to_the_source_finds_the_source(weights):
    """Each image has its own grey pattern beside that of the patient: only the former tells T2 apart from T1."""
    known, case = _rolled_knowledge(), _rolled("t")
    aucs = {}
    for name, against in (("adaptive_cross", "real"), ("adaptive_source", "source")):
        attacker = AdaptiveAttacker(name, weights["arcface"], against, PLAIN)
        attacker.fit(known, 0)
        aucs[name] = _auc(attacker, case, "T2")
    assert aucs["adaptive_source"] > 0.75


def _means_of_two(name: str) -> Judged:
    """k-to-one: the mean of an image of one patient and one of the next."""
    real = real_images(name)
    patient = real.cohort.patient_index
    mates = [int(np.flatnonzero(patient == (p + 1) % 24)[i % 3]) for i, p in enumerate(patient)]
    sources = tuple((i, mates[i]) for i, p in enumerate(patient) if p % 2 == 0)
    pixels = np.stack([real.pixels[list(s)].mean(0) for s in sources])
    return Judged(real, Release("means", pixels, sources, "k_anonymous"))


def test_refitting_knows_all_patients_of_an_image_of_several(weights):
    known, case = knowledge("unchanged"), _means_of_two("t")
    known = type(known)(known.training, _means_of_two("a"), _means_of_two("v"), known.frozen, known.anonymize)
    side = released_side(known.own)
    assert len(side.pixels) == 2 * len(known.own.release) and len(np.unique(side.patient)) == 24
    attacker = AdaptiveAttacker("adaptive_cross", weights["arcface"], "real", PLAIN)
    attacker.fit(known, 0)
    found = attacker.compare_all(attacker.embed_released(case.release.pixels), attacker.embed_real(case.real.pixels))
    patient = case.real.cohort.patient_index
    member = np.stack([np.isin(patient, list(p)) for p in case.release.source_patients(case.real.cohort)])
    assert roc_auc(found.ravel(), member.ravel()) > 0.7
    with pytest.raises(UsageError, match="GM-U303"):
        AdaptiveAttacker("adaptive_released", weights["arcface"], "released", PLAIN).fit(known, 0)
    generated = Judged(case.real, Release("generated", case.release.pixels, ((),) * len(case.release)))
    assert len(released_side(generated).pixels) == 0


def test_the_optimisers_own_encoder_can_be_refitted(weights):
    made = make_attackers(["adaptive_cross_frozen"], recipe=PLAIN, frozen=weights["arcface"])
    attacker = made["adaptive_cross_frozen"]()
    assert attacker.weights == tuple(weights["arcface"]) and attacker.against == "real"
    assert not attacker.two_views and attacker.recipe.lr == pytest.approx(PLAIN.lr / 10)
