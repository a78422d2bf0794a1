"""One command from a manifest and a folder of released images to result lines, through each entry point."""

from __future__ import annotations

import csv
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from attack_cohorts import IMAGES_EACH, SIZE, knowledge, real_images, released
from monai.bundle import ConfigWorkflow
from PIL import Image

from gmia_monai.anonymizers import Unchanged, UnitStore
from gmia_monai.attacks import ATTACKS
from gmia_monai.attacks.base import Judged
from gmia_monai.cli import main as cli
from gmia_monai.data.manifest import read_manifest
from gmia_monai.errors import UsageError
from gmia_monai.evaluation import suite
from gmia_monai.evaluation.case import Case, make_case, read_case
from gmia_monai.evaluation.command import Judgement, evaluate_anonymizer, evaluate_release
from gmia_monai.evaluation.read import read_real, read_release
from gmia_monai.evaluation.suite import PROBES, attack_fingerprint, member_fingerprints
from gmia_monai.metrics.results import RunContext, read_results
from gmia_monai.networks import IdentityNet, RetrievalNet, UtilityNet, save_network
from gmia_monai.report.evaluation import report_handlers

CONFIG = Path(__file__).parents[2] / "bundle" / "configs" / "evaluate.yaml"
FAST = {"seeds": [0], "n_boot": 10, "refit": {"steps": 2, "patients": 4}, "train_steps": 2}
ROLE_OF = {"s": "S", "a": "A", "v": "V2", "t": "T"}


def _png(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.round(pixels * 255).astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def case(tmp_path_factory) -> Path:
    """``real/manifest.csv``, ``unchanged`` and ``noise`` with their links, ``models``."""
    root = tmp_path_factory.mktemp("case")
    rng = np.random.default_rng(0)
    rows, links = [], []
    for name, role in ROLE_OF.items():
        real = real_images(name, 8)
        for i, record in enumerate(real.cohort):
            file = f"{name}_{i}.png"
            _png(root / "real" / file, real.pixels[i, 0])
            rows.append([file, record.patient_id, record.view, record.sex, record.age, role])
            if role != "S":
                handle = f"{len(links):016x}"
                links.append([handle, file])
                _png(root / "unchanged" / "images" / f"{handle}.png", real.pixels[i, 0])
                _png(root / "noise" / "images" / f"{handle}.png", rng.random((SIZE, SIZE)))
    for path, header, lines in (
        (root / "real" / "manifest.csv", ["image", "patient_id", "view", "sex", "age", "split"], rows),
        (root / "unchanged.links.csv", ["handle", "image"], links),
        (root / "noise.links.csv", ["handle", "image"], links),
    ):
        with path.open("w", newline="") as stream:
            csv.writer(stream).writerows([header, *lines])
    arguments = {"image_size": SIZE, "architecture": "small", "embedding_dim": 16}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for name in ("identity", "arcface"):
            save_network(root / "models" / f"{name}.safetensors", IdentityNet(**arguments), arguments)
    return root


def _run(case: Path, system: str, out: Path, links: Path | None = None, **more):
    return evaluate_release(
        case / "real" / "manifest.csv",
        case / system,
        out,
        Judgement(models_dir=case / "models", **{**FAST, **more}),
        links=links,
        image_size=SIZE,
    )


def test_it_rings_on_unchanged_images_and_resumes(case, tmp_path, caplog):
    out = tmp_path / "out"
    results = {(r.name, r.negatives): r for r in _run(case, "unchanged", out)}
    worst = results["verification_auc.T2.worst.v1", "random"]
    assert worst.value > 0.95 and worst.system == "unchanged" and worst.n_patients == 8
    assert results["verification_auc.T1.metadata.v1", "random"].value < 0.95
    assert results["verification_auc.T2.adaptive_cross_frozen.v1", "random"].value > 0.9
    assert {r.identity for r in read_results(out / "results.jsonl")} == {r.identity for r in results.values()}
    lines = (out / "results.jsonl").read_bytes()
    with caplog.at_level("INFO"):
        _run(case, "unchanged", out)
    n = len(ATTACKS) + len(PROBES)
    assert "all attacks are done already" in caplog.text
    assert (out / "results.jsonl").read_bytes() == lines
    (next((out / "attacks").glob("singling_out.*"))).unlink()
    caplog.clear()
    with caplog.at_level("INFO"):
        _run(case, "unchanged", out)
    assert f"{n - 1} of {n} attacks are done" in caplog.text and (out / "results.jsonl").read_bytes() == lines


def test_it_is_silent_on_noise(case, tmp_path):
    results = {(r.name, r.negatives): r for r in _run(case, "noise", tmp_path / "out", n_boot=100)}
    for threat in ("T1", "T3"):
        auc = results[f"verification_auc.{threat}.frozen.v1", "random"]
        assert auc.low <= 0.5 <= auc.high


def test_another_release_or_setting_is_not_resumed(case, tmp_path):
    out = tmp_path / "out"
    for system, more in (("unchanged", {}), ("noise", {}), ("noise", {"n_boot": 11})):
        _run(case, system, out, attacks=["singling_out"], **more)
    assert len(list((out / "attacks").iterdir())) == 3


def test_an_attack_that_has_changed_is_made_anew_and_the_others_are_not(case, tmp_path, monkeypatch):
    out, names = tmp_path / "out", ["singling_out", "linkability"]
    _run(case, "unchanged", out, attacks=names)
    kept = next((out / "attacks").glob("singling_out.*.jsonl")).stat().st_mtime_ns
    monkeypatch.setitem(suite.ATTACK_VERSIONS, "linkability", 99)
    lines = _run(case, "unchanged", out, attacks=names)
    assert next((out / "attacks").glob("singling_out.*.jsonl")).stat().st_mtime_ns == kept
    versions = {r.name.split("_")[0]: r.extra["suite_version"] for r in lines}
    assert versions["linkability"] == 99 and versions["hidden"] == suite.ATTACK_VERSIONS["singling_out"]
    assert len({r.identity for r in lines}) == len(lines)


def test_a_run_of_a_part_keeps_the_lines_of_the_others(case, tmp_path):
    out = tmp_path / "out"
    first = _run(case, "unchanged", out, attacks=["singling_out", "linkability"])
    both = _run(case, "unchanged", out, attacks=["singling_out"], n_members=5)
    assert {r.identity for r in both} == {r.identity for r in first}
    assert {r.extra["suite_version"] for r in both} == {
        suite.ATTACK_VERSIONS[r] for r in ("singling_out", "linkability")
    }
    assert len(list((out / "attacks").glob("*.jsonl"))) == 2


def test_what_decides_the_figures_decides_the_fingerprint(case, monkeypatch, tmp_path):
    cohort = read_manifest(case / "real" / "manifest.csv")

    def mark(cohort=cohort, settings=None, n_members=3000, models=case / "models"):
        found = make_case(cohort, Unchanged(), SIZE, n_members=n_members, models_dir=models)
        whole = attack_fingerprint(found, [], settings or {})
        return whole, member_fingerprints(found, whole)["membership"]

    plain = mark()
    assert plain[1].startswith(plain[0]) and plain == mark(settings={"attacks": ["presence"], "n_members": 1})
    fewer = mark(n_members=5)
    assert fewer[0] == plain[0] and fewer[1] != plain[1], "members decide what uses them"
    older = [replace(r, age=r.age + 10) if r.patient_id == "t0" else r for r in cohort]
    sick = [replace(r, labels=(("Mass", 1.0),)) if r.patient_id == "v1" else r for r in cohort]
    others = [mark(replace(cohort, records=tuple(records)))[0] for records in (older, sick)]
    others.append(mark(settings={"n_boot": 7})[0])
    shutil.copytree(case / "models", tmp_path / "models")
    arguments = {"n_findings": 1, "architecture": "small"}
    save_network(tmp_path / "models" / "utility.safetensors", UtilityNet(**arguments), arguments)
    others.append(mark(models=tmp_path / "models")[0])
    monkeypatch.setattr(suite, "SUITE_VERSION", suite.SUITE_VERSION + 1)
    others.append(mark()[0])
    assert len({plain[0], *others}) == 6


def test_nothing_that_is_written_names_a_patient_or_a_file(case, tmp_path):
    out = tmp_path / "out"
    _run(case, "unchanged", out, attacks=["singling_out"])
    written = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    assert b"hidden_rate" in written
    for word in (b"t_0.png", b"a_3.png", b't0"', str(case).encode()):
        assert word not in written


def test_the_config_gives_the_same_lines(case, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    expected = _run(case, "unchanged", tmp_path / "one", attacks=["linkability"])
    workflow = ConfigWorkflow(
        str(CONFIG),
        workflow_type="eval",
        logging_file=False,
        run_id="evaluating",
        real=str(case / "real" / "manifest.csv"),
        released=str(case / "unchanged"),
        output_dir=str(tmp_path / "two"),
        models_dir=str(case / "models"),
        image_size=SIZE,
        device="cpu",
        **{
            "suite#attacks": ["linkability"],
            "suite#seeds": [0],
            "suite#n_boot": 10,
            "suite#refit": FAST["refit"],
        },
    )
    workflow.initialize()
    workflow.run()
    found = read_results(tmp_path / "two" / "results.jsonl")
    assert [(r.identity, r.value, r.low) for r in found] == [(r.identity, r.value, r.low) for r in expected]


def test_the_command_shows_the_worst(case, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        sys,
        "argv",
        [
            *["gmia", "evaluate", "--real", str(case / "real" / "manifest.csv"), "--released", str(case / "unchanged")],
            *["--models-dir", str(case / "models"), "--image-size", str(SIZE), "--attack", "retrieval", "--seeds", "1"],
            *["--refit-steps", "1"],
        ],
    )
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    shown = capsys.readouterr().out
    assert "map_at_r.released_in_real.worst.v1" in shown and "results.jsonl" in shown
    assert (tmp_path / "output" / "evaluation" / "results.jsonl").is_file()


# -- reading -----------------------------------------------------------------------------------------------------------
def test_a_release_is_read_with_its_sources(case):
    cohort = read_manifest(case / "real" / "manifest.csv").role("T")
    real = read_real(cohort, SIZE)
    release = read_release(cohort, case / "unchanged", SIZE)
    assert release.kind == "one_to_one" and len(release) == len(cohort) == 24
    assert np.abs(release.pixels - real.pixels[release.only_source()]).max() < 1e-6
    without = read_release(cohort, case / "unchanged" / "images", SIZE)
    assert without.kind == "generated" and len(without) == 72


def test_several_rows_of_a_handle_are_several_sources(case, tmp_path):
    cohort = read_manifest(case / "real" / "manifest.csv").role("T")
    first = sorted((case / "unchanged" / "images").iterdir())[0].stem
    links = tmp_path / "links.csv"
    links.write_text(f"handle,image\n{first},t_0.png\n{first},t_4.png\n")
    release = read_release(cohort, case / "unchanged", SIZE, links)
    assert release.sources == ((0, 4),) and release.kind == "k_to_one"


def test_what_cannot_be_read_is_refused(case, tmp_path):
    cohort = read_manifest(case / "real" / "manifest.csv").role("T")
    links = tmp_path / "links.csv"
    links.write_text("handle,image\nx,elsewhere.png\n")
    (tmp_path / "empty").mkdir()
    for folder, given, code in (
        (case / "nowhere", None, "GM-U320"),
        (tmp_path / "empty", None, "GM-U320"),
        (case / "unchanged", links, "GM-U322"),
        (case / "unchanged", tmp_path / "none.csv", "GM-U321"),
        (case / "unchanged", case / "real" / "manifest.csv", "GM-U321"),
    ):
        with pytest.raises(UsageError, match=code) as caught:
            read_release(cohort, folder, SIZE, given)
        assert "elsewhere" not in str(caught.value)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.png").write_bytes(b"no image")
    with pytest.raises(UsageError, match="GM-U320.*GM-D003"):
        read_release(cohort, tmp_path / "bad", SIZE)


def test_a_release_without_the_attackers_roles_says_what_is_missing(case, tmp_path):
    rows = (case / "unchanged.links.csv").read_text().splitlines()
    links = tmp_path / "links.csv"
    links.write_text(os.linesep.join(row for row in rows if ",a_" not in row))
    with pytest.raises(UsageError, match="GM-U322.*role A"):
        _run(case, "unchanged", tmp_path / "out", links=links)


def test_a_folder_does_not_say_how_it_was_made(case, tmp_path):
    (line,) = _run(
        case, "unchanged", tmp_path / "out", attacks=["release"], more_handlers=lambda *a: report_handlers(*a)
    )
    assert line.name == "release_left_out.v1" and line.value is None
    assert "does not say how its images came out" in line.extra["reason"]
    assert "<td>release</td>" in (tmp_path / "out" / "report.html").read_text()


def test_fidelity_comes_after_utility_whatever_the_order(case, tmp_path):
    found = make_case(read_manifest(case / "real" / "manifest.csv"), Unchanged(), SIZE)
    assert list(suite.make_attacks(found, ["fidelity", "utility", "release"], ["metadata"])) == [
        *("utility", "release", "fidelity")
    ]


def test_unknown_names_are_refused(case, tmp_path):
    with pytest.raises(UsageError, match="GM-U323"):
        _run(case, "unchanged", tmp_path, attacks=["rumour"])


# -- systems at hand, and releases of other kinds ----------------------------------------------------------------------
def test_a_system_at_hand_gives_attackers_the_system(case, tmp_path):
    cohort = read_manifest(case / "real" / "manifest.csv")
    store = UnitStore(tmp_path / "units")
    judgement = Judgement(models_dir=case / "models", attacks=["verification"], **FAST)
    lines = evaluate_anonymizer(cohort, Unchanged(), tmp_path / "out", judgement, image_size=SIZE, store=store)
    found = {r.name: r for r in lines if r.negatives == "random"}
    assert found["verification_auc.T2.owner.v1"].value > 0.95
    assert found["verification_auc.T1.worst.v1"].system == "unchanged"
    # The same release, read from a folder, has no owner.
    assert not any("owner" in r.name for r in _run(case, "unchanged", tmp_path / "folder", attacks=["verification"]))


def test_how_images_came_out_is_always_said_of_a_system_that_optimises(case, tmp_path):
    class Slow(Unchanged):
        def __init__(self) -> None:
            super().__init__()
            self.settings, self.description = {"steps": 3}, "three steps"

    cohort = read_manifest(case / "real" / "manifest.csv")
    judgement = Judgement(models_dir=case / "models", attacks=["singling_out"], **FAST)
    lines = evaluate_anonymizer(cohort, Slow(), tmp_path / "out", judgement, image_size=SIZE)
    assert lines[0].name == "release_converged.v1" and lines[0].value == 1.0 and lines[0].n_patients == 8
    assert lines[0].extra["description"] == "three steps" and lines[0].extra["suite_version"] == suite.SUITE_VERSION


def test_members_are_those_of_the_training_role(case):
    cohort = read_manifest(case / "real" / "manifest.csv")
    whole = make_case(cohort, Unchanged(), SIZE)
    assert whole.knowledge.members is not None and {r for r in whole.knowledge.members.real.cohort.roles} == {"S"}
    assert len(make_case(cohort, Unchanged(), SIZE, n_members=5).knowledge.members.real) == 5
    assert make_case(cohort, Unchanged(), SIZE, n_members=0).knowledge.members is None
    assert read_case(cohort, case / "unchanged", SIZE).knowledge.members is None, "the folder holds none of them"


def test_generated_and_k_to_one_releases_are_judged_by_what_makes_sense(case, tmp_path):
    rows = (case / "unchanged.links.csv").read_text().splitlines()
    links = tmp_path / "links.csv"
    # Each image of a patient counts as a source of the next one's release, too.
    second = []
    for first in range(1, len(rows), 3):
        of_patient = [row.split(",") for row in rows[first : first + 3]]
        second += [f"{of_patient[i][0]},{of_patient[i - 1][1]}" for i in range(3)]
    links.write_text("\n".join(rows + second))
    results = {r.name: r for r in _run(case, "unchanged", tmp_path / "k", links=links)}
    left_out = results["verification_left_out.v1"]
    assert left_out.value is None and "k_to_one" in left_out.extra["reason"]
    # Every patient is among the sources: half of them are left out, with all their images.
    presence = results["presence_auc.worst.v1"]
    assert presence.extra["members"] == presence.extra["non_members"] == 4 and presence.extra["released_images"] == 12
    assert any(name.startswith("memorised_share") for name in results)
    no_links = tmp_path / "generated"
    shutil.copytree(case / "unchanged", no_links)
    results = {r.name: r for r in _run(case.parent / case.name, str(no_links), tmp_path / "g")}
    assert "generated" in results["inversion_left_out.v1"].extra["reason"]
    presence = results["presence_auc.worst.v1"]
    assert (presence.extra["members"], presence.extra["non_members"]) == (4, 8)
    assert "auc_of_unreleased" in presence.extra
    assert any(name.startswith("memorised_share") for name in results)


def test_patients_of_one_image_each_cost_what_needs_two_and_nothing_else(case, caplog):
    def single(name: str) -> Judged:
        real = real_images(name)
        return released(real.take(np.arange(0, len(real), IMAGES_EACH)), "unchanged")

    known = replace(knowledge("unchanged"), own=single("a"), choice=single("v"))
    whole = Case(known, single("t"), "fingerprint")
    names = ("retrieval", "verification", "linkability", "singling_out", "budget")
    attackers = ("frozen", "adaptive_released", "fusion")
    weights = [case / "models" / "arcface.safetensors"]
    fast = {"seeds": (0,), "recipe": FAST["refit"], "n_boot": 10}
    attacks = suite.make_attacks(whole, names, attackers, weights, **fast)
    engine = suite.attack_engine(whole, attacks, RunContext("unchanged", "cxr64"))
    found = {}
    for name in names:
        engine.run([name], max_epochs=1)
        found[name] = [r.name for r in engine.state.output["results"]]
    assert found["retrieval"] == ["retrieval_left_out.v1"]
    for name, figure in (("verification", "verification_auc"), ("linkability", "linkability_f1")):
        threat = "T2" if name == "verification" else "outer"
        assert {f"{figure}.{threat}.frozen.v1", f"{figure}.{threat}.fusion.v1"} <= set(found[name])
    assert "hidden_rate.T2.frozen.v1" in found["singling_out"]
    assert not [name for of in found.values() for name in of if "adaptive_released" in name]
    assert caplog.text.count("attacker adaptive_released, seed 0, is left out: too few patients on both sides") == 1


def test_the_retrieval_network_of_the_folder_searches(case, tmp_path):
    found = make_case(read_manifest(case / "real" / "manifest.csv"), Unchanged(), SIZE)
    path = tmp_path / "retrieval.safetensors"
    without = suite.make_attacks(found, ["retrieval"], ["frozen"], models_dir=tmp_path)["retrieval"]
    save_network(path, RetrievalNet("small", grid=1, hidden=8), {"architecture": "small", "grid": 1, "hidden": 8})
    attack = suite.make_attacks(found, ["retrieval"], ["frozen"], models_dir=tmp_path)["retrieval"]
    assert without.network == () and attack.network == (path,)
