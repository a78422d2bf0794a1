"""The second opinion: silent on a release, loud on every change of it, and of use on any folder."""

from __future__ import annotations

import pytest
from pydicom import dcmread
from toy_release import KEY, dicom_file, release, write_input

from gmia_monai.errors import UsageError
from gmia_monai.release.verify import verify_folder


@pytest.fixture
def output(tmp_path):
    release(write_input(tmp_path / "in", patients=2, images=2), tmp_path / "out")
    return tmp_path / "out"


def _files(output):
    return sorted((output / "images").rglob("*.dcm"))


@pytest.mark.parametrize("key", [KEY, None])
def test_it_is_silent_on_a_release(output, key):
    told = []
    found = verify_folder(output, key, lambda done, total: told.append((done, total)))
    assert found.good and found.n_files == found.n_released == 4 and found.complete
    assert found.keyed == (key is not None) and told[-1] == (4, 4)


def test_every_kind_of_change_is_found(output):
    one, two, three, four = _files(output)
    one.write_bytes(one.read_bytes() + b"\0")
    two.unlink()
    named = dcmread(three)
    named.PatientName = "Doe^Jane"
    named.save_as(three)
    four.rename(four.with_name("0" * 32 + ".dcm"))
    (output / "images" / "note.txt").write_text("Doe")
    (output / "images" / "link.dcm").symlink_to(one)
    problems = "\n".join(verify_folder(output, KEY).problems)
    assert problems.count("changed since") == 2 and problems.count("not there") == 2
    assert problems.count("never released") == 2 and "bytes beside" in problems and "PatientName" in problems
    assert "no plain file" in problems and "Doe" not in problems


def test_a_ledger_that_was_changed_or_is_not_finished_is_found(output):
    ledger = output / "ledger.jsonl"
    raw = ledger.read_bytes()
    ledger.write_bytes(raw.replace(b'"state":"released"', b'"state":"releasee"', 1))
    assert not verify_folder(output, None).good
    ledger.write_bytes(b"".join(raw.splitlines(keepends=True)[:-1]))
    assert not verify_folder(output, None).good
    ledger.unlink()
    assert not verify_folder(output, KEY).good
    ledger.write_bytes(raw)
    assert verify_folder(output, KEY).good and not verify_folder(output, bytes(32)).good


def test_any_folder_can_be_looked_at(tmp_path):
    source = write_input(tmp_path / "in", patients=1, images=1)
    (source / "plain.dcm").write_bytes(b"nothing")
    found = verify_folder(source)
    assert found.n_released is None and found.complete is None and len(found.problems) == 2
    assert "PatientName" in found.problems[0] and "StudyInstanceUID" in found.problems[0]
    assert "patient" not in str(found) and "patient 0/image0.dcm" in str(verify_folder(source, show_names=True))
    assert "P0" not in str(found) and dicom_file("P0", 0)[128:132] == b"DICM"
    with pytest.raises(UsageError, match="GM-U418"):
        verify_folder(tmp_path / "none")
