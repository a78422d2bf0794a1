"""The plan: the same images in the same units, however often a run begins."""

from __future__ import annotations

import pytest

from gmia_monai.errors import IntegrityError
from gmia_monai.release.plan import make_plan, read_plan, write_plan

HANDLES = [f"{i * 7919 % 1000:04x}" for i in range(37)]


def test_units_are_cut_in_the_order_of_handles_and_hold_each_once():
    plan = make_plan(HANDLES, "s", 16)
    assert [len(unit) for unit in plan.units] == [16, 16, 5]
    assert [h for unit in plan.units for h in unit] == sorted(HANDLES)
    assert make_plan(HANDLES[::-1] + HANDLES[:3], "s", 16) == plan
    assert make_plan(HANDLES, "t", 16).sha256 != plan.sha256 != make_plan(HANDLES[1:], "s", 16).sha256


def test_a_unit_is_open_until_all_of_it_has_an_end():
    plan = make_plan(HANDLES, "s", 16)
    assert plan.open_units(set()) == list(plan.units)
    assert plan.open_units(set(plan.units[0][:-1])) == list(plan.units)
    assert plan.open_units(set(plan.units[0])) == list(plan.units[1:])
    assert plan.open_units(set(HANDLES)) == [] == make_plan([], "s").open_units(set())


def test_it_is_kept_and_read(tmp_path):
    path, plan = tmp_path / "plan.json", make_plan(HANDLES, "s")
    assert read_plan(path) is None
    write_plan(plan, path)
    assert read_plan(path) == plan and read_plan(path).sha256 == plan.sha256


@pytest.mark.parametrize("text", ["", "{", "[]", '{"units": 3, "settings": ""}', '{"units": []}', "\xff"])
def test_a_damaged_one_is_refused(tmp_path, text):
    (tmp_path / "plan.json").write_text(text, encoding="latin-1")
    with pytest.raises(IntegrityError, match="GM-W302"):
        read_plan(tmp_path / "plan.json")
