"""Many systems, many attacks, several processes: what is done once, by whom, and what is left when one dies."""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from benchmark_cohort import ATTACKS, SYSTEMS, tiny_plan, write_cohort, write_models

from gmia_monai.anonymizers import ANONYMIZERS, Noise, Unchanged
from gmia_monai.attacks.linkability import LinkabilityAttack
from gmia_monai.attacks.singling_out import SinglingOutAttack
from gmia_monai.errors import ExitCode, IntegrityError, ManifestError, ResourceError, UsageError
from gmia_monai.evaluation import benchmark
from gmia_monai.evaluation.benchmark import BenchmarkOutcome, benchmark_commands, run_benchmark
from gmia_monai.evaluation.benchmark_state import SystemState, claimed
from gmia_monai.evaluation.command import Judgement
from gmia_monai.metrics.results import append_results, read_results

CONTROLS = ["unchanged", "noise"]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("real"))


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def made(monkeypatch) -> list[str]:
    """Attacks that were scored, by system and name."""
    seen: list[str] = []
    for name, attack in (("singling_out", SinglingOutAttack), ("linkability", LinkabilityAttack)):
        score = attack.score

        def counted(self, judged, context, name=name, score=score):
            seen.append(f"{judged.release.system} {name}")
            return score(self, judged, context)

        monkeypatch.setattr(attack, "score", counted)
    return seen


def _lines(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((out / "lines").iterdir())}


def test_every_system_gets_its_lines_and_a_second_run_does_nothing(manifest, models, tmp_path, made, caplog) -> None:
    commands = benchmark_commands(CONTROLS, {"real": manifest}, {}, {})
    plan = tiny_plan(manifest, models, tmp_path / "out", only=CONTROLS, commands=commands)
    with caplog.at_level(logging.INFO):
        outcome = run_benchmark(plan)
    assert outcome.done == ("unchanged", "noise") and outcome.exit_code == ExitCode.OK
    assert made == [f"{s} {a}" for s in CONTROLS for a in ("singling_out", "linkability")]
    told = [r.getMessage() for r in caplog.records if r.getMessage().startswith("system 2 of 2")]
    assert any(re.search(r"noise, linkability done; 0:\d\d:\d\d so far, about 0:00:\d\d left", text) for text in told)
    lines = _lines(plan.output_dir)
    assert set(lines) == {"unchanged.jsonl", "noise.jsonl"}
    hidden = {}
    for line in read_results(plan.results_dir):
        assert line.command == commands[line.system] and str(tmp_path) not in line.to_json()
        if line.name == "hidden_rate.T2.frozen.v1":
            hidden[line.system] = line.value
    assert hidden["unchanged"] < 0.2 < 0.6 < hidden["noise"]
    names = {line.name for line in read_results(plan.results_dir)}
    assert {"cost_seconds_per_image.v1", "cost_gflop_per_image.v1"} < names
    for shared in ("units", "claims"):
        assert (tmp_path / "out" / shared).is_dir()
    state = json.loads((tmp_path / "out" / "noise" / "state.json").read_text())
    assert set(state["attacks"]) == {*ATTACKS} and state["done"] and state["seconds"] > 0 and len(state["mark"]) == 16

    made.clear()
    again = run_benchmark(plan)
    assert again.done == outcome.done and made == [] and _lines(plan.output_dir) == lines
    assert json.loads((tmp_path / "out" / "noise" / "state.json").read_text())["mark"] == state["mark"]
    (plan.results_dir / "noise.jsonl").unlink()  # lost lines come from what is kept
    run_benchmark(plan)
    assert made == [] and sorted(_lines(plan.output_dir)["noise.jsonl"].split(b"\n")) == sorted(
        lines["noise.jsonl"].split(b"\n")
    )


def test_one_more_attack_costs_that_attack_and_other_settings_cost_all(manifest, models, tmp_path, made) -> None:
    out = tmp_path / "out"
    run_benchmark(tiny_plan(manifest, models, out, only=["noise"], attacks=["singling_out"]))
    assert made == ["noise singling_out"]
    run_benchmark(tiny_plan(manifest, models, out, only=["noise"], attacks=["singling_out", "linkability"]))
    assert made == ["noise singling_out", "noise linkability"]
    state = SystemState.read(out, "noise")
    assert set(state.attacks) == {"singling_out", "linkability"} and state.done
    made.clear()
    for change in ({"n_boot": 6}, {"max_images": 1}, {"n_images": 12}):
        run_benchmark(tiny_plan(manifest, models, out, only=["noise"], attacks=["singling_out"], **change))
    assert made == ["noise singling_out"] * 3
    assert len(list((out / "noise" / "attacks").glob("singling_out.*.jsonl"))) == 4


def test_lines_of_another_release_do_not_stay_beside_those_of_this_one(manifest, models, tmp_path) -> None:
    plan = tiny_plan(manifest, models, tmp_path / "out", only=["noise"], attacks=["singling_out"])
    lines = tmp_path / "out" / "lines" / "noise.jsonl"
    run_benchmark(plan)
    kept = read_results(lines)
    other = [replace(line, name=f"x{line.name}", release_hash="0" * 16) for line in kept]
    free = [replace(line, name=f"y{line.name}", release_hash=None) for line in kept]
    append_results(lines, other + free)
    run_benchmark(replace(plan, judgement=replace(plan.judgement, n_boot=6)))
    names = {line.name for line in read_results(lines)}
    assert {line.name for line in kept + free} <= names and not names & {line.name for line in other}


def test_cost_alone_reads_a_few_images_and_anonymizes_no_role(manifest, models, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(benchmark, "make_case", lambda *a, **k: pytest.fail("a case is made"))
    plan = tiny_plan(manifest, models, tmp_path, only=["unchanged"], attacks=["cost"])
    run_benchmark(plan)
    lines = read_results(plan.results_dir)
    assert [line.name for line in lines] == ["cost_seconds_per_image.v1", "cost_gflop_per_image.v1"]
    assert lines[0].n_images == 4 and lines[0].profile == "cxr32" and lines[0].config_hash
    monkeypatch.setattr(benchmark, "cost_lines", lambda *a: pytest.fail("it is measured again"))
    SystemState("unchanged").write(tmp_path)
    assert run_benchmark(plan).done == ("unchanged",) and read_results(plan.results_dir) == lines


def test_an_entry_has_its_own_attacks_and_lists(manifest, models, tmp_path, made) -> None:
    systems = {
        "some": {"name": "noise", "attacks": ["linkability", "verification"], "max_images": 2},
        "none": {"name": "identity", "attacks": ["inversion"]},
    }
    plan = tiny_plan(manifest, models, tmp_path, systems=systems)
    assert run_benchmark(plan).done == ("some", "none") and made == ["noise linkability"]
    lines = read_results(plan.results_dir / "some.jsonl")
    assert {line.extra["list"] for line in lines} == {"half"} and max(line.n_images for line in lines) == 16
    assert read_results(plan.results_dir / "none.jsonl") == []
    few = tiny_plan(manifest, models, tmp_path, systems=systems, n_images=7)
    run_benchmark(few)
    assert {r.extra["list"] for r in read_results(plan.results_dir / "some.jsonl")} == {
        "at most 2 images a patient, 7 a role"
    }


def test_an_entry_has_its_own_settings_of_the_suite(manifest, models, tmp_path, monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(Judgement, "run", lambda self, case, out: seen.append((self, case)) or [])
    systems = {"few": {"name": "noise", "suite": {"n_members": 5, "utility_seeds": [7]}}, "all": {"name": "noise"}}
    plan = tiny_plan(manifest, models, tmp_path, systems=systems)
    run_benchmark(plan)
    (few, _), (usual, _) = seen
    assert (few.n_members, few.utility_seeds) == (5, [7])
    assert (usual.n_members, usual.utility_seeds) == (plan.judgement.n_members, plan.judgement.utility_seeds)
    marks = [SystemState.read(tmp_path, system).mark for system in systems]
    assert marks[0] != marks[1]


def test_an_interrupted_run_goes_on_with_the_next_attack(manifest, models, tmp_path, made, monkeypatch) -> None:
    plan = tiny_plan(manifest, models, tmp_path, only=CONTROLS)
    score = LinkabilityAttack.score

    def interrupted(self, judged, context):
        raise KeyboardInterrupt

    monkeypatch.setattr(LinkabilityAttack, "score", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_benchmark(plan)
    state = SystemState.read(tmp_path, "unchanged")
    assert not state.done and set(state.attacks) == {"cost", "singling_out"} and state.ended == 0.0
    with claimed(tmp_path, "unchanged") as mine:
        assert mine
    monkeypatch.setattr(LinkabilityAttack, "score", score)
    made.clear()
    assert run_benchmark(plan).done == tuple(CONTROLS)
    assert made == ["unchanged linkability", "noise singling_out", "noise linkability"]


def test_a_claimed_system_is_left_to_its_process_until_that_is_killed(manifest, models, tmp_path, made) -> None:
    code = (
        "import sys, time\nfrom gmia_monai.evaluation.benchmark_state import claimed\n"
        "with claimed(sys.argv[1], 'unchanged') as mine:\n    print(mine, flush=True)\n    time.sleep(600)\n"
    )
    plan = tiny_plan(manifest, models, tmp_path, only=CONTROLS)
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout.readline().strip() == "True"
            outcome = run_benchmark(plan)
            assert outcome.done == ("noise",) and outcome.elsewhere == ("unchanged",)
            assert "another process is at it: unchanged" in outcome.summary()
            assert {text.split()[0] for text in made} == {"noise"}
        finally:
            os.kill(other.pid, signal.SIGKILL)
    made.clear()
    assert run_benchmark(plan).done == tuple(CONTROLS) and {text.split()[0] for text in made} == {"unchanged"}


@pytest.mark.slow
def test_two_processes_share_the_systems(manifest, models, tmp_path) -> None:
    systems = {f"noise{i}": {"name": "noise", "attacks": ["singling_out"]} for i in range(6)}
    # the same system six times: each has to be judged once, by one of the two
    plan = tiny_plan(manifest, models, tmp_path / "two", systems=systems)
    assert run_benchmark(plan, workers=2).done == tuple(systems)
    alone = tiny_plan(manifest, models, tmp_path / "one", systems=systems)
    run_benchmark(alone)
    assert _lines(tmp_path / "two") == _lines(tmp_path / "one")


def test_a_system_without_weights_is_left_out_and_the_others_go_on(manifest, models, tmp_path, caplog) -> None:
    plan = tiny_plan(manifest, models, tmp_path)
    outcome = run_benchmark(plan)
    assert outcome.done == tuple(CONTROLS) and list(outcome.left_out) == ["gmia_m0"]
    assert "aegan, utility" in outcome.left_out["gmia_m0"] and outcome.exit_code == ExitCode.SOME_REJECTED
    assert any("gmia_m0 is left out" in r.getMessage() for r in caplog.records)
    assert outcome.summary().split("\n")[0] == "2 of 3 systems are judged"
    assert SystemState.read(tmp_path, "gmia_m0").left_out and not (tmp_path / "lines" / "gmia_m0.jsonl").exists()
    unsaid = {"gmia_m0": {k: v for k, v in SYSTEMS["gmia_m0"].items() if k != "needs"}}
    again = run_benchmark(replace(plan, systems=unsaid, only=None))
    assert again.left_out["gmia_m0"].startswith("GM-W001")


@pytest.mark.parametrize("kind", [IntegrityError, ResourceError])
def test_an_error_of_one_system_ends_that_one(manifest, models, tmp_path, monkeypatch, kind) -> None:
    class Broken(Unchanged):
        def anonymize_batch(self, images, seeds):
            raise kind("GM-X000", "broken")

    monkeypatch.setitem(ANONYMIZERS, "broken", Broken)
    plan = tiny_plan(manifest, models, tmp_path, systems={"a": {"name": "broken"}, "b": {"name": "noise"}})
    outcome = run_benchmark(plan)
    assert outcome.done == ("b",) and outcome.failed == {"a": "GM-X000 broken"}
    assert outcome.exit_code == kind.exit_code and "failed: a: GM-X000" in outcome.summary()
    monkeypatch.setitem(ANONYMIZERS, "broken", Unchanged)
    assert run_benchmark(plan).exit_code == ExitCode.OK  # it is tried again


def test_training_images_come_when_a_system_asks(manifest, models, tmp_path, monkeypatch) -> None:
    asked = []

    class Filtered(Noise):
        @classmethod
        def from_weights(cls, models_dir, training):
            asked.append(training())
            return cls()

    monkeypatch.setitem(ANONYMIZERS, "filtered", Filtered)
    run_benchmark(tiny_plan(manifest, models, tmp_path, systems={"f": {"name": "filtered", "attacks": ["cost"]}}))
    assert len(asked) == 1 and set(asked[0].cohort.roles) == {"S"} and len(asked[0]) == 24


def test_what_cannot_be_used_is_refused_before_the_first_image(manifest, models, tmp_path) -> None:
    def refused(workers: int = 1, **more: object) -> str:
        with pytest.raises(UsageError) as caught:
            run_benchmark(tiny_plan(manifest, models, tmp_path / "out", **more), workers)
        assert not (tmp_path / "out").exists()
        return caught.value.code

    assert refused(only=["nobody"]) == "GM-U380"
    assert refused(systems={"a": {"name": "nobody"}}) == "GM-U381"
    assert refused(systems={"a": {"name": "noise", "strength": 1}}) == "GM-U382"
    for more in ({"workers": 0}, {"max_images": 0}, {"n_images": 0}, {"cost_images": 0}):
        assert refused(**more) == "GM-U384"
    assert refused(attacks=["magic"]) == refused(systems={"a": {"name": "noise", "attacks": ["magic"]}}) == "GM-U323"
    plan = tiny_plan(manifest, models, tmp_path / "out", roles={"judged": "V1"})
    with pytest.raises(ManifestError) as caught:
        run_benchmark(plan)
    assert caught.value.code == "GM-M035"


def test_the_command_holds_what_was_set_and_no_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("GMIA_CXR_DIR", str(tmp_path))
    suite = {"attacks": ["cost"], "seeds": [0, 1], "refit": {"steps": 100}, "n_images": None, "roles": {}}
    paths = {"real": "", "dataset_dir": str(tmp_path)}
    found = benchmark_commands(["gmia_m-0.5", "noise"], paths, {"image_size": 64}, suite)
    words = shlex.split(found["gmia_m-0.5"])
    assert " ".join(words[:7]) == ("python -m monai.bundle run benchmark --config_file bundle/configs/benchmark.yaml")
    values = dict(zip(words[7::2], words[8::2], strict=True))
    assert values == {
        "--only": '["gmia_m-0.5"]',
        "--dataset_dir": "$GMIA_CXR_DIR",
        "--image_size": "64",
        "--suite#attacks": '["cost"]',
        "--suite#seeds": "[0, 1]",
        "--suite#refit#steps": "100",
    }
    assert '["noise"]' in found["noise"]
    elsewhere = benchmark_commands(["noise"], {"real": tmp_path / "m.csv"}, {}, {})["noise"]
    assert elsewhere.endswith("--real m.csv")


def test_a_state_that_cannot_be_read_is_an_empty_one(tmp_path) -> None:
    state = SystemState("a", "ab", {"cost": 1.0}, 2.0, True, ended=time.time())
    state.write(tmp_path)
    assert SystemState.read(tmp_path, "a") == state
    for text in ("{", "[]", json.dumps({"mark": "x"}), json.dumps({"system": "b", "done": True})):
        SystemState.path(tmp_path, "a").write_text(text)
        assert SystemState.read(tmp_path, "a") == SystemState("a") == SystemState.read(tmp_path / "none", "a")


def test_the_exit_code_is_the_first_failures() -> None:
    assert BenchmarkOutcome(("a",)).exit_code == 0 and BenchmarkOutcome((), {"a": "x"}).exit_code == 1
    failed = BenchmarkOutcome(("a",), {"b": "x"}, {"c": "GM-R031"}, failed_code=ExitCode.RESOURCES)
    assert failed.exit_code == 4 and failed.summary().startswith("1 of 3")
