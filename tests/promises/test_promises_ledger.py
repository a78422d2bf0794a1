"""Every edit of a ledger is found."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from promise import kept, size
from toy_release import KEY

from gmia_monai.errors import IntegrityError
from gmia_monai.release.ledger import Ledger, head_path, read_ledger

N_LINES = 500


@pytest.fixture(scope="module")
def ledger(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("ledger") / "ledger.jsonl"
    with Ledger(path, KEY) as lines:
        for i in range(N_LINES):
            state = ("released", "held", "rejected")[i % 3]
            lines.append("instance", {"handle": f"{i:016x}", "state": state, "scores": {"identity": [i / 7, i / 3]}})
    return path


def _edited(lines: list[bytes], rng: random.Random) -> tuple[str, list[bytes]]:
    how = rng.choice(["bit", "delete", "swap", "insert", "repeat", "cut", "word", "end"])
    i, lines = rng.randrange(len(lines)), list(lines)
    if how == "bit":
        line = bytearray(lines[i])
        line[rng.randrange(len(line))] ^= 1 << rng.randrange(8)
        lines[i] = bytes(line)
    elif how == "delete":
        del lines[i]
    elif how == "swap":
        j = rng.choice([k for k in range(len(lines)) if k != i])
        lines[i], lines[j] = lines[j], lines[i]
    elif how == "insert":
        lines.insert(i, lines[rng.randrange(len(lines))].replace(b"held", b"released"))
    elif how == "repeat":
        lines.insert(i, lines[i])
    elif how == "cut":
        lines = lines[: rng.randrange(len(lines))]
    elif how == "word":
        lines[i] = (
            lines[i].replace(b"held", b"free").replace(b"rejected", b"released").replace(b"released", b"rejected")
        )
    else:
        lines[-1] = lines[-1][: rng.randrange(1, len(lines[-1]))]
    return how, lines


def test_every_edit_is_found(ledger, tmp_path):
    raw, rng, missed, tried = ledger.read_bytes(), random.Random(0), [], 0
    assert len(read_ledger(ledger, KEY)) == N_LINES
    path = tmp_path / "ledger.jsonl"
    head_path(path).write_bytes(head_path(ledger).read_bytes())
    while tried < size(120, 1000):
        how, lines = _edited(raw.splitlines(keepends=True), rng)
        if b"".join(lines) == raw:
            continue
        tried += 1
        path.write_bytes(b"".join(lines))
        try:
            read_ledger(path, KEY)
            missed.append(how)
        except IntegrityError:
            pass
    kept("every edit of a ledger is found", tried, missed, f"{N_LINES} lines, eight kinds of edits")
