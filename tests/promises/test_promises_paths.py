"""No word of the input becomes part of a path, nor stands in anything that is written."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

from command import gmia
from promise import kept, size
from pydicom import dcmread
from pydicom.filebase import DicomBytesIO
from toy_release import dicom_file

BASE = (
    "../../escape", "..", "/etc/passwd", "/tmp/escape", "a/../../escape", "..\\..\\escape", "C:\\escape",
    "\\\\host\\share",
    "CON", "NUL", "aux.dcm", "escape\r\nX: y", "escape\nfile", "escape\x1b[31m", "e\u202excp",
    "\u2066escape", "escape" * 40,
    "; rm -rf escape", "$(touch escape)", "`touch escape`", "| escape", "& escape", "{{7*7}}", "{% escape %}", "%s%n%x",
    "<script>escape()</script>", "' OR 1=1 --", "\" onload=\"escape", "=cmd|escape", "+escape", "-escape", "@escape",
    "--output", "escape.", "escape ", " escape", ".escape", "~root", "~/escape", "file:///escape", "http://escape/",
    "a:b", "a*b?", "[a]", "..%2f..%2fescape", "%00escape", "1.2.840..3", "1.2.3.4.5.6." + "9" * 60, "0.0.0", "\u0000x",
)  # fmt: skip
TAGS = ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID")
PLACES = (*TAGS, "file", "folder")


def _identifiers(n: int) -> list[str]:
    """All of them, marked so that a trace can be found, with a number where one round is not enough."""
    found = []
    for i in itertools.count():
        for base in BASE:
            found.append(f"{base}Zq{i}Wk" if i % 2 else f"Zq{i}Wk{base}")
            if len(found) == n:
                return found
    raise AssertionError


def _write(source: Path, number: int, place: str, name: str) -> str | None:
    """One file with an identifier at its place; the raw name where a file system took it."""
    raw = dicom_file(f"P{number}", 0)
    folder, file = source / f"d{number}", f"f{number}.dcm"
    if place in TAGS:
        dataset = dcmread(DicomBytesIO(raw))
        dataset[place]._value = name  # as it is, whatever the standard says of it
        dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
        buffer = DicomBytesIO()
        dataset.save_as(buffer)
        raw = buffer.getvalue()
    usable = name.replace("/", "_").replace("\0", "_")[:120]
    if usable in (".", ".."):
        usable += "x"
    folder = source / usable if place == "folder" else folder
    file = usable if place == "file" else file
    folder.mkdir(exist_ok=True)
    Path(os.fsdecode(os.fsencode(folder / file))).write_bytes(raw)
    return usable if place in ("file", "folder") else None


def test_hostile_identifiers_lead_nowhere(tmp_path):
    each = size(6, 200)
    source = tmp_path / "in"
    source.mkdir()
    names = _identifiers(each)
    for p, place in enumerate(PLACES):
        for i, name in enumerate(names):
            _write(source, p * each + i, place, name)
    n_files = sum(1 for path in source.rglob("*") if path.is_file())
    before = {path for path in tmp_path.rglob("*")}
    code, said = gmia("anonymize", "in", "out", "--workers", "1", "--debug", cwd=tmp_path)
    wrong: list[object] = [] if code in (0, 1) else [("exit code", code, said[-300:])]
    for verb in (("verify", "out"), ("report", "out")):
        found, more = gmia(*verb, "--debug", cwd=tmp_path)
        said += more
        wrong += [] if found == 0 else [(verb, found, more[-300:])]
    allowed = (tmp_path / "out", tmp_path / "out.work", tmp_path / "out.key", tmp_path / "tmp")
    new = [path for path in tmp_path.rglob("*") if path not in before]
    wrong += [("outside", path.name) for path in new if not any(a == path or a in path.parents for a in allowed)]
    texts = {path.name: path.read_bytes() for path in new if path.is_file()} | {"output": said}
    for where, raw in texts.items():
        for i in range(each // len(BASE) + 1):
            if f"Zq{i}Wk".encode() in raw or f"Zq{i}Wk" in where:
                wrong.append(("raw", where, i))
    ends = sum(1 for line in texts["ledger.jsonl"].splitlines() if b'"kind":"instance"' in line)
    wrong += [] if ends == n_files else [("ends", ends, n_files)]
    kept("hostile identifiers lead to no path and stand nowhere", n_files, wrong, f"{len(PLACES)} places each")
