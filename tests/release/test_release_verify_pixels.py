"""Scores are measured again on the files, and what does not fit limits or ledger is named."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from pydicom import dcmread
from toy_release import KEY, Watch, no_text, release, write_input

from gmia_monai.dicom.text import Word
from gmia_monai.release.ledger import Ledger, read_ledger
from gmia_monai.release.verify_pixels import verify_pixels


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("pixels")
    release(write_input(root / "in", patients=3, images=2), root / "out")
    return root


@pytest.fixture
def out(made, tmp_path):
    for name in ("out", "out.work"):
        shutil.copytree(made / name, tmp_path / name)
    return tmp_path / "out"


def test_a_release_as_it_was_made_has_its_scores(out):
    seen = []
    found = verify_pixels(out, Watch(), no_text, lambda done, total: seen.append((done, total)))
    assert (found.n_images, found.n_identity, found.problems) == (6, 6, []) and seen[-1] == (6, 6)


def test_without_the_work_folder_what_can_be_measured_is(out):
    shutil.rmtree(out.with_name("out.work"))
    found = verify_pixels(out, Watch(), no_text)
    assert (found.n_images, found.n_identity, found.problems) == (6, 0, [])


def test_other_pixels_are_seen(out):
    [victim, *_] = sorted((out / "images").rglob("*.dcm"))
    dataset = dcmread(victim)
    dataset.set_pixel_data(
        np.roll(dataset.pixel_array, 9, axis=0)[::-1] // 3, "MONOCHROME1", 12, generate_instance_uid=False
    )
    dataset.save_as(victim)
    problems = verify_pixels(out, Watch(), no_text).problems
    assert problems and all(problem.startswith(str(victim.relative_to(out))) for problem in problems)
    victim.write_bytes(b"nothing")
    assert "cannot be read" in verify_pixels(out, Watch(), no_text).problems[0]


def test_text_other_networks_and_scores_without_a_number_are_named(out):
    found = verify_pixels(out, Watch(), lambda image: [Word("DOE", 90.0, 0, (1, 1, 2, 2))])
    assert len(found.problems) == 6 and all("text: beyond" in problem for problem in found.problems)

    class Other(Watch):
        weights = {"watch": "9" * 64}

        def nearest_copy(self, images):
            return np.full(len(images), np.nan)

    problems = verify_pixels(out, Other(), no_text).problems
    assert "others than those" in problems[0] and sum("copy: no number" in problem for problem in problems) == 6


def test_a_score_that_was_made_up_is_seen(made, tmp_path):
    shutil.copytree(made / "out", tmp_path / "out")
    shutil.copytree(made / "out.work", tmp_path / "out.work")
    entries = read_ledger(tmp_path / "out" / "ledger.jsonl", KEY)
    for name in ("ledger.jsonl", "ledger.jsonl.head"):
        (tmp_path / "out" / name).unlink()
    with Ledger(tmp_path / "out" / "ledger.jsonl", KEY) as ledger:  # by who holds the key
        for entry in entries:
            body = dict(entry.body)
            if body.get("state") == "released":
                body["scores"] = body["scores"] | {"identity": [0.0, 0.01]}
            ledger.append(entry.kind, body)
    problems = verify_pixels(tmp_path / "out", Watch(), no_text).problems
    assert len(problems) == 6 and all("identity: not the score" in problem for problem in problems)
