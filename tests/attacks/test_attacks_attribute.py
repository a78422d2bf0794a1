"""Attributes: classes, the alarm on unchanged images, silence on noise."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from attack_cohorts import LOWER, SIZE, judged, knowledge, released
from attack_controls import is_silent, shuffled

from gmia_monai.attacks.attribute import ATTRIBUTES, AttributeAttack, attribute_classes
from gmia_monai.attacks.base import AttackerKnowledge, Judged
from gmia_monai.attacks.training import Schedule
from gmia_monai.data.cohort import Cohort, ImageRecord
from gmia_monai.data.release import RealImages
from gmia_monai.errors import UsageError
from gmia_monai.metrics.results import Result, RunContext

FAST = Schedule(steps=60, lr=3e-3, validate_every=20)
LONGER = Schedule(steps=200, lr=3e-3, validate_every=40)
CONTEXT = RunContext("x", "p")


@cache
def portraits(name: str, n_patients: int = 48) -> RealImages:
    """Two images of each patient that show sex (the lower half is brighter in men), age (the contrast of fine stripes)
    and view (an edge at one side), each independent of the others."""
    rng = np.random.default_rng([7, *name.encode()])
    fine, side = np.arange(SIZE) % 4 < 2, np.arange(SIZE) < SIZE // 4
    records, pixels = [], []
    for p in range(n_patients):
        sex, age = "FM"[p % 2], (30.0, 50.0, 70.0)[int(rng.integers(3))]
        for i in range(2):
            view = ("AP", "PA")[int(rng.integers(2))]
            image = 0.3 + 0.2 * (sex == "M") * LOWER + 0.1 * rng.standard_normal((SIZE, SIZE))
            image = image + (age - 30.0) / 100.0 * fine[:, None] + 0.3 * (view == "PA") * side
            records.append(ImageRecord(Path(f"/{name}/{p}_{i}.png"), f"{name}{p}", view=view, sex=sex, age=age))
            pixels.append(image)
    return RealImages(Cohort(tuple(records)), np.clip(np.stack(pixels), 0, 1).astype(np.float32)[:, None])


@cache
def _portrayed(system: str) -> AttributeAttack:
    attack = AttributeAttack(schedule=LONGER, n_boot=200)
    parts = (released(portraits(name), system, seed=i) for i, name in enumerate("av"))
    attack.fit(AttackerKnowledge(portraits("s"), *parts))
    return attack


def _lines(system: str, case: Judged) -> dict[str, Result]:
    return {r.name: r for r in _portrayed(system).score(case, CONTEXT)}


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_every_attribute_rings_on_unchanged_images(attribute):
    lines = _lines("unchanged", released(portraits("t"), "unchanged"))
    line, control = lines[f"attribute_auc.{attribute}.v1"], lines[f"attribute_auc_real.{attribute}.v1"]
    # The smallest class has fewer than 15 patients: even where all are right, the lower limit is 0.77.
    assert line.low > 0.7 and line.value == control.value
    assert line.extra["accuracy"] > line.extra["most_frequent_class"] + 0.2
    assert line.n_patients == 48 and line.extra["classes"] == list(ATTRIBUTES[attribute])


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_every_attribute_is_silent_on_noise(attribute):
    lines = _lines("noise", released(portraits("t"), "noise", seed=9))
    assert is_silent(lines[f"attribute_auc.{attribute}.v1"])
    assert lines[f"attribute_auc_real.{attribute}.v1"].low > 0.7, "there was something to find"


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_every_attribute_is_silent_on_shuffled_patients(attribute):
    lines = _lines("unchanged", shuffled(released(portraits("t"), "unchanged")))
    assert is_silent(lines[f"attribute_auc.{attribute}.v1"])
    assert lines[f"attribute_auc_real.{attribute}.v1"].low > 0.7, "there was something to find"


def test_classes_of_records():
    rows = [("F", "PA", 20.0), ("M", "AP", 40.0), ("", "LL", math.nan), ("M", "PA", 60.0), ("F", "", 59.9)]
    cohort = Cohort(tuple(ImageRecord(Path(f"/{i}"), str(i), sex=s, view=v, age=a) for i, (s, v, a) in enumerate(rows)))
    found = attribute_classes(cohort)
    assert found["sex"].tolist() == [0, 1, -1, 1, 0]
    assert found["view"].tolist() == [1, 0, -1, 1, -1]
    assert found["age"].tolist() == [0, 1, -1, 2, 1]


def test_one_class_alone_is_nothing_to_tell_apart():
    attack = AttributeAttack(schedule=FAST, n_boot=50)
    attack.fit(knowledge("unchanged"))
    table = {r.name: r for r in attack.score(judged("unchanged"), CONTEXT)}
    assert table["attribute_auc.sex.v1"].low > 0.7
    assert table["attribute_auc.view.v1"].value is None, "the images of this cohort are all PA"


def test_figures_are_means_over_seeds():
    def table(seeds: tuple[int, ...]) -> dict[str, Result]:
        attack = AttributeAttack(seeds, 30, Schedule(steps=10, lr=3e-3, validate_every=10))
        parts = (released(portraits(name), "unchanged", seed=i) for i, name in enumerate("av"))
        attack.fit(AttackerKnowledge(portraits("s"), *parts))
        return {r.name: r for r in attack.score(released(portraits("t"), "unchanged"), CONTEXT)}

    three, single = table((0, 1, 2)), [table((seed,)) for seed in range(3)]
    for name, line in three.items():
        values = [of_seed[name].value for of_seed in single]
        assert line.value == pytest.approx(np.mean(values), abs=1e-5)
        assert line.extra["accuracy"] == pytest.approx(np.mean([t[name].extra["accuracy"] for t in single]), abs=1e-5)
        assert line.extra["attacker_seeds"] == [0, 1, 2]
    assert len({of_seed["attribute_auc.age.v1"].value for of_seed in single}) == 3, "each seed has a network"
    with pytest.raises(UsageError, match="GM-U316"):
        AttributeAttack(())


def test_it_must_be_fitted():
    with pytest.raises(UsageError, match="GM-U311"):
        AttributeAttack().score(judged("noise"), CONTEXT)


def test_the_learning_rate_rises_and_falls():
    rates = [FAST.rate(step) for step in range(60)]
    assert max(rates) == pytest.approx(FAST.lr) and int(np.argmax(rates)) in (5, 6)
    assert 0 < rates[59] < 0.01 * FAST.lr < rates[0]
