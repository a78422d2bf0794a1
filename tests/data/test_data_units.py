"""Work units: who is in them, what is done again and what is not, and what stays outside the output."""

from __future__ import annotations

import csv
import hashlib
import hmac
import logging
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gmia_monai.data import AnonymizationRun
from gmia_monai.data.phantom import generate_cohort
from gmia_monai.data.units import find_sources
from gmia_monai.dicom import links_path
from gmia_monai.errors import ManifestError, UsageError

KEY = bytes(range(32))
OTHER = bytes(reversed(range(32)))
SETTINGS = {"margin_cos": -0.5}


@pytest.fixture
def folder(tmp_path: Path, make_image: Callable[[Path], Path]) -> Path:
    for i in range(5):
        make_image(tmp_path / "in" / f"p{i // 2}" / f"Smith_{i}.png")
    return tmp_path / "in"


def run_of(folder: Path, out: Path, **more: Any) -> AnonymizationRun:
    return AnonymizationRun(folder, out, more.pop("settings", SETTINGS), **{"unit_size": 2, **more})


def do(run: AnonymizationRun, numbers: list[int] | None = None) -> list[int]:
    """Finishes units as the writer does; returns their numbers."""
    numbers = run.pending() if numbers is None else numbers
    for number in numbers:
        rows = []
        for source in run.units[number]:
            file = run.output_dir / "images" / f"{source.handle}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"image")
            rows.append({"handle": source.handle, "status": "anonymized", "file": f"images/{file.name}"})
        run.finish_unit(run.units[number], rows)
    return numbers


def test_handles_are_keyed_and_ordered(folder) -> None:
    sources = find_sources(folder, KEY)
    assert [s.handle for s in sources] == sorted(s.handle for s in sources)
    assert sorted(s.name for s in sources) == [f"p{i // 2}/Smith_{i}.png" for i in range(5)]
    for source in sources:
        text = b"handle\0image:" + source.name.encode()
        assert source.handle == hmac.new(KEY, text, hashlib.sha256).hexdigest()[:16]
        assert source.path == folder / source.name
    others = find_sources(folder, OTHER)
    assert not {s.handle for s in sources} & {s.handle for s in others}
    assert [s.name for s in sources] != [s.name for s in others], "the order of the handles tells nothing of the names"


def test_handles_do_not_depend_on_where_the_folder_stands(folder, tmp_path) -> None:
    before = [s.handle for s in find_sources(folder, KEY)]
    shutil.move(folder, tmp_path / "elsewhere")
    assert [s.handle for s in find_sources(tmp_path / "elsewhere", KEY)] == before


def test_the_repr_of_a_source_shows_the_handle_only(folder) -> None:
    for source in find_sources(folder, KEY):
        assert repr(source) == f"Source(handle={source.handle!r})"


def test_a_manifest_and_a_single_image_are_inputs_too(tmp_path) -> None:
    manifest = generate_cohort(tmp_path / "cohort", 2, 2, size=64)
    sources = find_sources(manifest, KEY)
    assert {s.name: s.patient_id for s in sources} == {
        row["image"]: row["patient_id"] for row in csv.DictReader(manifest.open(newline=""))
    }
    assert all(s.study_id.startswith(s.patient_id) for s in sources)
    (one,) = find_sources(sources[0].path, KEY)
    assert (one.name, one.patient_id) == (sources[0].path.name, "")


def test_dicom_is_found_whatever_its_name(tmp_path) -> None:
    generate_cohort(tmp_path / "cohort", 1, 1, size=64, formats=["dicom"])
    (file,) = (tmp_path / "cohort" / "images").glob("*.dcm")
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("a.dcm", "b.DICOM", "IM00001", "1.2.840.10008.77", "c.ima"):
        shutil.copyfile(file, tree / name)
    (tree / "notes.txt").write_text("no image")
    (tree / ".hidden.png").write_bytes(b"")
    names = sorted(s.name for s in find_sources(tree, KEY))
    assert names == ["1.2.840.10008.77", "IM00001", "a.dcm", "b.DICOM", "c.ima"]


def test_inputs_that_are_not_there(tmp_path) -> None:
    with pytest.raises(UsageError) as caught:
        find_sources(tmp_path / "none", KEY)
    assert caught.value.code == "GM-U070"
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "readme.txt").write_text("nothing")
    with pytest.raises(ManifestError) as caught_manifest:
        find_sources(tmp_path / "empty", KEY)
    assert caught_manifest.value.code == "GM-M002"


def test_units_are_runs_of_handles(folder, tmp_path) -> None:
    run = run_of(folder, tmp_path / "out")
    assert [len(unit) for unit in run.units] == [2, 2, 1]
    assert [s for unit in run.units for s in unit] == run.sources
    assert run.pending() == [0, 1, 2]


def test_a_second_run_finds_what_is_done(folder, tmp_path) -> None:
    out = tmp_path / "out"
    assert do(run_of(folder, out), [0, 1]) == [0, 1]
    assert run_of(folder, out).pending() == [2]
    do(run_of(folder, out))
    again = run_of(folder, out)
    assert again.pending() == []
    assert [row["handle"] for row in again.rows()] == [s.handle for s in again.sources]


def test_only_the_unit_of_a_missing_output_is_done_again(folder, tmp_path) -> None:
    out = tmp_path / "out"
    run = run_of(folder, out)
    do(run)
    (out / "images" / f"{run.units[1][1].handle}.png").unlink()
    assert run_of(folder, out).pending() == [1]


def test_a_damaged_record_counts_as_none(folder, tmp_path) -> None:
    run = run_of(folder, tmp_path / "out")
    do(run)
    run.record_path(run.units[0]).write_text('[{"handle":')
    assert run_of(folder, tmp_path / "out").pending() == [0]


@pytest.mark.parametrize(
    "change",
    [{"settings": {"margin_cos": -0.7}}, {"seed": 1}, {"settings": {**SETTINGS, "weights": {"aegan": "0"}}}],
    ids=["settings", "seed", "weights"],
)
def test_changed_settings_do_all_again(folder, tmp_path, change) -> None:
    out = tmp_path / "out"
    do(run_of(folder, out))
    assert run_of(folder, out, **change).pending() == [0, 1, 2]
    assert run_of(folder, out).pending() == [], "planning alone forgets nothing"


def test_records_whose_files_are_written_over_are_forgotten(folder, tmp_path) -> None:
    out = tmp_path / "out"
    do(run_of(folder, out))
    other = run_of(folder, out, settings={"margin_cos": -0.7})
    other.forget_others()
    do(other)
    # The images are those of the other margin now.
    assert run_of(folder, out).pending() == [0, 1, 2]
    other.forget_others()
    assert other.pending() == []


def test_a_changed_image_is_done_again(folder, tmp_path) -> None:
    run = run_of(folder, tmp_path / "out")
    do(run)
    file = run.units[2][0].path
    facts = file.stat()
    file.write_bytes(file.read_bytes() + b"\0")
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert run_of(folder, tmp_path / "out").pending() == [2]
    do(run_of(folder, tmp_path / "out"))
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))
    assert run_of(folder, tmp_path / "out").pending() == [2]


def test_the_key_is_made_for_the_owner_only_and_said(folder, tmp_path, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        first = run_of(folder, tmp_path / "out")
    key = tmp_path / "out.key"
    assert first.key_file == key
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert [r.levelname for r in caplog.records] == ["WARNING"] and "key" in caplog.text
    caplog.clear()
    second = run_of(folder, tmp_path / "out")
    assert not caplog.records
    assert [s.handle for s in second.sources] == [s.handle for s in first.sources]
    assert first.key.hex() in key.read_text() and first.key.hex() not in caplog.text


def test_a_key_open_to_others_is_refused(folder, tmp_path) -> None:
    run_of(folder, tmp_path / "out")
    (tmp_path / "out.key").chmod(0o644)
    with pytest.raises(UsageError) as caught:
        run_of(folder, tmp_path / "out")
    assert caught.value.code == "GM-U083"


def test_the_links_stand_outside_for_the_owner_only(folder, tmp_path) -> None:
    out = tmp_path / "out"
    run = run_of(folder, out)
    do(run)
    links = tmp_path / "out.links.csv"
    assert stat.S_IMODE(links.stat().st_mode) == 0o600
    with links.open(newline="") as stream:
        found = {row["handle"]: row["image"] for row in csv.DictReader(stream)}
    assert found == {s.handle: s.name for s in run.sources}
    assert not [p for p in out.rglob("*") if "links" in p.name or "key" in p.name]


@pytest.mark.parametrize("below", [".", "out", "a/b/out"])
def test_an_output_inside_the_input_is_refused(folder, below) -> None:
    with pytest.raises(UsageError) as caught:
        run_of(folder, folder / below)
    assert caught.value.code == "GM-U073"
    assert not list(folder.rglob("*.key")), "refused before anything is written"


def test_a_key_inside_the_output_is_refused(folder, tmp_path) -> None:
    with pytest.raises(UsageError) as caught:
        run_of(folder, tmp_path / "out", key_file=tmp_path / "out" / "project.key")
    assert caught.value.code == "GM-U074"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "code"),
    [(("", "out", 2), "GM-U071"), (("in", "", 2), "GM-U071"), (("in", "out", 0), "GM-U072")],
)
def test_what_is_needed(tmp_path, monkeypatch, given, code) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        AnonymizationRun(given[0], given[1], SETTINGS, unit_size=given[2])
    assert caught.value.code == code
    assert list(tmp_path.iterdir()) == []


def test_seeds_follow_the_image_and_the_run(folder, tmp_path) -> None:
    one, two = run_of(folder, tmp_path / "out"), run_of(folder, tmp_path / "out", unit_size=5)
    seeds = {s.handle: one.image_seed(s) for s in one.sources}
    assert len(set(seeds.values())) == 5
    assert {s.handle: two.image_seed(s) for s in two.sources} == seeds
    reseeded = run_of(folder, tmp_path / "out", seed=1)
    assert all(reseeded.image_seed(s) != seeds[s.handle] for s in reseeded.sources)


def test_the_table_is_written_from_the_records_in_order(folder, tmp_path) -> None:
    run = run_of(folder, tmp_path / "out")
    do(run, [2, 0])
    table = run.write_table(["handle", "status", "absent"])
    with table.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["handle"] for row in rows] == [s.handle for s in run.units[0] + run.units[2]]
    assert set(rows[0]) == {"handle", "status", "absent"}


def test_no_name_of_a_source_in_the_output(folder, tmp_path) -> None:
    run = run_of(folder, tmp_path / "out")
    do(run)
    run.write_table(["handle", "file"])
    for path in (tmp_path / "out").rglob("*"):
        assert "Smith" not in path.name
        assert path.is_dir() or b"Smith" not in path.read_bytes()


def test_images_of_an_earlier_input_are_not_orphaned(folder, tmp_path, make_image) -> None:
    out = tmp_path / "out"
    do(run_of(folder, out))
    links = links_path(out).read_text()
    other = tmp_path / "other"
    other.mkdir()
    make_image(other / "another.png")
    with pytest.raises(UsageError, match="GM-U075.*5 anonymized images"):
        run_of(other, out)
    assert links_path(out).read_text() == links
    make_image(folder / "p9" / "more.png")
    assert len(run_of(folder, out).sources) == 6, "an input that has grown goes on"
