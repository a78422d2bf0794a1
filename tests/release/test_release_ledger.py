"""The ledger: every change is seen, a crash costs at most the line that was being written, and no text gets in."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from gmia_monai.errors import IntegrityError, UsageError
from gmia_monai.release.ledger import Ledger, head_path, read_ledger

KEY, OTHER_KEY = bytes(range(32)), bytes(32)


def _written(folder: Path, n: int = 8, key: bytes = KEY) -> Path:
    path = folder / "ledger.jsonl"
    with Ledger(path, key) as ledger:
        for i in range(n):
            ledger.append("instance", {"handle": f"{i:016x}", "state": "released", "scores": {"identity": 0.1 * i}})
    return path


def test_what_was_appended_is_read_with_and_without_the_key(tmp_path):
    path = _written(tmp_path)
    for key in (KEY, None):
        entries = read_ledger(path, key)
        assert [e.number for e in entries] == list(range(8)) and entries[3].body["handle"] == f"{3:016x}"
    with Ledger(path, KEY) as ledger:
        assert len(ledger) == 8
        ledger.append("complete", {"released": 8})
    assert read_ledger(path, KEY)[-1].kind == "complete"
    with pytest.raises(IntegrityError, match="GM-W301"):
        read_ledger(path, OTHER_KEY)


def test_the_same_entries_give_the_same_bytes_however_often_it_was_opened(tmp_path):
    one = _written(tmp_path / "one").read_bytes()
    path = tmp_path / "two" / "ledger.jsonl"
    for i in range(8):
        with Ledger(path, KEY) as ledger:
            ledger.append("instance", {"handle": f"{i:016x}", "state": "released", "scores": {"identity": 0.1 * i}})
    assert path.read_bytes() == one


@pytest.mark.parametrize("key", [KEY, None])
def test_single_edits_are_seen(tmp_path, key):
    path = _written(tmp_path, 12)
    raw, rng = path.read_bytes(), random.Random(0)
    for _ in range(150):
        at = rng.randrange(len(raw))
        new = bytes([rng.choice([b for b in range(256) if b != raw[at]])])
        edits = [raw[:at] + new + raw[at + 1 :], raw[:at] + raw[at + 1 :], raw[:at] + new + raw[at:], raw[:at]]
        path.write_bytes(rng.choice(edits))
        with pytest.raises(IntegrityError, match="GM-W301"):
            read_ledger(path, key)
    path.write_bytes(raw)
    read_ledger(path, key)


def test_lines_that_are_moved_removed_or_repeated_are_seen(tmp_path):
    path = _written(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    for changed in (lines[:-1], lines[1:], lines[:3] + lines[4:], lines[::-1], lines + lines[-1:], []):
        path.write_bytes(b"".join(changed))
        for key in (KEY, None):
            with pytest.raises(IntegrityError, match="GM-W301"):
                read_ledger(path, key)
        with pytest.raises(IntegrityError, match="GM-W301"):
            Ledger(path, KEY)


def test_a_chain_that_is_made_anew_without_the_key_is_seen_with_it(tmp_path):
    path = _written(tmp_path, 5, OTHER_KEY)
    read_ledger(path, None)
    with pytest.raises(IntegrityError, match="without the project key"):
        read_ledger(path, KEY)


def test_the_head_is_guarded_too(tmp_path):
    path = _written(tmp_path)
    head = head_path(path)
    right = head.read_bytes()
    about = json.loads(right)
    for wrong in (b"", b"{}", right.replace(b'"n":8', b'"n":7'), json.dumps(about).encode(), right[:-2]):
        head.write_bytes(wrong)
        with pytest.raises(IntegrityError, match="GM-W301"):
            read_ledger(path, KEY)
    head.unlink()
    with pytest.raises(IntegrityError, match="GM-W301"):
        read_ledger(path, KEY)


@pytest.mark.parametrize("cut", [1, 40, -1])
def test_a_line_that_a_crash_cut_off_is_taken_away(tmp_path, cut):
    path = _written(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole + whole.splitlines()[-1][:cut])
    with pytest.raises(IntegrityError, match="cut off"):
        read_ledger(path, KEY)
    with Ledger(path, KEY) as ledger:
        assert len(ledger) == 8
    assert path.read_bytes() == whole


def test_a_crash_between_a_line_and_the_head_costs_nothing(tmp_path):
    path = _written(tmp_path)
    head = head_path(path).read_bytes()
    with Ledger(path, KEY) as ledger:
        ledger.append("complete", {})
    whole = path.read_bytes()
    head_path(path).write_bytes(head)
    with Ledger(path, KEY) as ledger:
        assert ledger.entries[-1].kind == "complete"
    assert path.read_bytes() == whole
    read_ledger(path, KEY)


@pytest.mark.parametrize(
    "body",
    [
        {"name": "Müller"},
        {"name": "a\nb"},
        {"name": "x" * 201},
        {"score": float("nan")},
        {"score": float("-inf")},
        {"path": Path("a")},
        {"list": [1, {"deep": "<b>"}]},
        {"Doe^John": 1},
    ],
)
def test_free_text_and_strange_values_are_refused_and_nothing_is_written(tmp_path, body):
    path = _written(tmp_path)
    before = path.read_bytes()
    with Ledger(path, KEY) as ledger, pytest.raises(UsageError, match="GM-U401"):
        ledger.append("instance", body)
    assert path.read_bytes() == before


def test_a_disk_that_is_full_leaves_no_half_line(tmp_path, monkeypatch):
    from gmia_monai.release import ledger as module

    path = _written(tmp_path)
    before = path.read_bytes()
    write = module.os.write
    with Ledger(path, KEY) as ledger:

        def half(descriptor, view):
            write(descriptor, bytes(view[:10]))
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(module.os, "write", half)
        with pytest.raises(OSError, match="No space"):
            ledger.append("instance", {"handle": "1"})
        assert path.read_bytes() == before
        monkeypatch.setattr(module.os, "write", write)
        ledger.append("instance", {"handle": "1"})
    assert len(read_ledger(path, KEY)) == 9


def test_a_link_in_its_place_is_not_followed(tmp_path):
    path = _written(tmp_path / "real")
    link = tmp_path / "ledger.jsonl"
    link.symlink_to(path)
    with pytest.raises((OSError, IntegrityError)):
        Ledger(link, KEY)
