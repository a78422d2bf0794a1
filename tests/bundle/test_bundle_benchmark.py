"""The benchmark config: through the workflow and plain `run`, its profiles, and what it writes."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest
from attack_cohorts import SIZE
from benchmark_cohort import write_cohort, write_models
from monai.bundle import ConfigParser, ConfigWorkflow

from gmia_monai import workflows
from gmia_monai.errors import ManifestError
from gmia_monai.evaluation.suite import checked_attacks
from gmia_monai.evaluation.zoo import read_entries
from gmia_monai.metrics.results import read_results
from gmia_monai.workflows import BenchmarkWorkflow

CONFIGS = Path(__file__).parents[2] / "bundle" / "configs"
CONFIG = str(CONFIGS / "benchmark.yaml")
PROFILES = sorted((CONFIGS / "profiles").glob("benchmark_*.yaml"))
pytestmark = pytest.mark.filterwarnings("ignore:parsing config")


@pytest.fixture(autouse=True)
def restored(monkeypatch) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # the config sets its own


@pytest.fixture
def settings(tmp_path) -> dict[str, object]:
    return {
        "logging_file": False,
        "real": str(write_cohort(tmp_path / "real")),
        "dataset_dir": "",
        "models_dir": str(write_models(tmp_path / "models")),
        "output_dir": str(tmp_path / "out"),
        "docs_dir": str(tmp_path / "docs"),
        "image_size": SIZE,
        "device": "cpu",
        "only": ["noise", "gmia_m0"],
        "suite#attacks": ["cost", "singling_out"],
        "suite#attackers": ["metadata", "frozen"],
        "suite#n_boot": 5,
        "suite#n_members": 0,
        "suite#cost_images": 2,
    }


def test_the_config_judges_and_a_second_run_by_plain_monai_gives_the_same(settings, tmp_path, monkeypatch) -> None:
    pages = []
    monkeypatch.setattr(workflows, "write_pages", lambda *folders: pages.append(folders))
    workflow = BenchmarkWorkflow(CONFIG, **settings)
    workflow.initialize()
    workflow.run()
    workflow.finalize()
    outcome = workflow.outcome
    assert outcome.done == ("noise",) and list(outcome.left_out) == ["gmia_m0"] and outcome.exit_code == 1
    lines = tmp_path / "docs" / "results" / "systems"
    assert [path.name for path in lines.iterdir()] == ["noise.jsonl"]
    assert pages == [(str(lines), str(tmp_path / "docs"))]
    found = read_results(lines)
    assert {line.profile for line in found} == {f"cxr{SIZE}"} and len(found) > 3
    (command,) = {line.command for line in found}
    words = shlex.split(command)
    assert words[words.index("--only") + 1] == '["noise"]' and words[words.index("--real") + 1] == "manifest.csv"
    assert words[words.index("--suite#refit#steps") + 1] == "100" and str(tmp_path) not in command
    before = (lines / "noise.jsonl").read_bytes()
    plain = ConfigWorkflow(CONFIG, workflow_type="eval", run_id="benchmark", **settings)
    plain.initialize()
    plain.run()
    assert (lines / "noise.jsonl").read_bytes() == before and len(pages) == 2


def test_a_coded_error_comes_out_as_it_is(settings) -> None:
    workflow = BenchmarkWorkflow(CONFIG, **settings | {"real": ""})
    workflow.initialize()
    with pytest.raises(ManifestError) as caught:
        workflow.run()
    assert caught.value.code == "GM-M001"


def test_pages_are_written_by_the_report_and_not_without_lines(tmp_path, monkeypatch) -> None:
    from gmia_monai.report import benchmark, model_card, systems

    asked = []
    monkeypatch.setattr(benchmark, "write_benchmark_pages", lambda *folders: list(map(Path, folders)))
    for report in (systems, model_card):
        monkeypatch.setattr(report, "main", asked.append)
    docs = tmp_path / "docs"
    assert workflows.write_pages(tmp_path, docs) == []
    (tmp_path / "a.jsonl").touch()
    assert workflows.write_pages(tmp_path, docs) == [tmp_path, docs, docs / "systems.md"]
    assert asked == [[str(tmp_path), str(docs / "systems.md")]]
    docs.mkdir()
    (docs / "README.md").touch()
    assert workflows.write_pages(tmp_path, docs)[-1] == docs / "README.md" and asked[-1][1] == str(docs / "README.md")


@pytest.mark.parametrize("profile", [None, *PROFILES], ids=lambda path: getattr(path, "stem", "none"))
def test_profiles_change_settings_that_there_are(profile) -> None:
    assert len(PROFILES) >= 2
    parser = ConfigParser()
    parser.read_config(CONFIG)
    known = set(parser.get("suite"))
    names = set(parser.config)
    if profile is not None:
        changes = ConfigParser.load_config_file(str(profile))
        assert {key.removeprefix("+") for key in changes} <= names
        parser.update({key: value for key, value in changes.items() if not key.startswith("+")})
        assert set(changes["+suite"]) <= known
        checked_attacks([name for name in changes["+suite"].get("attacks") or () if name != "cost"])
    parser["dataset_dir"] = ""
    parser.parse(reset=True)
    quick = profile is not None and profile.stem == "benchmark_quick"
    assert parser.get_parsed_content("profile") == ("cxr64_quick" if quick else "cxr64")
    docs = parser.get_parsed_content("docs_dir")
    assert docs == ("output/benchmark_quick" if quick else "bundle/docs")
    assert len(read_entries(parser.get_parsed_content("systems"), strict=False)) >= 25
