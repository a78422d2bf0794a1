"""Killed at any time, or out of disk, a run goes on to the same bytes, and nothing half-written is ever visible."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import toy_release
from promise import kept, size
from toy_release import contents, write_input

TOY = Path(toy_release.__file__)
CALLS = 400  # more than a run of a few images makes


def _start(source: Path, output: Path, workers: int = 1, *fail: str) -> subprocess.Popen:
    command = [sys.executable, str(TOY), str(source), str(output), str(workers), *fail]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def _partial(output: Path) -> list[str]:
    """Visible images that are not, to the byte, what a line of the ledger released."""
    images = {str(p.relative_to(output)): p for p in (output / "images").rglob("*") if p.is_file()}
    if not images:
        return []
    lines = [json.loads(line) for line in (output / "ledger.jsonl").read_bytes().split(b"\n")[:-1]]
    said = {line["body"].get("file"): line["body"].get("sha256") for line in lines if line["kind"] == "instance"}
    return [name for name, path in images.items() if hashlib.sha256(path.read_bytes()).hexdigest() != said.get(name)]


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> tuple[Path, dict[str, bytes]]:
    root = tmp_path_factory.mktemp("small")
    source = write_input(root / "in", patients=2, images=2)
    assert _start(source, root / "out").wait() == 0
    return source, contents(root / "out")


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_at_random_times_it_ends_in_the_same_bytes(tmp_path, workers):
    source = write_input(tmp_path / "in", patients=size(6, 100), images=4)
    began = time.monotonic()
    assert _start(source, tmp_path / "whole", workers).wait() == 0
    lasts, whole = time.monotonic() - began, contents(tmp_path / "whole")
    rng, wrong, kills, round_ = random.Random(workers), [], 0, 0
    while kills < size(3, 150):
        output = tmp_path / f"out{round_}"
        round_ += 1
        while kills < size(3, 150):
            process = _start(source, output, workers)
            ends = time.monotonic() + rng.uniform(0.1, lasts)
            while process.poll() is None and time.monotonic() < ends:
                wrong += _partial(output)
                time.sleep(0.02)
            if process.poll() is not None:
                break
            process.kill()  # its workers end with it
            process.wait()
            kills += 1
            wrong += _partial(output)
        assert _start(source, output, workers).wait() == 0
        if contents(output) != whole:
            wrong.append(f"round {round_}")
    kept(f"killed at random times, {workers} workers: the same bytes, nothing partial", kills, wrong)


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_around_every_write_it_ends_in_the_same_bytes(small, tmp_path, when):
    source, whole = small
    wrong, tried = [], 0
    step = size(23, 1)
    for number in range(1, CALLS, step):
        output = tmp_path / str(number)
        if _start(source, output, 1, when, str(number)).wait() == 0:
            break
        tried += 1
        wrong += _partial(output)
        assert _start(source, output).wait() == 0
        if contents(output) != whole:
            wrong.append(number)
    assert tried >= 3 and number < CALLS
    kept(f"killed {when} a writing call: the same bytes, nothing partial", tried, wrong, "every call of a small run")


def test_out_of_disk_it_stops_and_goes_on_to_the_same_bytes(small, tmp_path):
    source, whole = small
    wrong, tried = [], 0
    for number in range(1, CALLS, size(29, 2)):
        output = tmp_path / str(number)
        code = _start(source, output, 1, "full", str(number)).wait()
        if code == 0:
            break
        tried += 1
        wrong += _partial(output) + ([] if code == 4 else [("exit code", code, number)])
        assert _start(source, output).wait() == 0
        if contents(output) != whole:
            wrong.append(number)
    assert tried >= size(3, 40)
    kept("out of disk: exit code 4, then the same bytes", tried, wrong)


def test_the_second_of_two_processes_refuses(tmp_path):
    source = write_input(tmp_path / "in", patients=size(4, 20), images=4)
    wrong = []
    for i in range(size(1, 50)):
        both = [_start(source, tmp_path / f"out{i}") for _ in range(2)]
        codes = sorted(process.wait() for process in both)
        if codes not in ([0, 2], [0, 0]):  # the second may have come when the first had ended
            wrong.append(codes)
    kept("two processes on one output: the second refuses", size(1, 50), wrong)
