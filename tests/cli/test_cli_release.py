"""The commands of the release plane, with toy networks: what they say, write, refuse, and their exit codes."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from toy_release import KEY, LIMITS, Redraw, Watch, contents, open_workshop, toy_parts, write_input

from gmia_monai.cli import main as cli
from gmia_monai.cli import release as module
from gmia_monai.dicom import pseudonyms, text
from gmia_monai.release import opening, watching
from gmia_monai.release.gate import Bounds, Gate
from gmia_monai.release.parts import Parts


def _limits(**more: Bounds) -> Parts:
    return toy_parts(Gate(LIMITS | more))


@pytest.fixture
def gmia(monkeypatch, capsys, tmp_path):
    """Runs the command in a folder of its own; exit code, output and error output."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "models_folder", lambda given: Path("models"))
    monkeypatch.setattr(watching.NetworkWatch, "from_weights", classmethod(lambda cls, *given: Watch()))
    monkeypatch.setattr(text.TextDetector, "path", "tesseract")
    monkeypatch.setattr(text.TextDetector, "__call__", lambda self, image: [])
    # A key of its own in each run would draw faces that are alike by chance.
    monkeypatch.setattr(pseudonyms, "secrets", SimpleNamespace(token_hex=lambda n: KEY.hex()))
    made = {"parts": _limits()}
    monkeypatch.setattr(
        opening.Opening,
        "__call__",
        lambda self: open_workshop(self.places.source, self.places.output, self.policy, made["parts"], self.key),
    )

    def run(*arguments: str, parts: Parts | None = None) -> tuple[int, str, str]:
        made["parts"] = parts or _limits()
        monkeypatch.setattr(sys, "argv", ["gmia", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        out, err = capsys.readouterr()
        return int(caught.value.code or 0), out, err

    return run


@pytest.fixture
def source(tmp_path):
    return write_input(tmp_path / "in", patients=2, images=2)


def test_a_folder_is_anonymized_verified_and_reported(gmia, source, tmp_path):
    code, out, err = gmia("anonymize", "in", "out", "--workers", "1")
    assert code == 0 and "4 released, 0 held, 0 rejected" in out and "report.html" in out
    assert "project key" in err and (tmp_path / "out.key").stat().st_mode & 0o077 == 0
    assert re.search(r"making: 4 of 4; 4 released", err) and len(list((tmp_path / "out/images").rglob("*.dcm"))) == 4
    before = contents(tmp_path / "out")
    assert gmia("anonymize", "in", "out", "--workers", "1")[0] == 0 and contents(tmp_path / "out") == before
    code, out, _ = gmia("verify", "out")
    assert code == 0 and "4 released; chain of the ledger checked with the key" in out and "nothing wrong" in out
    assert "scores of 4 images measured again, 4 of them with their sources" in out
    assert "measured again" not in gmia("verify", "out", "--quick")[1]
    code, out, _ = gmia("report", "out", "--dry-run")
    assert code == 0 and '"released": 4' in out and contents(tmp_path / "out") == before
    assert gmia("report", "out")[0] == 0 and contents(tmp_path / "out") == before
    [victim, *_] = (tmp_path / "out/images").rglob("*.dcm")
    victim.write_bytes(victim.read_bytes()[:-1])
    code, out, _ = gmia("verify", "out")
    assert code == 3 and "changed since its release" in out


def test_what_is_held_or_rejected_is_said_by_code(gmia, source, tmp_path):
    (source / "Doe.txt").write_text("Doe")
    code, out, err = gmia("anonymize", "in", "out", "--workers", "1", parts=_limits(contrast=Bounds(low=0.9)))
    assert code == 1 and "0 released, 4 held, 1 rejected" in out and "GM-H104  too little contrast" in out
    assert "GM-D002" in out and "Doe" not in out + err and "out.work/held" in out
    assert not list((tmp_path / "out/images").rglob("*.dcm")) and len(list((tmp_path / "out.work/held").iterdir())) == 4


def test_a_dry_run_writes_nothing_and_names_each_file_and_element(gmia, source, tmp_path):
    (source / "Doe.txt").write_text("Doe")
    before = contents(tmp_path)
    code, out, err = gmia("anonymize", "in", "out", "--dry-run")
    assert code == 1 and contents(tmp_path) == before and not (tmp_path / "out.work").exists()
    assert "file 1: rejected (GM-D002)" in out and "5 files of 2 patients and 4 studies" in out
    assert "(0010,0010) PatientName: pseudonym in 4; Basic Profile: Z" in out and "PixelData: redrawn in 4" in out
    assert "Nothing was written" in out and "MiB" in out and "Doe" not in out + err
    assert "Doe.txt" in gmia("anonymize", "in", "out", "--dry-run", "--show-names")[1]


def test_check_looks_at_headers_alone(gmia, source, tmp_path, monkeypatch):
    monkeypatch.setattr(opening.Opening, "__call__", lambda self: pytest.fail("networks are opened"))
    before = contents(tmp_path)
    code, out, _ = gmia("check", "in")
    assert code == 0 and "kinds: 4 CR" in out and "4 files of 2 patients and 4 studies: 4 taken" in out
    (tmp_path / "policy.yaml").write_text("intake:\n  modalities: [DX]\n")
    code, out, _ = gmia("check", "in", "--policy", "policy.yaml")
    assert code == 1 and "GM-D031" in out
    (tmp_path / "policy.yaml").unlink()
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (("check", "nowhere"), 2, "GM-U410"),
        (("anonymize", "nowhere", "out"), 2, "GM-U410"),
        (("anonymize", "in", "in/out"), 2, "GM-U411"),
        (("anonymize", "in", "in"), 2, "GM-U411"),
        (("anonymize", "in", "out", "--policy", "none.yaml"), 2, "GM-U402"),
        (("anonymize", "in", "out", "--key", "none.key"), 2, "GM-U082"),
        (("verify", "nowhere"), 2, "GM-U418"),
        (("report", "in"), 2, "GM-U425"),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_written(gmia, source, tmp_path, arguments, code, word):
    before = contents(tmp_path)
    found, _, err = gmia(*arguments)
    assert (found, word in err) == (code, True) and contents(tmp_path) == before


def test_an_interrupted_run_says_so_and_goes_on(gmia, source, tmp_path, monkeypatch):
    gmia("key", "new", "project.key")
    whole = gmia("anonymize", "in", "whole", "--workers", "1", "--key", "project.key")
    real, calls = Redraw.__call__, []

    def interrupted(self, *arguments):
        calls.append(0)
        raise KeyboardInterrupt

    monkeypatch.setattr(Redraw, "__call__", interrupted)
    code, _, err = gmia("anonymize", "in", "out", "--workers", "1", "--key", "project.key")
    assert code == 130 and "the same command goes on" in err and calls
    monkeypatch.setattr(Redraw, "__call__", real)
    assert gmia("anonymize", "in", "out", "--workers", "1", "--key", "project.key")[0] == 0
    assert whole[0] == 0 and contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_verify_takes_any_folder(gmia, source, tmp_path):
    code, out, _ = gmia("verify", "in")
    assert code == 3 and "no ledger" in out and "header:" in out and "patient 0" not in out
    assert "patient 0" in gmia("verify", "in", "--show-names")[1]


def test_policy_is_explained_and_checked(gmia, tmp_path):
    code, out, _ = gmia("policy", "explain")
    assert code == 0 and "checks.identity_share = 0.01" in out and "text.before = " in out
    assert gmia("policy", "explain", "checks.min_contrast")[1].count(" = ") == 1
    assert gmia("policy", "explain", "nothing")[0] == 2
    (tmp_path / "p.yaml").write_text("linkage: pseudonymous\n")
    code, out, _ = gmia("policy", "check", "p.yaml")
    assert code == 0 and re.search("sha256 [0-9a-f]{64}", out)
    (tmp_path / "p.yaml").write_text("linkge: pseudonymous\n")
    code, _, err = gmia("policy", "check", "p.yaml")
    assert code == 2 and "linkage" in err


def test_the_doctor_names_what_is_missing(gmia, tmp_path, monkeypatch):
    code, out, _ = gmia("doctor", "--models-dir", str(tmp_path))
    assert code == 4 or code == 2
    assert "good     pydicom" in out and "missing  weights: GM-U423" in out and "transfer syntaxes" in out
    monkeypatch.setattr(text.TextDetector, "path", property(lambda self: (_ for _ in ()).throw(FileNotFoundError())))
    assert "missing  text detector" in gmia("doctor", "--models-dir", str(tmp_path))[1]


def test_the_folder_of_weights_is_found_or_asked_for(tmp_path, monkeypatch):
    from gmia_monai.cli.folders import models_folder
    from gmia_monai.errors import UsageError

    assert (models_folder(None) / "index.json").is_file()
    shutil.copy(models_folder(None) / "index.json", tmp_path)
    assert models_folder(tmp_path) == tmp_path.resolve() and KEY
    with pytest.raises(UsageError, match="GM-U423"):
        models_folder(tmp_path / "nothing")
