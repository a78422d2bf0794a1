"""``gmia benchmark``: options become settings of the config, systems are shown, exit codes are kept."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from attack_cohorts import SIZE
from benchmark_cohort import write_cohort, write_models
from monai.bundle import ConfigParser

from gmia_monai import workflows
from gmia_monai.cli import benchmark as module
from gmia_monai.cli import main as cli
from gmia_monai.evaluation.benchmark import BenchmarkOutcome

pytestmark = pytest.mark.filterwarnings("ignore:parsing config")


def gmia(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Runs the entry point; its exit code."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(sys, "argv", ["gmia", "benchmark", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0)


class Recorded:
    """Keeps what a workflow is made from, and does nothing."""

    made: list[tuple[list[str], dict[str, object]]] = []

    def __init__(self, files, **settings) -> None:
        self.made.append((files, settings))
        self.parser = ConfigParser({"results_dir": "lines"})
        self.outcome = BenchmarkOutcome(("noise",), {"falco": "no weights"})

    def initialize(self) -> None:
        """Nothing."""

    def run(self) -> None:
        """Nothing."""


def test_options_become_settings(monkeypatch, capsys) -> None:
    monkeypatch.setattr(workflows, "BenchmarkWorkflow", Recorded)
    assert gmia(monkeypatch) == 1  # something was left out
    out = capsys.readouterr().out
    assert "1 of 2 systems are judged" in out and "left out: falco: no weights" in out
    more = ["--only", "noise", "--only", "gmia_m-0.5", "--attack", "cost", "--workers", "2", "--profile", "quick"]
    gmia(monkeypatch, *more, "--real", "m.csv", "--results-dir", "l", "--device", "cpu", "--dataset-dir", "d")
    (plain, none), (files, given) = Recorded.made
    assert none == {"logging_file": False, "workers": 1} and [Path(f).name for f in plain] == ["benchmark.yaml"]
    assert [Path(f).name for f in files] == ["benchmark.yaml", "benchmark_quick.yaml"]
    assert given == {
        "logging_file": False,
        "only": ["noise", "gmia_m-0.5"],
        "suite#attacks": ["cost"],
        "workers": 2,
        "real": "m.csv",
        "results_dir": "l",
        "device": "cpu",
        "dataset_dir": "d",
    }


def test_an_interrupted_one_says_how_to_go_on(monkeypatch, capsys) -> None:
    class Interrupted(Recorded):
        def run(self) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr(workflows, "BenchmarkWorkflow", Interrupted)
    assert gmia(monkeypatch) == 130
    assert "goes on" in capsys.readouterr().err


def test_an_unknown_profile_and_an_unknown_system(monkeypatch, capsys, tmp_path) -> None:
    assert gmia(monkeypatch, "--profile", "slow") == 2
    assert "GM-U383" in capsys.readouterr().err
    real = write_cohort(tmp_path / "real", 4)
    assert gmia(monkeypatch, "--only", "nobody", "--real", str(real), "--output-dir", str(tmp_path / "out")) == 2
    assert "GM-U380" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_without_the_config_it_says_so(monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.setattr(module, "_CONFIGS", (tmp_path,))
    assert gmia(monkeypatch) == 2
    assert "GM-U080" in capsys.readouterr().err


def test_the_list_says_which_weights_are_there(monkeypatch, capsys, tmp_path) -> None:
    models = write_models(tmp_path / "models")
    arguments = ["--list", "--models-dir", str(models), "--only", "noise", "--only", "gmia_m0"]
    assert gmia(monkeypatch, *arguments) == 0
    shown = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if "weights" in line)
    assert shown["noise"] == "needs no weights"
    assert shown["gmia_m0"] == "weights missing: aegan, utility (of aegan, identity, utility)"


def test_a_cost_from_the_command_line(monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.setattr(workflows, "write_pages", lambda *folders: [])
    real, models = write_cohort(tmp_path / "real", 4), write_models(tmp_path / "models")
    folders = ["--output-dir", str(tmp_path / "out"), "--results-dir", str(tmp_path / "lines")]
    words = ["--real", str(real), "--models-dir", str(models), "--image-size", str(SIZE), "--device", "cpu"]
    assert gmia(monkeypatch, "--only", "noise", "--attack", "cost", *words, *folders) == 0
    assert "1 of 1 systems are judged" in capsys.readouterr().out
    assert len((tmp_path / "lines" / "noise.jsonl").read_text().splitlines()) == 2
