"""The attack on a whole release rings where identity is there, is silent on noise, and says when it cannot tell."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from attack_cohorts import real_images
from toy_release import KEY, contents, release, toy_parts, write_input

from gmia_monai.networks import IdentityNet, save_network
from gmia_monai.release import runner as module
from gmia_monai.release.batch import BatchAttack
from gmia_monai.release.ledger import read_ledger
from gmia_monai.release.parts import ReleasedImage
from gmia_monai.release.policy import Batch, Policy
from gmia_monai.release.verify import verify_folder


@pytest.fixture(scope="module")
def attack(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "arcface.safetensors"
    arguments = {"image_size": 32, "architecture": "small", "embedding_dim": 16}
    torch.manual_seed(0)
    save_network(path, IdentityNet(**arguments), arguments)
    return BatchAttack(path, max_auc=0.7, min_patients=40, folds=3, steps=8, n_boot=60)


def _images(how: str, patients: int = 48) -> list[ReleasedImage]:
    real = real_images("b", patients)
    rng = np.random.default_rng(5)
    found = []
    for i, record in enumerate(real.cohort):
        source = real.pixels[i, 0]
        released = {"same": source, "noise": rng.random(source.shape, dtype=np.float32)}[how]
        known = {"view": record.view, "sex": record.sex, "age": record.age}
        found.append(ReleasedImage(f"{i:016x}", record.patient_id, known, source, released))
    return found


def test_it_rings_on_images_that_are_released_as_they_are(attack):
    seen = []
    found = attack(_images("same"), lambda done, total: seen.append((done, total)))
    assert found["told"] and not found["passed"] and found["auc"] > 0.9 and found["low"] > 0.7
    assert found["patients"] == 48 and found["images"] == 144 and seen == [(1, 3), (2, 3), (3, 3)]
    assert sum(found["attackers"].values()) == 3


def test_it_is_silent_on_noise(attack):
    found = replace(attack, max_auc=0.8)(_images("noise"))
    assert found["told"] and found["low"] < 0.5 < found["high"] and found["passed"]
    assert not replace(attack, max_auc=0.501)(_images("noise"))["passed"], "the upper limit counts"


def test_with_few_patients_it_cannot_tell(attack):
    images = _images("same", 30)
    assert attack(images) == {
        "told": False, "passed": False, "patients": 30, "images": 90, "folds": 3, "steps": 8, "max_auc": 0.7,
    }  # fmt: skip
    single = [image for image in _images("same") if image.handle.endswith(("0", "3", "6", "9"))]
    assert not attack(single)["told"], "patients with one image are no patients to be found again"
    assert not replace(attack, min_patients=20)([])["told"]


def test_the_order_of_the_images_does_not_matter(attack):
    images = _images("same")
    assert attack(images) == attack(images[::-1])


def test_at_most_four_images_of_a_patient_count(attack):
    images = _images("same", 45)
    more = [replace(image, handle=f"f{k}{image.handle[2:]}") for k in range(3) for image in images]
    assert replace(attack, steps=1)(more)["images"] == 45 * 4


# -- in a run ---------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_input(tmp_path_factory.mktemp("release") / "in")


@pytest.fixture(scope="module")
def whole(source, tmp_path_factory):
    """The output of a run without an attack."""
    output = tmp_path_factory.mktemp("whole") / "out"
    release(source, output)
    return output


class _Verdict:
    """Says what a test asks for, and remembers what it was shown."""

    def __init__(self, passed: bool, told: bool = True) -> None:
        self.found = {"told": told, "passed": passed, "patients": 4, "images": 12}
        self.seen: list[list] = []

    def __call__(self, images, watch=None):
        self.seen.append(list(images))
        return self.found


REQUIRED = Policy(batch=Batch(attack="require"))


@pytest.mark.parametrize(("passed", "told"), [(True, True), (False, True), (False, False)])
def test_nothing_is_released_before_the_attack_on_the_whole_has_passed(source, whole, tmp_path, passed, told):
    verdict, visible = _Verdict(passed, told), []

    def asked(images, watch=None):
        visible.extend((tmp_path / "out/images").rglob("*.*"))
        return verdict(images)

    outcome = release(source, tmp_path / "out", policy=REQUIRED, parts=replace(toy_parts(), batch=asked))
    [images] = verdict.seen
    assert len(images) == 12 and visible == []
    assert all(image.source.shape == image.released.shape == (32, 32) for image in images)
    assert not any(np.allclose(image.source, image.released, atol=0.01) for image in images)
    entries = read_ledger(tmp_path / "out" / "ledger.jsonl", KEY)
    assert [e.kind for e in entries].count("batch") == 1
    if passed:
        assert outcome.ends == {"released": 12, "held": 0, "rejected": 0}
        assert {k: v for k, v in contents(tmp_path / "out").items() if "images" in k} == {
            k: v for k, v in contents(whole).items() if "images" in k
        }
    else:
        assert outcome.ends == {"released": 0, "held": 12, "rejected": 0} and outcome.codes == {"GM-H206": 12}
        assert not list((tmp_path / "out/images").rglob("*.*"))
        assert len(list((tmp_path / "out.work/held").iterdir())) == 12
    assert not list((tmp_path / "out.work/waiting").iterdir())
    before = contents(tmp_path / "out")
    release(source, tmp_path / "out", policy=REQUIRED, parts=replace(toy_parts(), batch=verdict))
    assert contents(tmp_path / "out") == before and len(verdict.seen) == 1, "made once"
    assert verify_folder(tmp_path / "out", KEY).good


@pytest.mark.parametrize("step", ["append", "move"])
@pytest.mark.parametrize("at", [5, 14, 16, 20])
@pytest.mark.parametrize("passed", [True, False])
def test_interrupted_around_the_attack_it_ends_the_same(source, tmp_path, monkeypatch, step, at, passed):
    parts = replace(toy_parts(), batch=_Verdict(passed))
    release(source, tmp_path / "whole", policy=REQUIRED, parts=parts)
    owner, name = (module.Ledger, "append") if step == "append" else (module, "move")
    real, calls = getattr(owner, name), []

    def interrupted(*arguments, **more):
        calls.append(0)
        if len(calls) == at:
            raise KeyboardInterrupt
        return real(*arguments, **more)

    monkeypatch.setattr(owner, name, interrupted)
    with pytest.raises(KeyboardInterrupt):
        release(source, tmp_path / "out", policy=REQUIRED, parts=parts)
    monkeypatch.undo()
    if at == 5:
        assert not list((tmp_path / "out/images").rglob("*.*"))
    release(source, tmp_path / "out", policy=REQUIRED, parts=parts)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert {k for k in contents(tmp_path / "out.work") if "held" in k} == {
        k for k in contents(tmp_path / "whole.work") if "held" in k
    }


def test_an_attack_that_is_only_reported_holds_nothing(source, tmp_path):
    verdict = _Verdict(False)
    report = Policy(batch=Batch(attack="report"))
    outcome = release(source, tmp_path / "out", policy=report, parts=replace(toy_parts(), batch=verdict))
    assert outcome.ends["released"] == 12
    assert [e.kind for e in read_ledger(tmp_path / "out" / "ledger.jsonl", KEY)][-2:] == ["batch", "complete"]


def test_what_waited_under_another_policy_is_made_again(source, whole, tmp_path, monkeypatch):
    def interrupted(images, watch=None):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        release(source, tmp_path / "out", policy=REQUIRED, parts=replace(toy_parts(), batch=interrupted))
    assert not list((tmp_path / "out/images").rglob("*.*"))
    outcome = release(source, tmp_path / "out")
    assert outcome.ends == {"released": 12, "held": 0, "rejected": 0}
    assert {k: v for k, v in contents(tmp_path / "out").items() if "images" in k} == {
        k: v for k, v in contents(whole).items() if "images" in k
    }
    assert verify_folder(tmp_path / "out", KEY).good
