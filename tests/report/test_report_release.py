"""The report of a release says what its ledger says, and nothing else."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from toy_release import KEY, LIMITS, Redraw, Watch, no_text, release, write_input

from gmia_monai.errors import IntegrityError, UsageError
from gmia_monai.release.gate import Bounds, Gate
from gmia_monai.release.ledger import Ledger, read_ledger
from gmia_monai.release.parts import Parts
from gmia_monai.release.verify import verify_folder
from gmia_monai.report.release import release_facts, release_report

RATES = {
    "held_strangers": 0.011, "held_strangers_low": 0.008, "held_strangers_high": 0.015, "held_same": 0.71,
    "n_patients": 150.0, "n_strangers": 30000.0, "n_same": 900.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("report")
    source = write_input(root / "in", patients=5, images=3)
    (source / "notes about Doe.txt").write_text("Doe")
    gate = Gate(LIMITS | {"identity": Bounds(-0.2, 0.2)})
    outcome = release(source, root / "out", parts=Parts(Redraw(), Watch(), no_text, gate, "3" * 64, RATES))
    assert all(outcome.ends.values()), "the test needs some of each end"
    return root / "out"


def test_counts_and_scores_are_those_of_the_ledger(folder):
    bodies = [e.body for e in read_ledger(folder / "ledger.jsonl", KEY) if e.kind == "instance"]
    facts = release_facts(folder, KEY)
    for state in ("released", "held", "rejected"):
        assert facts.ends[state] == sum(body["state"] == state for body in bodies)
    scored = [body for body in bodies if "scores" in body]
    np.testing.assert_allclose(facts.scores["identity"], [body["scores"]["identity"] for body in scored])
    assert facts.released["identity"].sum() == facts.ends["released"] and facts.complete
    found = json.loads((release_report(folder, KEY).with_name("report.json")).read_text())
    inside = facts.scores["identity"][facts.released["identity"]]
    assert found["scores"]["identity, released"]["q1"] == pytest.approx(inside.max(), abs=1e-6)
    assert found["ends"] == facts.ends and found["ledger_head"] == facts.head
    assert np.abs(inside).max() <= 0.2 < found["scores"]["identity, held"]["q1"] or (
        found["scores"]["identity, held"]["q0"] < -0.2
    )


def test_the_page_is_whole_and_asks_for_nothing(folder):
    page = release_report(folder, KEY).read_text(encoding="utf-8")
    facts = release_facts(folder, KEY)
    assert not re.search(
        r"(src|href)=(?!\"#)|url\((?!#)|<script|https?://(?!www\.w3\.org|purl\.org|creativecommons)", page
    )
    assert "Doe" not in page and "P0" not in page
    for text in ("GM-D002", "a format that is not read", "150 patients", "1.1 %", "71 %", facts.head, "32 × 32"):
        assert text in page, text
    assert f'class="good">{facts.ends["released"]}</b>' in page and page.count("<svg") == 4
    assert verify_folder(folder, KEY).good, "the report belongs to the release"


def test_the_same_ledger_gives_the_same_page(folder, tmp_path):
    first, second = (release_report(folder, KEY, tmp_path / name).read_bytes() for name in "ab")
    assert first == second


def test_a_batch_attack_and_an_open_release_are_said(folder, tmp_path):
    import shutil

    for name, batch, word in (
        ("passed", {"told": True, "passed": True, "auc": 0.52, "low": 0.48, "high": 0.56, "patients": 120}, "0.560"),
        (
            "failed",
            {"told": True, "passed": False, "auc": 0.72, "low": 0.68, "high": 0.76, "patients": 120},
            "not passed",
        ),
        ("untold", {"told": False, "passed": False, "patients": 3}, "cannot tell"),
    ):
        shutil.copytree(folder, tmp_path / name)
        with Ledger(tmp_path / name / "ledger.jsonl", KEY) as ledger:
            ledger.append("batch", batch)
        page = release_report(tmp_path / name, KEY).read_text(encoding="utf-8")
        assert word in page and "not complete" in page


def test_what_is_no_release_is_refused(tmp_path, folder):
    with pytest.raises(UsageError, match="GM-U425"):
        release_report(tmp_path)
    (tmp_path / "ledger.jsonl").write_bytes((folder / "ledger.jsonl").read_bytes().replace(b"released", b"rejected", 1))
    with pytest.raises(IntegrityError, match="GM-W301"):
        release_report(tmp_path)


def test_an_image_that_waited_counts_once(folder, tmp_path):
    path = tmp_path / "ledger.jsonl"
    with Ledger(path, KEY) as ledger:
        for state in ("waiting", "released"):
            ledger.append("instance", {"handle": "a", "state": state, "scores": {"contrast": [0.1, 0.1]}})
    facts = release_facts(tmp_path, KEY)
    assert facts.ends == {"released": 1, "held": 0, "rejected": 0} and len(facts.scores["contrast"]) == 1
