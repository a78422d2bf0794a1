"""The ``gmia`` command."""

from __future__ import annotations

import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import gmia_monai
from gmia_monai.cli import main as cli
from gmia_monai.dicom.pseudonyms import load_key


def gmia(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Runs the entry point; its exit code."""
    monkeypatch.setattr(sys, "argv", ["gmia", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0)


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_version(monkeypatch, capsys) -> None:
    assert gmia(monkeypatch, "--version") == 0
    assert capsys.readouterr().out.strip() == f"gmia_monai {gmia_monai.__version__}"


def test_a_new_key_is_for_its_owner_and_usable(tmp_path, monkeypatch, capsys) -> None:
    path = tmp_path / "keys" / "project.key"
    assert gmia(monkeypatch, "key", "new", str(path)) == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(load_key(path)) == 32
    out = capsys.readouterr().out
    assert str(path) in out and path.read_text().strip() not in out


def test_the_default_name(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert gmia(monkeypatch, "key", "new") == 0
    assert [p.name for p in tmp_path.iterdir()] == ["project.key"]


def test_two_keys_differ(tmp_path, monkeypatch) -> None:
    keys = [tmp_path / "a.key", tmp_path / "b.key"]
    for key in keys:
        gmia(monkeypatch, "key", "new", str(key))
    assert load_key(keys[0]) != load_key(keys[1])


def test_a_key_is_never_written_over(tmp_path, monkeypatch, capsys) -> None:
    path = tmp_path / "project.key"
    path.write_text("precious")
    assert gmia(monkeypatch, "key", "new", str(path)) == 2
    assert path.read_text() == "precious"
    captured = capsys.readouterr()
    assert captured.err.startswith("error: GM-U081 ") and len(captured.err.strip().splitlines()) == 1
    assert captured.out == ""


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--help"], ["key", "--version", "Anonymize chest radiographs"]),
        (["key", "--help"], ["new", "pseudonyms"]),
        (["key", "new", "--help"], ["never overwritten", "0600", "project.key"]),
        (
            ["evaluate", "--help"],
            ["--profile", "--label", "--labels", "--role-key", "--n-members", "--cache-dir", "--train-steps"],
        ),
    ],
)
def test_help(arguments, told) -> None:
    result = CliRunner().invoke(cli.app, arguments, env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"})
    assert result.exit_code == 0
    for text in told:
        assert text in plain(result.output)


@pytest.mark.parametrize(
    ("arguments", "code"), [(["--models-dir", "nowhere"], "GM-U338"), (["--profile", "slow"], "GM-U339")]
)
def test_what_is_not_there_is_a_usage_error(arguments, code, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(Path(cli.__file__).parents[2])
    assert gmia(monkeypatch, "evaluate", "--released", str(tmp_path), *arguments) == 2
    shown = capsys.readouterr().err
    assert f"error: {code} " in shown and ("none" in shown if code == "GM-U338" else "full, quick" in shown)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--released", "nowhere"], "GM-U320"),
        (["--links", "nowhere.csv"], "GM-U321"),
        (["--labels", "nowhere.csv"], "GM-U371"),
        (["--attack", "rumour"], "GM-U323"),
        (["--attackers", "rumour"], "GM-U319"),
        (["--device", "foo"], "GM-U373"),
        (["--output-dir", "a.png"], "GM-U374"),
        (["--output-dir", "a.png/below"], "GM-U374"),
        ([], "GM-M001"),
        (["--image-size", "0"], "image-size"),
        (["--image-size", "-1"], "image-size"),
        (["--show-images", "-1"], "show-images"),
    ],
)
def test_wrong_inputs_end_before_images_are_read(arguments, code, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.png").touch()
    given = ["--released", ".", "--models-dir", "none", *arguments]
    assert gmia(monkeypatch, "evaluate", *given) == 2
    shown = plain(capsys.readouterr().err)
    assert code in shown and "Traceback" not in shown
    assert not code.startswith("GM-") or f"error: {code} " in shown


def test_without_arguments_the_help_is_shown() -> None:
    result = CliRunner().invoke(cli.app, [])
    assert "Usage" in plain(result.output)


def test_an_unknown_command_is_a_usage_error() -> None:
    assert CliRunner().invoke(cli.app, ["frobnicate"]).exit_code == 2


def test_it_runs_as_a_program(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gmia_monai.cli.main", "key", "new", str(tmp_path / "p.key")]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 2 and "GM-U081" in again.stderr and "Traceback" not in again.stderr


def test_an_interrupted_judgement_says_that_it_goes_on(tmp_path, monkeypatch, capsys) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("gmia_monai.evaluation.command.evaluate_release", interrupted)
    code = gmia(monkeypatch, "evaluate", "--real", "a.csv", "--released", str(tmp_path), "--models-dir", "none")
    assert code == 130 and "the same command goes on" in capsys.readouterr().err
