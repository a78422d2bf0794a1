"""Whatever the input holds, every file has one end, and none of them harms the process that reads it."""

from __future__ import annotations

import json
import os
import resource
import struct
import time
from pathlib import Path
from typing import Any

import pytest
from bad_dicom import BOMBS, FAMILIES, in_syntax
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from promise import kept, size
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)
from toy_release import dicom_file, open_workshop, release

EXPECTED = json.loads((Path(__file__).parent / "expected_codes.json").read_text())
SYNTAXES = (
    b"1.2.840.10008.1.2\0", b"1.2.840.10008.1.2.1", b"1.2.840.10008.1.2.2", b"1.2.840.10008.1.2.5",
    b"1.2.840.10008.1.2.4.50", b"1.2.840.10008.1.2.4.70", b"1.2.840.10008.1.2.4.80", b"1.2.840.10008.1.2.4.90",
    b"1.2.840.10008.1.2.1.99", b"1.2.840.10008.1.2.4.201", b"1.2.3.4",
)  # fmt: skip
SYNTAXES_OF_SEEDS = (
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    RLELossless,
    JPEG2000Lossless,
)
VRS = (b"CS", b"UI", b"LO", b"PN", b"DA", b"US", b"UL", b"DS", b"IS", b"SQ", b"OB", b"OW", b"UN", b"FD", b"AT", b"ZZ")


@pytest.fixture(scope="module")
def seeds(maybe_cxr_dir: Path | None) -> list[bytes]:
    """Files that mutants are made of: our own in six transfer syntaxes, and real ones where they are."""
    found = [dicom_file("P1", 1), *(in_syntax(syntax) for syntax in SYNTAXES_OF_SEEDS)]
    folder = None if maybe_cxr_dir is None else maybe_cxr_dir / "dicom"
    if folder is None:
        return found
    return found + [p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file() and p.stat().st_size < 600_000]


# -- mutants ----------------------------------------------------------------------------------------------------------
position = st.floats(0, 1, exclude_max=True)
mutation = st.one_of(
    st.tuples(st.just("flip"), position, st.integers(0, 7)),
    st.tuples(st.just("cut"), position, st.just(0)),
    st.tuples(st.just("insert"), position, st.binary(min_size=1, max_size=12)),
    st.tuples(st.just("delete"), position, st.integers(1, 400)),
    st.tuples(st.just("repeat"), position, st.integers(1, 4000)),
    st.tuples(st.just("length"), position, st.sampled_from([0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFFFFFFE, 65535])),
    st.tuples(st.just("vr"), position, st.sampled_from(VRS)),
    st.tuples(st.just("syntax"), position, st.sampled_from(SYNTAXES)),
    st.tuples(st.just("number"), position, st.sampled_from([0, 1, 7, 255, 32768, 65535])),
    st.tuples(st.just("tail"), position, st.binary(max_size=30)),
)


def _mutated(raw: bytes, changes: list[tuple[str, float, Any]]) -> bytes:
    data = bytearray(raw)
    for how, where, value in changes:
        if len(data) < 200:
            break
        # Half of all changes in the header, which is a small part of a file.
        at = int(where * 2 * min(2000, len(data))) if where < 0.5 else int((where - 0.5) * 2 * len(data))
        at = min(at, len(data) - 9)
        if how == "flip":
            data[at] ^= 1 << value
        elif how == "cut":
            del data[max(at, 140) :]
        elif how == "insert":
            data[at:at] = value
        elif how == "delete":
            del data[at : at + value]
        elif how == "repeat":
            data[at:at] = data[at : at + value]
        elif how == "length":
            data[at : at + 4] = struct.pack("<I", value)
        elif how == "number":
            data[at : at + 2] = struct.pack("<H", value)
        elif how == "vr":
            found = [i for vr in (b"CS", b"US", b"LO", b"UI", b"OW") if (i := data.find(vr, at)) > 0]
            data[min(found, default=at) :][:2] = b""
            i = min(found, default=at)
            data[i : i + 2] = value
        elif how == "syntax":
            i = data.find(b"1.2.840.10008.1.2", 140)
            if i > 0:
                old = data[i : i + 24].split(b"\0")[0]
                data[i : i + len(old)] = value[: len(old)].ljust(len(old), b"\0")
        else:
            data += value
    return bytes(data)


def test_mutants_have_an_end_each(seeds, tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    written: set[bytes] = set()

    @settings(max_examples=size(150, 2000), deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.integers(0, len(seeds) - 1), st.lists(mutation, min_size=1, max_size=4))
    def write(which: int, changes: list) -> None:
        raw = _mutated(seeds[which], changes)
        if raw not in written:
            written.add(raw)
            (source / f"{len(written):05d}.dcm").write_bytes(raw)

    write()
    _every_file_has_an_end(source, tmp_path / "out", "mutated DICOM files have an end each, within 30 s")


def _every_file_has_an_end(source: Path, output: Path, promise: str) -> None:
    workshop = open_workshop(source, output)
    paths = sorted(str(p.relative_to(source)) for p in source.rglob("*") if not p.is_dir() or p.is_symlink())
    slow, lost = [], []
    try:
        for path in paths:
            began = time.monotonic()
            instance = workshop.take_in(path)
            if time.monotonic() - began > 30 + 5:  # the limit, and starting the decoder again
                slow.append(path)
            known = instance.state == "taken" or all(code[:4] in ("GM-D", "GM-H") for code in instance.codes)
            if not known or (instance.state != "taken" and not instance.codes):
                lost.append((path, instance.state, instance.codes))
    finally:
        workshop.close()
    before = {p for p in source.parent.rglob("*") if output not in p.parents}
    outcome = release(source, output)
    after = {p for p in source.parent.rglob("*") if output not in p.parents and ".work" not in str(p)}
    lost += [str(p) for p in after - before if p != output]
    if sum(outcome.ends.values()) != len(paths):
        lost.append(outcome.ends)
    kept(promise, len(paths), slow + lost, ", ".join(f"{n} {state}" for state, n in outcome.ends.items()))


def test_hand_made_families_have_the_code_that_they_should(tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    wrong = []
    for name, (make, _) in FAMILIES.items():
        (source / name).write_bytes(make())
    (source / "link").symlink_to("/etc/passwd")
    os.mkfifo(source / "pipe")
    workshop = open_workshop(source, tmp_path / "out")
    try:
        for name, (_, code) in (FAMILIES | {"link": (None, "GM-D025"), "pipe": (None, "GM-D025")}).items():
            found = workshop.take_in(name)
            if (found.codes or ("",))[0] != code:
                wrong.append((name, code, found.codes))
    finally:
        workshop.close()
    kept("hand-made families of bad files have their code each", len(FAMILIES) + 2, wrong)


def test_the_real_dicom_files_have_their_codes(cxr_dir, tmp_path):
    folder = cxr_dir / "dicom"
    workshop = open_workshop(folder, tmp_path / "out")
    wrong, tried = [], 0
    try:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            name = str(path.relative_to(folder))
            if name not in EXPECTED:
                continue
            tried += 1
            found = workshop.take_in(name)
            if list(found.codes) != EXPECTED[name]:
                wrong.append((name, EXPECTED[name], found.codes))
    finally:
        workshop.close()
    assert tried == len(EXPECTED)
    kept("real DICOM files and corner cases have their code each", tried, wrong)


def test_bombs_are_refused_before_memory_is_taken(tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    for name, make in BOMBS.items():
        (source / name).write_bytes(make())
    workshop = open_workshop(source, tmp_path / "out")
    wrong, rounds = [], size(1, 4)
    try:
        workshop.take_in("65535 x 65535")  # the decoder has started
        for _ in range(rounds):
            for name in BOMBS:
                before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
                found = workshop.take_in(name)
                grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
                if found.state != "rejected" or grown > 200 or time.monotonic() - began > 30:
                    wrong.append((name, found.codes, round(grown)))
    finally:
        workshop.close()
    kept("bombs are refused, the parent does not grow by 200 MiB", rounds * len(BOMBS), wrong)
