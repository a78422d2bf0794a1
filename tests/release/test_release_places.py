"""Folders of a release: kept apart, closed to others, one run at a time, and named by keyed hashes alone."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from gmia_monai.errors import ResourceError, UsageError
from gmia_monai.release.places import input_files, places_of


@pytest.fixture
def places(tmp_path):
    (tmp_path / "in").mkdir()
    found = places_of(tmp_path / "in", tmp_path / "out")
    found.make()
    return found


def test_the_work_folder_is_beside_the_output_and_its_owner_s_alone(places):
    assert places.work == places.output.with_name("out.work")
    assert all(f.stat().st_mode & 0o077 == 0 for f in (places.work, places.work / "staged", places.work / "held"))
    places.make()  # again
    places.work.chmod(0o755)
    with pytest.raises(UsageError, match="GM-U415"):
        places.make()


@pytest.mark.parametrize("output", ["in", "in/out", ".", "in/../in", "in/a/../../in/b"])
def test_output_in_input_and_the_reverse_are_refused(tmp_path, output):
    (tmp_path / "in" / "a").mkdir(parents=True)
    with pytest.raises(UsageError, match="GM-U411"):
        places_of(tmp_path / "in", tmp_path / output)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a", "in"]


def test_a_work_folder_that_is_the_input_is_refused(tmp_path):
    (tmp_path / "out.work").mkdir()
    with pytest.raises(UsageError, match="GM-U411"):
        places_of(tmp_path / "out.work", tmp_path / "out")


def test_links_in_the_place_of_folders_are_refused(tmp_path):
    for name in ("in", "elsewhere"):
        (tmp_path / name).mkdir()
    for link in ("out", "other.work"):
        (tmp_path / link).symlink_to(tmp_path / "elsewhere")
        with pytest.raises(UsageError, match="GM-U412"):
            places_of(tmp_path / "in", tmp_path / link.removesuffix(".work"))
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="GM-U412"):
        places_of(tmp_path / "in", tmp_path / "file")
    with pytest.raises(UsageError, match="GM-U410"):
        places_of(tmp_path / "file", tmp_path / "new")
    (tmp_path / "way").symlink_to(tmp_path / "in")
    with pytest.raises(UsageError, match="GM-U411"):
        places_of(tmp_path / "in", tmp_path / "way" / "out")


@pytest.mark.parametrize("name", ["../../etc", "a/b", "", "ABCDEF0123", "0123456", "g" * 16, "0" * 65, "01234567\n"])
def test_only_keyed_hashes_are_names(places, name):
    for place in (places.released, places.staged, places.held):
        with pytest.raises(UsageError, match="GM-U416"):
            place(name, ".dcm")
    assert places.released("ab" * 16, ".dcm") == places.output / "images" / "ab" / ("ab" * 16 + ".dcm")


def test_a_second_process_is_refused_until_the_first_has_ended(places):
    code = (
        "import sys, time; from gmia_monai.release.places import places_of\n"
        f"with places_of({str(places.source)!r}, {str(places.output)!r}).locked():\n"
        "    print('locked', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert other.stdout.readline() == b"locked\n"
    with pytest.raises(UsageError, match="GM-U413"), places.locked():
        pass
    other.kill()
    other.wait()
    other.stdout.close()
    with places.locked():
        pass


def test_room_is_asked_for_before(places):
    places.check_room(1)
    with pytest.raises(ResourceError, match="GM-R303"):
        places.check_room(1 << 60)


def test_files_are_listed_in_one_order_and_links_are_not_followed(tmp_path):
    for name in ("b/x", "a/y", "a/x", "c"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "c")
    os.mkfifo(tmp_path / "pipe")
    strange = os.fsdecode(b"a\xff\n../b")
    (tmp_path / strange.replace("/", "_")).write_text("")
    assert list(input_files(tmp_path)) == sorted(
        ["a/x", "a/y", "b/x", "c", "link", "loop", "pipe", strange.replace("/", "_")], key=os.fsencode
    )


def test_a_folder_that_cannot_be_listed_ends_it(tmp_path, monkeypatch):
    from gmia_monai.release import places as module

    def walk(root, onerror, **more):
        onerror(PermissionError(13, "Permission denied"))
        yield root, [], []

    monkeypatch.setattr(module.os, "walk", walk)
    with pytest.raises(ResourceError, match="GM-R304"):
        list(input_files(tmp_path))
