"""A run gives every file an end, the same one whatever interrupts it and however many work on it."""

from __future__ import annotations

import io
import os
import time
from dataclasses import replace

import numpy as np
import pytest
from pydicom import dcmread
from toy_release import (
    KEY,
    LIMITS,
    Redraw,
    Watch,
    contents,
    dicom_file,
    no_text,
    open_workshop,
    release,
    toy_parts,
    write_input,
)

from gmia_monai.dicom.header_check import check_header
from gmia_monai.dicom.text import Word
from gmia_monai.errors import IntegrityError, ResourceError, UsageError
from gmia_monai.release import runner as module
from gmia_monai.release.gate import Gate
from gmia_monai.release.ledger import read_ledger
from gmia_monai.release.parts import Parts
from gmia_monai.release.places import Places
from gmia_monai.release.policy import Checks, Intake, Policy, System, Text
from gmia_monai.release.runner import Runner
from gmia_monai.release.verify import verify_folder
from gmia_monai.release.workers import Alone


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_input(tmp_path_factory.mktemp("release") / "in")


@pytest.fixture(scope="module")
def whole(source, tmp_path_factory):
    """The output of a run that nothing disturbed."""
    output = tmp_path_factory.mktemp("whole") / "out"
    assert release(source, output).ends == {"released": 12, "held": 0, "rejected": 0}
    return output


def test_every_image_comes_out_new_and_in_its_old_shape(source, whole):
    files = sorted((whole / "images").rglob("*.dcm"))
    assert len(files) == 12 and not list(whole.with_name("out.work").glob("staged/*"))
    names = {"Doe", "P0", "P1", "patient"}
    for file in files:
        raw = file.read_bytes()
        assert check_header(raw) == [] and not any(name.encode() in raw for name in names)
        dataset = dcmread(file)
        assert dataset.pixel_array.shape == (72, 64) and dataset.BitsStored == 12
        assert dataset.PhotometricInterpretation == "MONOCHROME1" and "32 x 32" in dataset.DerivationDescription
        assert (dataset.pixel_array[:4] == 4095).all(), "black outside the square, whatever the source had there"
    assert len({dcmread(file).PatientID for file in files}) == 4
    entries = read_ledger(whole / "ledger.jsonl", KEY)
    assert [e.kind for e in entries] == ["run", *["instance"] * 12, "complete"]
    assert {e.body["file"] for e in entries[1:-1]} == {str(f.relative_to(whole)) for f in files}


def test_a_second_run_changes_nothing(source, whole):
    before = contents(whole)
    assert release(source, whole).ends["released"] == 12
    assert contents(whole) == before


def test_several_workers_give_the_same_bytes(source, whole, tmp_path):
    release(source, tmp_path / "out", workers=2)
    assert contents(tmp_path / "out") == contents(whole)


@pytest.mark.parametrize("step", ["append", "move"])
@pytest.mark.parametrize("at", [0, 1, 5, 12])
@pytest.mark.parametrize("before", [True, False])
def test_an_interruption_anywhere_leaves_the_same_bytes(source, whole, tmp_path, monkeypatch, step, at, before):
    class Stop(BaseException):
        pass

    owner, name = (module.Ledger, "append") if step == "append" else (module, "move")
    real, calls = getattr(owner, name), []

    def stopping(*arguments):
        calls.append(0)
        if len(calls) == at + 1 and before:
            raise Stop
        answer = real(*arguments)
        if len(calls) == at + 1:
            raise Stop
        return answer

    output = tmp_path / "out"
    monkeypatch.setattr(owner, name, stopping)
    try:
        release(source, output)
    except Stop:
        visible = list((output / "images").rglob("*.dcm"))
        assert all(check_header(file.read_bytes()) == [] for file in visible)
    monkeypatch.undo()
    release(source, output)
    assert contents(output) == contents(whole)


def test_a_full_disk_ends_it_and_the_next_run_goes_on(source, whole, tmp_path, monkeypatch):
    from gmia_monai.release import workshop

    put, calls = workshop.put, []

    def full(path, raw):
        calls.append(0)
        if len(calls) > 4:
            raise OSError(28, "No space left on device")
        put(path, raw)

    monkeypatch.setattr(workshop, "put", full)
    with pytest.raises(ResourceError, match="GM-R305"):
        release(source, tmp_path / "out")
    monkeypatch.undo()
    release(source, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(whole)


@pytest.mark.parametrize(
    ("instead", "code"),
    [
        (lambda image: image, "GM-H101"),
        (lambda image: np.clip(image + np.float32(0.001), 0, 1), "GM-H101"),
        (lambda image: np.roll(image, 1), "GM-H101"),
        (lambda image: 1.0 - image, "GM-H102"),
        (lambda image: np.zeros_like(image), "GM-H204"),
        (lambda image: np.float32(0.5) + np.float32(0.05) * image, "GM-H104"),
        (lambda image: np.full_like(image, np.nan), "GM-H204"),
        (lambda image: image[:3], "GM-H205"),
        (lambda image: 1 / 0, "GM-H205"),
    ],
)
def test_a_system_that_gives_identity_away_or_fails_releases_nothing(source, tmp_path, instead, code):
    outcome = release(source, tmp_path / "out", parts=toy_parts(instead=instead))
    assert outcome.ends == {"released": 0, "held": 12, "rejected": 0} and outcome.codes[code] == 12
    assert not list((tmp_path / "out" / "images").rglob("*.*"))


@pytest.mark.parametrize(("which", "code"), [("redraw", "GM-H207"), ("checks", "GM-H203")])
def test_what_takes_too_long_is_held(source, tmp_path, monkeypatch, which, code):
    policy = Policy(system=System(unit_seconds=1)) if which == "redraw" else Policy(checks=Checks(seconds=1))
    real, slow = Watch.findings, []

    def findings(self, images):
        if not slow:
            slow.append(1)
            time.sleep(30)
        return real(self, images)

    if which == "redraw":
        parts = toy_parts(instead=lambda image: time.sleep(30))
    else:
        parts = toy_parts()
        monkeypatch.setattr(Watch, "findings", findings)
    outcome = release(source, tmp_path / "out", policy=policy, parts=parts)
    assert outcome.codes[code] == (12 if which == "redraw" else 1)
    assert outcome.ends["released"] == (0 if which == "redraw" else 11), "the decoder goes on"


@pytest.mark.parametrize("method", ["embed", "compare", "findings", "nearest_copy"])
@pytest.mark.parametrize("how", ["raise", "nan", "none"])
def test_a_check_that_fails_releases_nothing(source, tmp_path, monkeypatch, method, how):
    def broken(self, *arguments):
        if how == "raise":
            raise RuntimeError("Doe")
        return np.full_like(np.asarray(real(self, *arguments), dtype=float), np.nan) if how == "nan" else None

    real = getattr(Watch, method)
    monkeypatch.setattr(Watch, method, broken)
    outcome = release(source, tmp_path / "out")
    assert outcome.ends["released"] == 0 and outcome.ends["held"] == 12


def test_a_detector_of_text_that_is_missing_or_finds_something_releases_nothing(source, tmp_path):
    def missing(image):
        raise FileNotFoundError("tesseract")

    def slow(image):
        raise TimeoutError

    everywhere = Word("DOE", 90.0, 0, (5, 5, 9, 20))
    for finder, code, name in (
        (missing, "GM-H204", "a"),
        (slow, "GM-H203", "b"),
        (lambda image: [everywhere], "GM-H007", "c"),
    ):
        outcome = release(source, tmp_path / name, parts=replace(toy_parts(), find_text=finder))
        assert outcome.ends == {"released": 0, "held": 12, "rejected": 0} and outcome.codes == {code: 12}


def test_lines_of_text_are_blanked_where_the_policy_says_so(tmp_path, monkeypatch):
    """The toy detector sees white pixels, which only the text has."""
    source = write_input(tmp_path / "in", patients=2, images=1)
    raw = dicom_file("P9", 0)
    dataset = dcmread(io.BytesIO(raw))
    levels = np.clip(dataset.pixel_array, 400, 4095)
    levels[30:36, 20:44] = 0  # MONOCHROME1: white
    dataset.set_pixel_data(levels, "MONOCHROME1", 12, generate_instance_uid=False)
    dataset.save_as(source / "text.dcm")

    def finder(image):
        rows, cols = np.nonzero(image > 0.999)
        inside = image.shape[0] == 72 and len(rows) > 100
        box = (int(rows.min()), int(cols.min()), int(rows.max()) + 1, int(cols.max()) + 1) if inside else ()
        return [Word("DOE", 95.0, 0, box)] if inside else []

    parts = replace(toy_parts(), find_text=finder)
    assert release(source, tmp_path / "hold", parts=parts).ends == {"released": 2, "held": 1, "rejected": 0}
    seen = []
    monkeypatch.setattr(
        Redraw, "__call__", lambda self, images, *rest: seen.extend(images) or toy_parts().redraw.instead
    )
    blank = Policy(text=Text(before="blank"))
    release(source, tmp_path / "seen", policy=blank, parts=parts)
    assert len(seen) == 3 and max(image.max() for image in seen) < 0.97, "no letter reaches the networks"
    monkeypatch.undo()
    assert release(source, tmp_path / "blank", policy=blank, parts=parts).ends["released"] == 3
    dataset.BurnedInAnnotation = "YES"
    dataset.save_as(source / "text.dcm")
    assert release(source, tmp_path / "said", policy=blank, parts=parts).ends["released"] == 3
    never = replace(toy_parts(), find_text=no_text)
    outcome = release(source, tmp_path / "unfound", policy=blank, parts=never)
    assert outcome.ends["held"] == 1 and outcome.codes == {"GM-H007": 1}


@pytest.mark.parametrize("at", [3, 15])  # while files are read, and while new images are judged
def test_what_the_machine_lacks_ends_the_run_and_not_the_images(source, whole, tmp_path, at):
    calls = []

    def removed(image):
        calls.append(0)
        if len(calls) > at:
            raise ResourceError("GM-R089", "tesseract is not installed")
        return []

    with pytest.raises(ResourceError, match="GM-R089"):
        release(source, tmp_path / "out", parts=replace(toy_parts(), find_text=removed))
    assert not list((tmp_path / "out" / "images").rglob("*.*"))
    release(source, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(whole)


def test_every_file_has_an_end(tmp_path):
    source = write_input(tmp_path / "in", patients=2, images=2)
    (source / "notes.txt").write_text("Doe")
    (source / "empty.dcm").write_bytes(b"")
    (source / "lateral.dcm").write_bytes(dicom_file("P9", 1, ViewPosition="LL"))
    (source / "child.dcm").write_bytes(dicom_file("P9", 2, PatientAge="010Y"))
    (source / "unknown.dcm").write_bytes(dicom_file("P9", 3, ViewPosition=""))
    (source / "copy.dcm").write_bytes((source / "patient 0" / "image0.dcm").read_bytes())
    (source / "other.dcm").write_bytes(dicom_file("P1", 0, rows=80))
    (source / "written.dcm").write_bytes(dicom_file("P9", 4, BurnedInAnnotation="YES"))
    (source / "link.dcm").symlink_to(source / "lateral.dcm")
    os.mkfifo(source / "pipe.dcm")
    outcome = release(source, tmp_path / "out")
    assert outcome.ends == {"released": 3, "held": 4, "rejected": 7}
    assert outcome.codes == {
        "GM-D002": 2, "GM-D025": 2, "GM-D033": 1, "GM-D034": 1, "GM-D035": 1, "GM-H001": 1, "GM-H007": 1, "GM-H008": 2,
    }  # fmt: skip
    assert sum(outcome.ends.values()) == 14, "one a file"
    ledger = (tmp_path / "out" / "ledger.jsonl").read_text()
    assert not any(word in ledger for word in ("Doe", "P9", "lateral", "patient", "notes"))


def test_new_files_are_added_to_a_release(tmp_path):
    source = write_input(tmp_path / "in", patients=2, images=2)
    release(source, tmp_path / "out")
    before = contents(tmp_path / "out" / "images")
    (source / "more.dcm").write_bytes(dicom_file("P7", 0))
    assert release(source, tmp_path / "out").ends["released"] == 5
    after = contents(tmp_path / "out" / "images")
    assert before.items() <= after.items() and len(after) == 5
    read_ledger(tmp_path / "out" / "ledger.jsonl", KEY)


def test_without_room_for_what_is_to_be_made_nothing_is_begun(tmp_path, monkeypatch):
    source = write_input(tmp_path / "in", patients=2, images=2)
    asked = []
    real = Places.check_room
    monkeypatch.setattr(Places, "check_room", lambda self, needed: asked.append(needed) or real(self, 1 << 60))
    with pytest.raises(ResourceError, match="GM-R303"):
        release(source, tmp_path / "out")
    assert not list((tmp_path / "out" / "images").rglob("*.dcm")) and asked == [4 * (72 * 64 * 2 + 4096)]
    monkeypatch.undo()
    assert release(source, tmp_path / "out").ends["released"] == 4


def test_a_file_that_was_renamed_or_copied_later_gets_no_second_end(tmp_path):
    source = write_input(tmp_path / "in", patients=3, images=2)
    release(source, tmp_path / "out")
    before = contents(tmp_path / "out" / "images")
    (source / "patient 0").rename(source / "renamed")
    (source / "copy.dcm").write_bytes((source / "patient 1" / "image0.dcm").read_bytes())
    (source / "other.dcm").write_bytes(dicom_file("P2", 0, PatientAge="051Y"))  # the identifier of another one
    for _ in range(2):
        outcome = release(source, tmp_path / "out")
        assert contents(tmp_path / "out" / "images") == before and verify_folder(tmp_path / "out", KEY).good
    assert outcome.ends["released"] == 6 and outcome.codes["GM-D035"] >= 2 and outcome.codes["GM-H008"] >= 1


def test_held_images_are_kept_whatever_interrupts(tmp_path, monkeypatch):
    source, parts = write_input(tmp_path / "in", patients=2, images=2), toy_parts(instead=lambda image: image)
    release(source, tmp_path / "whole", parts=parts)
    real, calls = module.move, []

    def interrupted(*given):
        calls.append(0)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(module, "move", interrupted)
    with pytest.raises(KeyboardInterrupt):
        release(source, tmp_path / "out", parts=parts)
    monkeypatch.undo()
    release(source, tmp_path / "out", parts=parts)
    held = [contents(tmp_path / name / "held") for name in ("out.work", "whole.work")]
    assert held[0] == held[1] and len(held[0]) == 4


def test_an_output_of_the_research_plane_is_refused(tmp_path):
    source = write_input(tmp_path / "in", patients=1, images=1)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "NOT_RELEASED.txt").write_text("research")
    with pytest.raises(UsageError, match="GM-U431"):
        release(source, tmp_path / "out")
    assert len(list((tmp_path / "out").iterdir())) == 1


def test_a_released_file_that_was_changed_or_lost_is_noticed(tmp_path):
    source = write_input(tmp_path / "in", patients=1, images=2)
    release(source, tmp_path / "out")
    before = contents(tmp_path / "out")
    file = next((tmp_path / "out" / "images").rglob("*.dcm"))
    raw = file.read_bytes()
    file.write_bytes(raw[:-1] + b"x")
    with pytest.raises(IntegrityError, match="GM-W304"):
        release(source, tmp_path / "out")
    file.unlink()  # lost: made again, and it has to be the same
    release(source, tmp_path / "out")
    assert contents(tmp_path / "out") == before


def test_a_lost_file_that_cannot_be_made_again_is_noticed(tmp_path):
    source = write_input(tmp_path / "in", patients=1, images=2)
    release(source, tmp_path / "out")
    (source / "more.dcm").write_bytes(dicom_file("P7", 0))
    release(source, tmp_path / "out")
    for file in (tmp_path / "out" / "images").rglob("*.dcm"):
        file.unlink()  # the first two are of an earlier plan
    with pytest.raises(IntegrityError, match="GM-W305"):
        release(source, tmp_path / "out")


def test_images_without_a_header_go_by_policy(tmp_path):
    from PIL import Image
    from toy_release import face

    (tmp_path / "in").mkdir()
    for i, suffix in enumerate((".png", ".jpg")):
        Image.fromarray((face(f"p{i}", 64) * 255).astype(np.uint8)).save(tmp_path / "in" / f"a{suffix}")
    assert release(tmp_path / "in", tmp_path / "out").codes == {"GM-D030": 2}
    policy = Policy(intake=Intake(images_without_header=True))
    assert release(tmp_path / "in", tmp_path / "out2", policy=policy).ends["released"] == 2
    assert len(list((tmp_path / "out2" / "images").rglob("*.png"))) == 2


def test_two_runs_at_once_are_refused(source, tmp_path):
    workshop = open_workshop(source, tmp_path / "out")
    workshop.places.make()
    with workshop.places.locked(), pytest.raises(UsageError, match="GM-U413"):
        Runner(open_workshop(source, tmp_path / "out"), Alone(workshop)).run()


def test_a_verifier_that_has_a_part_in_making_is_refused():
    class Same(Watch):
        weights = {"verifier": "1" * 64}

    with pytest.raises(UsageError, match="GM-U407"):
        Parts(Redraw(), Same(), no_text, Gate(LIMITS))
