"""What a judgement leaves behind: an MLflow run that is whole after a resume, and commands without this machine."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import mlflow
import pytest
import torch
import yaml
from attack_cohorts import SIZE, judged, knowledge
from PIL import Image

from gmia_monai.cli import main as cli
from gmia_monai.data.roles import role_of_patient
from gmia_monai.evaluation import command as module
from gmia_monai.evaluation.case import Case
from gmia_monai.evaluation.command import Judgement, bundle_command, spelled_command, weight_hashes
from gmia_monai.networks import IdentityNet, save_network
from gmia_monai.report.evaluation import report_handlers
from gmia_monai.weights import sha256_of

CONFIG = Path(__file__).parents[2] / "bundle" / "configs" / "evaluate.yaml"
ATTACKS = ("verification", "retrieval", "singling_out")


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    arguments = {"image_size": SIZE, "architecture": "small", "embedding_dim": 16}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_network(folder / "identity.safetensors", IdentityNet(**arguments), arguments)
    return folder


def _judge(out: Path, models: Path):
    judgement = Judgement(
        models_dir=models,
        attacks=ATTACKS,
        attackers=["metadata", "frozen"],
        seeds=[0],
        refit={"steps": 2},
        n_boot=10,
        command="gmia evaluate --released x",
        more_handlers=report_handlers,
    )
    return judgement.run(Case(knowledge("unchanged"), judged("unchanged"), "ab" * 32), out)


def test_the_run_holds_lines_figures_report_and_settings_also_after_a_resume(tmp_path, models, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    out = tmp_path / "out"
    lines = _judge(out, models)
    assert {r.profile for r in lines} == {f"cxr{SIZE}"} and {r.command for r in lines} == {"gmia evaluate --released x"}
    next((out / "attacks").glob("singling_out.*.jsonl")).unlink()
    again = _judge(out, models)
    assert [r.identity for r in again] == [r.identity for r in lines]

    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("evaluation").experiment_id
    runs = client.search_runs([experiment], order_by=["start_time ASC"])
    assert len(runs) == 2
    wanted = {f"{r.name}.{r.negatives}" if r.negatives else r.name: r.value for r in lines if r.value is not None}
    assert {name.split(".")[0] for name in wanted} > {"verification_auc", "rank_1", "hidden_rate"}
    for run in runs:
        assert run.info.status == "FINISHED"
        assert run.data.metrics == pytest.approx(wanted)
        assert run.data.params["refit.steps"] == "2" and run.data.params["n_boot"] == "10"
        top = {a.path for a in client.list_artifacts(run.info.run_id)}
        assert {"report.html", "results.jsonl", "settings.json", "figures"} <= top
        figures = {a.path for a in client.list_artifacts(run.info.run_id, "figures")}
        assert "figures/another_image_of_the_person_t1_1.svg" in figures and len(figures) >= 4
    page = (out / "report.html").read_text()
    provenance = dict(re.findall(r"<dt>(.*?)</dt><dd>(?:<code>)?(.*?)(?:</code>)?</dd>", page))
    assert provenance["refit.steps"] == "2" and provenance["seeds"] == "[0]"
    assert "metadata" in provenance["attackers"] and provenance["n_boot"] == "10"
    assert "pseudonymous" in provenance["notes.policy"] and "notes.links" not in provenance
    assert provenance["weights.identity"] == sha256_of(models / "identity.safetensors")[:16]


def test_hashes_are_of_recorded_and_of_other_weights(models, tmp_path):
    (tmp_path / "own.safetensors").write_bytes(b"x")
    found = weight_hashes(models, [models / "identity.safetensors", tmp_path / "own.safetensors"])
    assert found == {
        "identity": sha256_of(models / "identity.safetensors")[:16],
        "own": sha256_of(tmp_path / "own.safetensors")[:16],
    }
    assert weight_hashes(None) == {}


def test_a_command_names_no_folder_of_this_machine(monkeypatch, tmp_path):
    monkeypatch.setenv("GMIA_CXR_DIR", str(tmp_path))
    options = [
        ("--real", tmp_path / "my manifest.csv"),
        ("--released", Path("../elsewhere/release")),
        ("--links", None),
        ("--dataset-dir", tmp_path),
        ("--system", ""),
        ("--attack", "presence"),
        ("--seeds", 0),
        ("--files", [str(tmp_path / "a.safetensors"), 1]),
    ]
    found = spelled_command("gmia evaluate", options)
    assert str(tmp_path) not in found and "elsewhere" not in found
    assert shlex.split(found) == [
        *["gmia", "evaluate", "--real", "my manifest.csv", "--released", "release", "--dataset-dir", "$GMIA_CXR_DIR"],
        *["--attack", "presence", "--seeds", "0", "--files", '["a.safetensors", 1]'],
    ]
    assert "--dataset-dir $DATASET_DIR" in spelled_command("x", [("--dataset-dir", tmp_path / "other")])


def test_the_command_of_the_config_holds_all_that_was_set():
    suite = yaml.safe_load(CONFIG.read_text())["suite"]
    suite["arcface"] = ["/far/away/arcface.safetensors"]
    found = shlex.split(bundle_command({"real": "/far/m.csv", "links": None}, {"image_size": 64, "system": ""}, suite))
    values = {o: v for o, v in zip(found, found[1:], strict=False) if o.startswith("--")}
    assert values["--config_file"] == "bundle/configs/evaluate.yaml" and values["--real"] == "m.csv"
    assert values["--suite#refit#steps"] == "300" and values["--suite#seeds"] == "[0, 1, 2]"
    assert values["--suite#arcface"] == '["arcface.safetensors"]' and values["--image_size"] == "64"
    assert "--links" not in values and "--system" not in values and "--suite#attackers" not in values


def test_the_program_gives_profile_resamples_and_command(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(
        module, "evaluate_release", lambda real, released, out, judgement, **more: seen.append((judgement, more)) or []
    )
    arguments = ["evaluate", "--released", str(tmp_path / "release"), "--real", str(tmp_path / "m.csv")]
    own = [*["--n-members", "7", "--cache-dir", "c", "--train-steps", "5", "--attackers", "frozen"]]
    for more in (
        [],
        ["--label", "mine", "--n-boot", "70", "--attack", "presence"],
        ["--profile", "quick"],
        ["--profile", "quick", "--seeds", "2", "--refit-steps", "40", "--attack", "budget", *own],
    ):
        cli.app([*arguments, "--image-size", "128", *more], standalone_mode=False)
    (plain, size), (named, _), (quick, _), (changed, _) = seen
    assert plain.profile == "cxr128" and plain.n_boot == 500 and size["image_size"] == 128
    assert plain.command == (
        "gmia evaluate --real m.csv --released release --image-size 128 --label cxr128 "
        "--seeds 3 --refit-steps 300 --n-boot 500"
    )
    assert named.profile == "mine" and named.n_boot == 70 and "--attack presence" in named.command
    suite = yaml.safe_load((CONFIG.parent / "profiles" / "evaluate_quick.yaml").read_text())["+suite"]
    found = {key: getattr(quick, key) for key in suite}
    assert found == suite and quick.profile == "cxr128" and quick.n_members == 3000
    assert quick.command.endswith("--image-size 128 --profile quick --label cxr128")
    assert (changed.seeds, changed.attacks, changed.n_boot) == ([0, 1], ["budget"], suite["n_boot"])
    assert changed.refit == suite["refit"] | {"steps": 40, "validate_every": 10}
    assert (changed.n_members, changed.cache_dir, changed.train_steps) == (7, Path("c"), 5)
    assert changed.attackers == ["frozen"] and "--seeds 2 --refit-steps 40 --train-steps 5" in changed.command


def test_labels_and_role_key_are_passed_and_the_key_stays_secret(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(module, "read_case", lambda cohort, *a, **more: seen.append((cohort, more)))
    monkeypatch.setattr(Judgement, "run", lambda self, *a: seen.append(self.command) or [])
    for i in range(9):
        Image.new("L", (SIZE, SIZE)).save(tmp_path / f"{i}.png")
    (tmp_path / "m.csv").write_text("image,patient_id\n" + "".join(f"{i}.png,p{i}\n" for i in range(9)))
    (tmp_path / "l.csv").touch()
    arguments = ["evaluate", "--released", str(tmp_path), "--real", str(tmp_path / "m.csv"), "--models-dir", "none"]
    more = ["--labels", str(tmp_path / "l.csv"), "--role-key", "hush", "--output-dir", str(tmp_path / "out")]
    cli.app([*arguments, *more], standalone_mode=False)
    cohort, passed = seen[0]
    assert cohort.roles == tuple(role_of_patient(f"p{i}", "hash", key=b"hush") for i in range(9))
    assert passed["labels"] == tmp_path / "l.csv"
    assert "--labels l.csv --role-key $ROLE_KEY" in seen[1] and "hush" not in seen[1]


def test_the_run_names_attackers_that_cannot_be_had_and_those_that_nobody_asked_for(tmp_path, models, monkeypatch):
    seen = []
    monkeypatch.setattr(module, "case_notes", lambda case, weights, *given: seen.append(given) or {})
    monkeypatch.setattr(module, "run_attacks", lambda *a: [])
    for attackers in (None, ["metadata"]):
        judgement = Judgement(models_dir=models, attacks=["verification"], attackers=attackers)
        judgement.run(Case(knowledge("unchanged"), judged("unchanged"), "ab" * 32), tmp_path)
    (left_out, weaker), (by_hand, weaker_by_hand) = seen
    assert left_out["arcface"] == "weights arcface*" and "frozen" not in left_out and by_hand == left_out
    assert "not asked for" not in weaker and "not asked for: frozen" in weaker_by_hand
