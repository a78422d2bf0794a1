"""Coded errors: one meaning a code, exit codes, what the user sees."""

from __future__ import annotations

import ast
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gmia_monai import errors
from gmia_monai.errors import (
    ExitCode,
    GmiaError,
    InputError,
    IntegrityError,
    ManifestError,
    ResourceError,
    UsageError,
    coded_cause,
    end_bundle_run,
    is_out_of_memory,
    show_coded_errors,
)
from gmia_monai.release.reasons import HELD, REJECTED, reason

PACKAGE = Path(errors.__file__).parent
PATTERN = re.compile(r"GM-[UMDWRH]\d{3}")  # H: why an instance is held, raised by nobody
LETTER = {"UsageError": "U", "ManifestError": "M", "InputError": "D", "IntegrityError": "W", "ResourceError": "R"}

# Codes that more than one room raises, because the same fault can be met in each.
SHARED = {
    "GM-D001": {"dicom", "transforms"},  # no such file
    "GM-D002": {"dicom", "transforms"},  # format that is not read
    "GM-D003": {"dicom", "transforms"},  # cannot be decoded
    "GM-D004": {"dicom", "transforms"},  # not monochrome
    "GM-D005": {"dicom", "transforms"},  # several frames
    "GM-D010": {"dicom", "transforms"},  # too large
    "GM-D011": {"dicom", "transforms"},  # bit depth
    "GM-R030": {"engines", "handlers"},  # training diverged
    "GM-W001": {"networks", "weights"},  # weights not found
    "GM-W004": {"networks", "weights"},  # weights of another network
}


def _room(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def _codes_in_code(tree: ast.Module) -> list[str]:
    """Every string constant that is meant as a code, docstrings left out."""
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.match(r"GM-\S*$", node.value)
    ]


def _scan() -> dict[str, set[Path]]:
    found: dict[str, set[Path]] = defaultdict(set)
    for path in sorted(PACKAGE.rglob("*.py")):
        for code in _codes_in_code(ast.parse(path.read_text())):
            found[code].add(path)
    return found


def test_codes_have_the_form_that_is_promised() -> None:
    codes = _scan()
    assert len(codes) > 50, "the scan finds nothing"
    assert [code for code in codes if not PATTERN.fullmatch(code)] == []


def test_a_code_belongs_to_one_room() -> None:
    explained = PACKAGE / "release" / "reasons.py"  # says what those of other rooms mean
    rooms = {code: {_room(path) for path in paths - {explained}} for code, paths in _scan().items()}
    assert {code: held for code, held in rooms.items() if len(held) > 1 and SHARED.get(code) != held} == {}


def test_every_end_of_an_instance_is_explained() -> None:
    ends = {
        code for code, paths in _scan().items() if code[3] in "DH" and {_room(p) for p in paths} & {"dicom", "release"}
    }
    assert ends - set(REJECTED) - set(HELD) == {"GM-D029"}, "too many files: no end of one of them"
    assert reason("GM-D003") == REJECTED["GM-D003"] and reason("GM-H001") == HELD["GM-H001"]


def test_the_letter_of_a_code_is_that_of_its_class() -> None:
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in LETTER):
                continue
            code = node.args[0] if node.args else None
            if isinstance(code, ast.Constant) and code.value[3] != LETTER[node.func.id]:
                wrong.append((path.name, node.lineno, code.value))
    assert wrong == []


@pytest.mark.parametrize(
    ("kind", "code", "exit_code"),
    [
        (UsageError, "GM-U001", 2),
        (ManifestError, "GM-M001", 2),
        (InputError, "GM-D001", 1),
        (IntegrityError, "GM-W001", 3),
        (ResourceError, "GM-R001", 4),
    ],
)
def test_exit_codes_and_pickling(kind, code, exit_code) -> None:
    error = kind(code, "it is wrong", got=(3, "x"), expected=4, next_step="do it again")
    assert int(error.exit_code) == exit_code
    assert str(error) == f"{code} it is wrong; got: (3, 'x'); expected: 4; next: do it again"
    # DataLoader workers send errors home by pickle.
    twin = pickle.loads(pickle.dumps(error))
    assert type(twin) is kind and str(twin) == str(error)
    assert (twin.code, twin.got, twin.expected, twin.next_step) == (code, (3, "x"), 4, "do it again")


def test_what_is_not_given_is_not_said() -> None:
    assert str(GmiaError("GM-U001", "it is wrong")) == "GM-U001 it is wrong"
    assert str(GmiaError("GM-U001", "it is wrong", got=0)) == "GM-U001 it is wrong; got: 0"


def test_exit_codes_are_those_of_the_documentation() -> None:
    assert {code.name: int(code) for code in ExitCode} == {
        "OK": 0,
        "SOME_REJECTED": 1,
        "USAGE": 2,
        "INTEGRITY": 3,
        "RESOURCES": 4,
        "INTERRUPTED": 130,
    }


def _wrapped(inner: BaseException, from_none: bool = False) -> Exception:
    try:
        try:
            raise inner
        except BaseException as error:  # noqa: BLE001
            if from_none:
                raise RuntimeError("outer") from None
            raise RuntimeError("outer") from error
    except RuntimeError as outer:
        return outer


def test_the_coded_cause_is_found_through_wrappers() -> None:
    coded = InputError("GM-D003", "broken")
    assert coded_cause(coded) is coded
    assert coded_cause(_wrapped(coded)) is coded
    assert coded_cause(_wrapped(_wrapped(coded))) is coded
    assert coded_cause(_wrapped(ValueError("x"))) is None


def test_a_ring_of_causes_ends() -> None:
    one, two = ValueError("one"), KeyError("two")
    one.__cause__, two.__cause__ = two, one
    assert coded_cause(one) is None


def _shown(capsys: pytest.CaptureFixture[str], error: BaseException) -> str:
    try:
        errors._show(type(error), error, error.__traceback__)  # noqa: SLF001
    except SystemExit:
        pass
    return capsys.readouterr().err


def test_a_coded_error_is_one_line(capsys, monkeypatch) -> None:
    monkeypatch.delenv("GMIA_TRACEBACK", raising=False)
    told = _shown(capsys, _wrapped(InputError("GM-D003", "broken", next_step="mend it")))
    assert told.strip().splitlines()[0] == "error: GM-D003 broken; next: mend it"
    assert "Traceback" not in told


def test_the_trace_can_be_had(capsys, monkeypatch) -> None:
    monkeypatch.setenv("GMIA_TRACEBACK", "1")
    assert "Traceback" in _shown(capsys, _wrapped(InputError("GM-D003", "broken")))


def test_other_errors_keep_their_trace(capsys, monkeypatch) -> None:
    monkeypatch.delenv("GMIA_TRACEBACK", raising=False)
    told = _shown(capsys, _wrapped(ValueError("a bug")))
    assert "Traceback" in told and "a bug" in told


def test_an_interrupt_says_that_it_can_be_resumed(capsys) -> None:
    told = _shown(capsys, KeyboardInterrupt())
    assert "goes on" in told and "Traceback" not in told


def test_the_hook_is_set_where_asked(monkeypatch) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    show_coded_errors()
    assert sys.excepthook is errors._show  # noqa: SLF001


@pytest.mark.parametrize(
    ("kind", "code"), [("InputError", 1), ("UsageError", 2), ("IntegrityError", 3), ("ResourceError", 4)]
)
def test_a_program_ends_with_one_line_and_its_exit_code(kind, code) -> None:
    program = f"""
from gmia_monai.errors import {kind}, show_coded_errors
show_coded_errors()
try:
    raise {kind}("GM-D003", "broken")
except {kind} as error:
    raise RuntimeError("Failed to instantiate 'x'") from error
"""
    done: Any = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert done.stderr.strip().splitlines()[0] == "error: GM-D003 broken"
    assert "Traceback" not in done.stderr and "Failed to instantiate" not in done.stderr


def test_an_interrupted_program_ends_with_130() -> None:
    program = "from gmia_monai.errors import show_coded_errors\nshow_coded_errors()\nraise KeyboardInterrupt"
    done: Any = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 130 and "goes on" in done.stderr


def test_only_the_bundle_program_is_ended(monkeypatch) -> None:
    end_bundle_run(ExitCode.SOME_REJECTED)
    monkeypatch.setitem(
        sys.modules, "__main__", SimpleNamespace(__spec__=SimpleNamespace(name="monai.bundle.__main__"))
    )
    end_bundle_run(ExitCode.OK)
    with pytest.raises(SystemExit) as ended:
        end_bundle_run(ExitCode.SOME_REJECTED)
    assert ended.value.code == 1


def test_sigterm_ends_a_run_as_ctrl_c_does(monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    before = signal.getsignal(signal.SIGTERM)
    try:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        show_coded_errors()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN, "the handler of a host program stays"
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        show_coded_errors()
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_exhausted_memory_is_told_from_other_errors(error, expected):
    assert is_out_of_memory(error) is expected
