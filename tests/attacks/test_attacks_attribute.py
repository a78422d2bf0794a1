"""Attributes: classes, the alarm on unchanged images, silence on noise."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from attack_cohorts import judged, knowledge

from gmia_monai.attacks.attribute import AttributeAttack, attribute_classes
from gmia_monai.attacks.training import Schedule
from gmia_monai.data.cohort import Cohort, ImageRecord
from gmia_monai.errors import UsageError
from gmia_monai.metrics.results import RunContext

FAST = Schedule(steps=60, lr=3e-3, validate_every=20)


def _table(system: str) -> dict:
    attack = AttributeAttack(schedule=FAST, n_boot=50)
    attack.fit(knowledge(system))
    return {r.name: r for r in attack.score(judged(system), RunContext("x", "p"))}


def test_classes_of_records():
    rows = [("F", "PA", 20.0), ("M", "AP", 40.0), ("", "LL", math.nan), ("M", "PA", 60.0), ("F", "", 59.9)]
    cohort = Cohort(tuple(ImageRecord(Path(f"/{i}"), str(i), sex=s, view=v, age=a) for i, (s, v, a) in enumerate(rows)))
    found = attribute_classes(cohort)
    assert found["sex"].tolist() == [0, 1, -1, 1, 0]
    assert found["view"].tolist() == [1, 0, -1, 1, -1]
    assert found["age"].tolist() == [0, 1, -1, 2, 1]


def test_it_rings_on_unchanged_images():
    table = _table("unchanged")
    assert table["attribute_auc.sex.v1"].value > 0.9
    assert table["attribute_auc_real.sex.v1"].value == table["attribute_auc.sex.v1"].value
    assert table["attribute_auc.sex.v1"].extra["accuracy"] > table["attribute_auc.sex.v1"].extra["most_frequent_class"]
    assert table["attribute_auc.view.v1"].value is None, "one view alone: nothing to tell apart"


def test_it_is_silent_on_noise_though_there_was_something_to_find():
    table = _table("noise")
    assert abs(table["attribute_auc.sex.v1"].value - 0.5) < 0.2, "24 people: 0.1 is one standard deviation"
    assert table["attribute_auc_real.sex.v1"].value > 0.8


def test_it_must_be_fitted():
    with pytest.raises(UsageError, match="GM-U311"):
        AttributeAttack().score(judged("noise"), RunContext("x", "p"))


def test_the_learning_rate_rises_and_falls():
    rates = [FAST.rate(step) for step in range(60)]
    assert max(rates) == pytest.approx(FAST.lr) and int(np.argmax(rates)) in (5, 6)
    assert 0 < rates[59] < 0.01 * FAST.lr < rates[0]
