"""Transfer on toy radiographs in which a finding is a bright square: noise rings, unchanged images are silent."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from gmia_monai.attacks.base import Judged
from gmia_monai.data.cohort import Cohort, ImageRecord
from gmia_monai.data.release import RealImages, Release
from gmia_monai.errors import ManifestError, UsageError
from gmia_monai.evaluation import classifiers
from gmia_monai.evaluation.classifiers import ClassifierStore, LabelledImages, TransferRecipe
from gmia_monai.evaluation.transfer import evaluate_transfer, labels_of_release
from gmia_monai.metrics.differences import draws_of
from gmia_monai.metrics.replicates import ReplicateLog
from gmia_monai.metrics.results import RunContext

FINDINGS = ("Atelectasis", "Mass")
CONTEXT = RunContext("system", "cxr64")
RECIPE = TransferRecipe("small_densenet", steps=25, lr=4e-3, batch_size=32, validate_every=25)
SETTINGS = {"seeds": (0, 1), "min_positives": 20, "n_boot": 100}


@cache
def real(name: str, n: int) -> RealImages:
    """Two images a patient; one square for each finding, in noise."""
    rng = np.random.default_rng([*name.encode()])
    pixels, records = 0.5 + 0.1 * rng.standard_normal((n, 1, 32, 32)), []
    for i in range(n):
        labels = rng.random(2) < 0.4
        for k in range(2):
            pixels[i, 0, 4:12, 4 + 16 * k : 12 + 16 * k] += 0.2 * labels[k]
        records.append(
            ImageRecord(
                Path(f"/{name}/{i}.png"),
                f"{name}{i // 2}",
                view="AP" if i % 4 < 2 else "PA",
                sex="FM"[i // 2 % 2],
                age=30.0 + i // 2 % 40,
                labels=tuple((finding, 1.0) for finding, there in zip(FINDINGS, labels, strict=True) if there),
            )
        )
    return RealImages(Cohort(tuple(records), findings=FINDINGS), np.clip(pixels, 0, 1).astype(np.float32))


def release(of: RealImages, kind: str, **more: object) -> Judged:
    """``unchanged``, ``noise``, ``pairs`` (the mean of two neighbours) or ``generated`` (without sources)."""
    sources = [(i,) for i in range(len(of))]
    pixels = of.pixels
    if kind == "noise":
        pixels = np.random.default_rng(len(of)).random(pixels.shape, dtype=np.float32)
    if kind == "pairs":
        sources = [(i, i + 1) for i in range(0, len(of), 2)]
        pixels = np.stack([of.pixels[list(s)].mean(axis=0) for s in sources])
    if kind == "generated":
        sources = [()] * len(of)
    return Judged(of, Release(kind, pixels, tuple(sources), **more))  # type: ignore[arg-type]


S, V2, T = ("s", 200), ("v", 60), ("t", 160)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("classifiers")


def lines_of(train_kind, test_kind, folder, **more):
    results = evaluate_transfer(
        release(real(*S), train_kind), release(real(*T), test_kind), real(*V2), [RECIPE], CONTEXT,
        cache_dir=folder, **SETTINGS | more,
    )  # fmt: skip
    return {line.name.removesuffix(".v1").replace(".small_densenet", ""): line for line in results}


def test_unchanged_images_lose_exactly_nothing(folder):
    lines = lines_of("unchanged", "unchanged", folder)
    assert lines["utility_macro_auroc.real_to_real"].value > 0.8
    for direction in ("released_to_real", "real_to_released"):
        for name in ("macro_auroc_loss", "macro_ap_loss", "macro_f1_loss", "macro_accuracy_loss", "paper_auroc_loss"):
            line = lines[f"utility_{name}.{direction}"]
            assert (line.value, line.low, line.high) == (0.0, 0.0, 0.0)
        groups = {
            n.rsplit(".")[-1]: line
            for n, line in lines.items()
            if n.startswith(f"utility_macro_auroc_loss.{direction}.")
        }
        assert set(groups) == {"sex_F", "sex_M", "age_under_40", "age_40_59", "age_60_up", "view_AP", "view_PA"}
        assert groups["sex_F"].n_images + groups["sex_M"].n_images == 160
        assert groups["sex_F"].n_patients == 40
    assert lines["utility_macro_auroc.real_to_real"].n_patients == 80


def test_noise_is_worth_nothing_in_either_direction(folder):
    lines = lines_of("noise", "noise", folder)
    for direction in ("released_to_real", "real_to_released"):
        figure, loss = lines[f"utility_macro_auroc.{direction}"], lines[f"utility_macro_auroc_loss.{direction}"]
        assert loss.value > 0.05 and loss.extra["non_inferior_at_0.02"] is None
        assert loss.value == pytest.approx(lines["utility_macro_auroc.real_to_real"].value - figure.value, abs=2e-6)
    # what learned from noise sees something at random in real images; what learned from real ones sees nothing in noise
    assert 0.3 < lines["utility_macro_auroc.real_to_released"].value < 0.7


def test_what_is_kept_is_the_loss_on_real_images_under_the_draws_of_the_cohort(folder):
    log = ReplicateLog()
    test = release(real(*T), "noise")
    results = evaluate_transfer(
        release(real(*S), "noise"), test, real(*V2), [RECIPE], replace(CONTEXT, keep=log.add),
        cache_dir=folder, **SETTINGS,
    )  # fmt: skip
    [line] = [r for r in results if log.of(r) is not None]
    assert line.name == "utility_macro_auroc_loss.released_to_real.small_densenet.v1" and len(log.kept) == 1
    kept = log.of(line)
    assert kept.found.shape == (101, 2) and kept.seeds == (0, 1) and kept.n_patients == 80
    assert kept.draws == draws_of(test.real.cohort.patients, CONTEXT.seed)
    assert kept.found[1:].std() > 0 and line.low < np.quantile(kept.found.mean(axis=1), 0.5) < line.high


def test_an_earlier_call_is_gone_on_with(folder, monkeypatch):
    before = lines_of("unchanged", "unchanged", folder)

    def never(*args, **more):
        raise AssertionError("trained again")

    monkeypatch.setattr(classifiers, "train", never)
    assert lines_of("unchanged", "unchanged", folder) == before
    # a release of other test images asks the real list's classifiers, whose weights are kept
    lines = lines_of("unchanged", "pairs", folder)
    assert lines["utility_macro_auroc.real_to_released"].n_images == 80
    with pytest.raises(AssertionError, match="trained again"):
        lines_of("unchanged", "unchanged", folder, seeds=(0, 5))


def test_sources_give_labels_to_images_of_several(folder):
    judged = release(real(*T), "pairs")
    own, labels = real(*T).cohort.label_matrix(FINDINGS), labels_of_release(judged, FINDINGS)
    np.testing.assert_array_equal(labels, (own[0::2] + own[1::2]) / 2 >= 0.5)
    given = release(real(*T), "generated", labels=own[:, 1:], findings=("Mass",))
    labels = labels_of_release(given, FINDINGS)
    assert np.isnan(labels[:, 0]).all() and np.array_equal(labels[:, 1], own[:, 1])
    assert labels_of_release(release(real(*T), "generated"), FINDINGS) is None
    lines = lines_of("pairs", "pairs", folder)
    assert lines["utility_macro_auroc_loss.released_to_real"].low < lines["utility_macro_auroc.real_to_real"].value
    assert lines["utility_macro_auroc_loss.real_to_released"].n_patients is None
    assert "utility_macro_auroc_loss.real_to_released.sex_F" not in lines


def test_uncertain_labels_teach_as_absent_and_are_not_scored(folder):
    records = [
        replace(record, labels=(("Atelectasis", -1.0), *(pair for pair in record.labels if pair[0] == "Mass")))
        if i < 20
        else record
        for i, record in enumerate(real(*T).cohort)
    ]
    doubtful = RealImages(replace(real(*T).cohort, records=tuple(records)), real(*T).pixels)
    plain, unsure = (labels_of_release(release(doubtful, "unchanged"), FINDINGS, u) for u in ("zeros", "ignore"))
    assert (plain[:20, 0] == 0).all() and np.isnan(unsure[:20, 0]).all()
    assert np.array_equal(plain[20:], unsure[20:]) and np.array_equal(plain[:, 1], unsure[:, 1])
    arguments = release(real(*S), "unchanged"), release(doubtful, "unchanged"), real(*V2), [RECIPE], CONTEXT
    found = {line.name: line for line in evaluate_transfer(*arguments, cache_dir=folder, **SETTINGS)}
    whole = lines_of("unchanged", "unchanged", folder)
    for direction in ("real_to_real", "real_to_released"):
        line = found[f"utility_macro_accuracy.{direction}.small_densenet.v1"]
        truth = real(*T).cohort.label_matrix(FINDINGS)
        assert line.extra["n_positive"]["Atelectasis"] == truth[20:, 0].sum()
        before = whole[f"utility_macro_accuracy.{direction}"].extra["per_finding"]
        assert line.extra["per_finding"]["Mass"][0] == before["Mass"][0]
        assert truth[:20, 0].any() and line.extra["per_finding"]["Atelectasis"][0] == 1.0, "as absent: errors"


def test_a_generated_release_without_labels_teaches_nothing(folder):
    lines = lines_of("generated", "generated", folder)
    loss = lines["utility_macro_auroc_loss.released_to_real"]
    assert loss.value is None and "no labels" in loss.extra["reason"]
    assert not any("real_to_released" in name for name in lines)


def test_without_labels_of_either_release_nothing_is_trained(tmp_path, monkeypatch):
    def never(*args, **more):
        raise AssertionError("trained")

    monkeypatch.setattr(classifiers, "train", never)
    lines = lines_of("generated", "generated", tmp_path)
    assert list(lines) == ["utility_macro_auroc_loss.released_to_real"]
    assert "no labels" in lines["utility_macro_auroc_loss.released_to_real"].extra["reason"]


@pytest.mark.parametrize(("wanted", "fast"), [(True, True), (True, False), (False, True)])
def test_precision_is_that_of_recipe_and_device(tmp_path, monkeypatch, wanted, fast):
    used = set()

    class Spy(classifiers.AutocastInferer):
        def __init__(self, enabled=True):
            used.add(enabled)
            super().__init__(enabled)

    monkeypatch.setattr(classifiers, "AutocastInferer", Spy)
    monkeypatch.setattr(classifiers, "computes_bfloat16", lambda device: fast)
    monkeypatch.setattr(classifiers, "train", lambda *args, **more: args[4]())
    learned = classifiers.LabelledImages(real(*V2).pixels, real(*V2).cohort.label_matrix(FINDINGS))
    recipe = replace(RECIPE, bfloat16=wanted)
    ClassifierStore(tmp_path, learned).probabilities(learned, recipe, 0, [learned.pixels])
    assert used == {wanted and fast, False}, "logits that are kept are always float32"


def test_a_classifier_is_kept_under_precision_and_version(tmp_path, monkeypatch):
    learned = LabelledImages(real(*V2).pixels, real(*V2).cohort.label_matrix(FINDINGS))
    store = ClassifierStore(tmp_path, learned)
    path = lambda recipe=RECIPE: store.weights_path(learned, recipe, 0)  # noqa: E731
    paths = [path(), path(replace(RECIPE, bfloat16=False))]
    fast = classifiers.computes_bfloat16("cpu")
    monkeypatch.setattr(classifiers, "computes_bfloat16", lambda device: not fast)
    paths.append(path())
    monkeypatch.setattr(classifiers, "computes_bfloat16", lambda device: fast)
    assert path() == paths[0]
    monkeypatch.setattr(classifiers, "_VERSION", classifiers._VERSION + 1)
    assert len({*paths, path()}) == 4


def test_an_image_without_a_source_among_joint_ones_is_left_out(folder):
    joint = release(real(*T), "pairs").release
    pixels = np.concatenate([joint.pixels, joint.pixels[:1]])
    lone = Judged(real(*T), Release("pairs", pixels, (*joint.sources, ())))
    results = evaluate_transfer(
        release(real(*S), "unchanged"), lone, real(*V2), [RECIPE], CONTEXT, cache_dir=folder, **SETTINGS
    )
    found = {line.name: line for line in results}
    line = found["utility_macro_auroc.real_to_released.small_densenet.v1"]
    expected = lines_of("unchanged", "pairs", folder)["utility_macro_auroc.real_to_released"]
    assert (line.value, line.low, line.n_images) == (expected.value, expected.low, 80)


def test_what_cannot_be_judged_is_refused(tmp_path):
    arguments = [release(real(*S), "unchanged"), release(real(*T), "unchanged"), real(*V2)]
    for recipes, seeds in (([], (0,)), ([RECIPE], ()), ([RECIPE, RECIPE], (0,)), ([RECIPE], (1, 1))):
        with pytest.raises(UsageError, match="GM-U347"):
            evaluate_transfer(*arguments, recipes, CONTEXT, cache_dir=tmp_path, seeds=seeds)
    with pytest.raises(UsageError, match="GM-U349"):
        evaluate_transfer(*arguments, [RECIPE], CONTEXT, cache_dir=tmp_path, min_positives=500)
    with pytest.raises(UsageError, match="GM-U349"):
        ClassifierStore(tmp_path, LabelledImages(real(*V2).pixels, np.zeros((60, 2))))
    with pytest.raises(ManifestError, match="GM-M032"):
        evaluate_transfer(arguments[0], arguments[0], real(*V2), [RECIPE], CONTEXT, cache_dir=tmp_path)
    with pytest.raises(UsageError, match="GM-U346"):
        LabelledImages(real(*V2).pixels, np.zeros((59, 2)))
    small = np.zeros((4, 1, 16, 16), np.float32)
    labelled = LabelledImages(real(*V2).pixels, real(*V2).cohort.label_matrix(FINDINGS))
    with pytest.raises(UsageError, match="GM-U348"):
        ClassifierStore(tmp_path, labelled).probabilities(labelled, RECIPE, 0, [small])
    assert list(tmp_path.iterdir()) == []
