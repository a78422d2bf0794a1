"""A person's decisions: what they do to a release, what they cannot do, and what a crash leaves."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from toy_release import KEY, LIMITS, Watch, contents, no_text, release, toy_parts, write_input

from gmia_monai.errors import IntegrityError, ResourceError, UsageError
from gmia_monai.release import recovery, review
from gmia_monai.release.gate import Bounds, Gate
from gmia_monai.release.ledger import Ledger, read_ledger
from gmia_monai.release.places import places_of
from gmia_monai.release.policy import Batch, Policy, Review
from gmia_monai.release.review import ReviewDesk
from gmia_monai.release.runner import Runner
from gmia_monai.release.verify import verify_folder
from gmia_monai.release.verify_pixels import verify_pixels
from gmia_monai.report.release import release_facts, release_report

SOME_HELD = toy_parts(Gate(LIMITS | {"contrast": Bounds(low=0.155)}))
OVERRULES = Policy(review=Review(may_release=["GM-H104"]))


def _made(folder, policy=OVERRULES, parts=SOME_HELD):
    """A release with some images held for their contrast; its arguments, to go on with it."""
    source = write_input(folder / "in", patients=4, images=3)
    (source / "none.txt").write_text("no image")
    given = {"policy": policy, "parts": parts}
    outcome = release(source, folder / "out", **given)
    assert outcome.ends["released"] >= 2 and outcome.ends["held"] >= 2, outcome
    return given


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("review")
    _made(root)
    return root


@pytest.fixture
def out(made, tmp_path):
    for name in ("in", "out", "out.work"):
        shutil.copytree(made / name, tmp_path / name)
    return tmp_path / "out"


def _again(out):
    return release(out.with_name("in"), out, policy=OVERRULES, parts=SOME_HELD)


def _first(desk, state):
    return next(item.handle for item in desk.items() if item.state == state)


def test_every_new_image_is_there_held_ones_first(out):
    with ReviewDesk(out, KEY) as desk:
        items = desk.items()
        states = [item.state for item in items]
        assert len(items) == 12 and states == sorted(states) and set(states) == {"held", "released"}
        assert all(item.codes == ("GM-H104",) and "contrast" in item.reasons[0] for item in items if item.codes)
        assert all(item.can_release == (item.state == "held") and not item.has_source for item in items)
        assert desk.counts["rejected"] == 1 and desk.limits["contrast"] == [0.155, None]
        image = desk.image(items[0].handle)
        assert image.shape == (72, 64) and image.dtype == np.uint16 and np.ptp(image) > 10000


def test_hold_takes_back_and_accept_brings_back(out):
    before = contents(out / "images")
    with ReviewDesk(out, KEY) as desk:
        handle = _first(desk, "released")
        item = desk.decide(handle, "hold")
        assert (item.state, item.codes, item.verdict, item.can_release) == ("held", ("GM-H301",), "hold", True)
        assert len(contents(out / "images")) == len(before) - 1 and desk.image(handle).shape == (72, 64)
    assert verify_folder(out, KEY).good and verify_pixels(out, Watch(), no_text).problems == []
    counts = _again(out).ends
    assert len(contents(out / "images")) == counts["released"] == len(before) - 1, "it stays held"
    with ReviewDesk(out, KEY) as desk:
        assert desk.item(handle).verdict == "hold" and desk.decide(handle, "accept").state == "released"
    assert contents(out / "images") == before and verify_folder(out, KEY).good
    entries = read_ledger(out / "ledger.jsonl", KEY)
    assert [e.body["verdict"] for e in entries if "verdict" in e.body] == ["hold", "accept"]
    assert entries[-1].kind == "complete"


def test_accept_releases_only_what_the_policy_lets_a_person_overrule(out, tmp_path):
    with ReviewDesk(out, KEY) as desk:
        handle = _first(desk, "held")
        assert desk.decide(handle, "accept").state == "released"
    assert verify_folder(out, KEY).good and verify_pixels(out, Watch(), no_text).problems == []
    assert _again(out).codes["GM-H104"] >= 1 and verify_folder(out, KEY).good
    _made(tmp_path / "careful", Policy())
    with ReviewDesk(tmp_path / "careful/out", KEY) as desk:
        handle = _first(desk, "held")
        found = desk.decide(handle, "accept")
        assert (found.state, found.verdict, found.can_release) == ("held", "accept", False)
    assert verify_folder(tmp_path / "careful/out", KEY).good


def test_nobody_overrules_identity(tmp_path):
    with pytest.raises(ValueError, match="may_release"):
        Review(may_release=["GM-H101"])
    narrow = toy_parts(Gate(LIMITS | {"identity": Bounds(-0.3, 0.3), "contrast": Bounds(low=0.155)}))
    _made(tmp_path, parts=narrow)
    with ReviewDesk(tmp_path / "out", KEY) as desk:
        both = [item for item in desk.items() if {"GM-H101", "GM-H102"} & set(item.codes)]
        assert both
        for item in both:
            assert not item.can_release and desk.decide(item.handle, "accept").state == "held"


def test_what_the_attack_on_the_whole_has_not_seen_is_not_released(tmp_path):
    parts = replace(SOME_HELD, batch=lambda images, watch: {"told": True, "passed": True})
    _made(tmp_path, Policy(review=OVERRULES.review, batch=Batch(attack="require")), parts)
    with ReviewDesk(tmp_path / "out", KEY) as desk:
        held, released = _first(desk, "held"), _first(desk, "released")
        assert not desk.item(held).can_release and desk.decide(held, "accept").state == "held"
        assert desk.decide(released, "hold").state == "held" and desk.decide(released, "accept").state == "released"


def test_sources_are_shown_only_where_the_policy_says_so(out, tmp_path):
    with ReviewDesk(out, KEY) as desk, pytest.raises(UsageError, match="GM-U428"):
        desk.source(_first(desk, "held"))
    _made(tmp_path / "open", Policy(review=Review(show_sources=True)))
    with ReviewDesk(tmp_path / "open/out", KEY) as desk:
        handle = _first(desk, "held")
        assert desk.item(handle).has_source and desk.source(handle).shape == (32, 32)


def test_comments_stay_in_the_work_folder(out):
    with ReviewDesk(out, KEY) as desk:
        handle = _first(desk, "held")
        assert desk.decide(handle, "hold", "Jane Doe, Zürich").comment == "Jane Doe, Zürich"
    assert not any(b"Doe" in raw for raw in contents(out).values())
    kept = out.with_name("out.work") / "comments.jsonl"
    assert kept.stat().st_mode & 0o077 == 0 and json.loads(kept.read_text())["comment"].endswith("Zürich")
    with kept.open("a") as stream:
        stream.write("{half a line")
    with ReviewDesk(out, KEY) as desk:
        assert desk.item(handle).comment == "Jane Doe, Zürich"
        with pytest.raises(UsageError, match="GM-U429"):
            desk.decide(handle, "hold", "x" * 4001)
    [line] = [e for e in read_ledger(out / "ledger.jsonl", KEY) if e.kind == "decision"]
    assert len(line.body["comment"]) == 32
    kept.write_bytes(kept.read_bytes() + b"\xff\xfe")
    with ReviewDesk(out, KEY) as desk:
        desk.decide(handle, "hold", "another one")
    with ReviewDesk(out, KEY) as desk:
        assert desk.item(handle).comment == "another one"


class Crash(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("verdict", ["hold", "accept"])
@pytest.mark.parametrize(("step", "at"), [("append", 0), ("append", 1), ("move", 0)])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("then", ["run", "review"])
def test_a_decision_that_was_written_stands_whatever_comes_between(out, monkeypatch, verdict, step, at, after, then):
    owner, calls = (recovery, []) if step == "move" else (Ledger, [])
    real = getattr(owner, step)

    def crash(*given):
        calls.append(0)
        if len(calls) == at + 1:
            if after:
                real(*given)
            raise Crash
        return real(*given)

    with ReviewDesk(out, KEY) as desk:
        handle = _first(desk, "released" if verdict == "hold" else "held")
        monkeypatch.setattr(owner, step, crash)
        with pytest.raises(Crash):
            desk.decide(handle, verdict)
    monkeypatch.undo()
    written = step == "move" or after or at == 1
    if then == "run":
        _again(out)
    with ReviewDesk(out, KEY) as desk:
        item = desk.item(handle)
        assert item.verdict == (verdict if written else "")
        assert (item.state == "held") == ((verdict == "hold") == written)
        assert desk.image(handle).shape == (72, 64), "the file is where its line says"
    ends = _again(out).ends
    assert ends["released"] == len(contents(out / "images")) and sum(ends.values()) == 13
    assert verify_folder(out, KEY).good and verify_pixels(out, Watch(), no_text).problems == []


def test_a_file_that_a_line_took_back_is_a_problem_until_it_is_gone(out, monkeypatch):
    with ReviewDesk(out, KEY) as desk:
        monkeypatch.setattr(review, "put_right", lambda *given: True)
        with pytest.raises(UsageError, match="GM-U427"):
            desk.decide(_first(desk, "released"), "hold")
    monkeypatch.undo()
    assert ["never released" in problem for problem in verify_folder(out, KEY).problems] == [True]
    _again(out)
    assert verify_folder(out, KEY).good


def test_a_review_of_a_release_that_is_not_complete_does_not_complete_it(tmp_path, monkeypatch):
    source = write_input(tmp_path / "in", patients=4, images=3)
    real, calls = Runner._finish, []

    def stop(self, *given):
        calls.append(0)
        if len(calls) == 8:
            raise Crash
        return real(self, *given)

    monkeypatch.setattr(Runner, "_finish", stop)
    with pytest.raises(Crash):
        release(source, tmp_path / "out", policy=OVERRULES, parts=SOME_HELD)
    monkeypatch.undo()
    with ReviewDesk(tmp_path / "out", KEY) as desk:
        desk.decide(_first(desk, "released"), "hold")
        desk.decide(_first(desk, "released"), "accept")
    found = verify_folder(tmp_path / "out", KEY)
    assert not found.complete and any("not complete" in problem for problem in found.problems)
    release(source, tmp_path / "out", policy=OVERRULES, parts=SOME_HELD)
    assert verify_folder(tmp_path / "out", KEY).good


def test_what_was_overruled_under_another_policy_is_not_released_under_this_one(out):
    with ReviewDesk(out, KEY) as desk:
        handle = _first(desk, "held")
        assert desk.decide(handle, "accept").state == "released"
        assert desk.decide(handle, "hold").codes == ("GM-H104", "GM-H301")
        assert desk.item(handle).can_release
    release(out.with_name("in"), out, policy=Policy(), parts=SOME_HELD)
    with ReviewDesk(out, KEY) as desk:
        assert not desk.item(handle).can_release and desk.decide(handle, "accept").state == "held"
        other = _first(desk, "released")
        assert desk.decide(other, "hold").can_release, "its own decision is a person's to take back"
    strict = toy_parts(Gate(LIMITS | {"contrast": Bounds(low=0.3)}))
    release(out.with_name("in"), out, policy=Policy(), parts=strict)
    with ReviewDesk(out, KEY) as desk:
        assert not desk.item(other).can_release, "by the limits of today it would be held"
        assert desk.decide(other, "accept").state == "held"


def test_what_a_person_released_against_a_check_is_counted(out):
    with ReviewDesk(out, KEY) as desk:
        desk.decide(_first(desk, "held"), "accept")
    facts = release_facts(out, KEY)
    assert facts.overruled == {"GM-H104": 1} and facts.decisions == {"accept": 1}
    assert "that a person released against one" in release_report(out, KEY).read_text()


def test_an_opinion_loosens_no_limit(out):
    with ReviewDesk(out, KEY) as desk:
        handle = _first(desk, "released")
        desk.decide(handle, "accept")

    class Loud(Watch):
        def findings(self, images):
            return super().findings(images) * 9

    assert sum("utility_drift" in p for p in verify_pixels(out, Loud(), no_text).problems) == len(
        contents(out / "images")
    )


def test_after_a_full_disk_nothing_more_is_taken_down_and_nothing_is_lost(out, monkeypatch):
    def full(*given):
        raise OSError(28, "No space left on device")

    with ReviewDesk(out, KEY) as desk:
        handle = _first(desk, "released")
        monkeypatch.setattr(Ledger, "_write_head", full)
        with pytest.raises(ResourceError, match="GM-R307"):
            desk.decide(handle, "hold")
        monkeypatch.undo()
        with pytest.raises(UsageError, match="GM-U432"):
            desk.decide(handle, "hold")
    with ReviewDesk(out, KEY) as desk:
        assert desk.item(handle).state == "held", "its line was on the disk"
    _again(out)
    assert verify_folder(out, KEY).good


def test_after_the_end_nobody_decides(out):
    desk = ReviewDesk(out, KEY)
    handle = _first(desk, "released")
    desk.close()
    desk.close()
    before = contents(out)
    with pytest.raises(UsageError, match="GM-U432"):
        desk.decide(handle, "hold")
    assert contents(out) == before


def test_what_was_changed_is_noticed(out):
    with ReviewDesk(out, KEY) as desk:
        handle = _first(desk, "held")
        body = next(e.body for e in read_ledger(out / "ledger.jsonl", KEY) if e.body.get("handle") == handle)
        place = out.with_name("out.work") / "held" / body["file"].rpartition("/")[2]
        place.write_bytes(place.read_bytes()[:-1] + b"x")
        for act in (lambda: desk.image(handle), lambda: desk.decide(handle, "accept")):
            with pytest.raises(IntegrityError, match="GM-W304"):
                act()
        assert desk.item(handle).state == "held"
    with ReviewDesk(out, KEY) as desk, pytest.raises(UsageError, match="GM-U429"):
        desk.decide(handle, "hold", "half a letter \ud800")
    policy = json.loads((out / "policy.json").read_text())
    policy["review"]["may_release"] = ["GM-H103", "GM-H104", "GM-H105", "GM-H106"]
    (out / "policy.json").write_text(json.dumps(policy))
    with pytest.raises(IntegrityError, match="GM-W311"):
        ReviewDesk(out, KEY)


def test_a_look_changes_nothing(out):
    before = contents(out), contents(out.with_name("out.work"))
    with ReviewDesk(out, KEY, look_only=True) as desk:
        handle = _first(desk, "released")
        assert desk.image(handle).shape == (72, 64)
        with pytest.raises(UsageError, match="GM-U430"):
            desk.decide(handle, "hold", "no")
    assert (contents(out), contents(out.with_name("out.work"))) == before


def test_who_cannot_review_is_told_why(out, tmp_path):
    with pytest.raises(UsageError, match="GM-U424"):
        ReviewDesk(tmp_path / "nothing", KEY)
    with ReviewDesk(out, KEY) as desk:
        for handle in ("0" * 16, "../../etc/passwd", ""):
            with pytest.raises(UsageError, match="GM-U427"):
                desk.image(handle)
        with pytest.raises(UsageError, match="GM-U429"):
            desk.decide(_first(desk, "held"), "release")
        with pytest.raises(UsageError, match="GM-U413"):
            ReviewDesk(out, KEY)
        with pytest.raises(UsageError, match="GM-U413"), places_of(out.with_name("in"), out).locked():
            pass
    with pytest.raises(IntegrityError, match="GM-W301"):
        ReviewDesk(out, bytes(32))
    (out / "policy.json").rename(out / "policy.old")
    with pytest.raises(IntegrityError, match="GM-W311"):
        ReviewDesk(out, KEY)
    (out / "policy.old").rename(out / "policy.json")
    out.with_name("out.work").chmod(0o755)
    with pytest.raises(UsageError, match="GM-U415"):
        ReviewDesk(out, KEY)
    shutil.rmtree(out.with_name("out.work"))
    with pytest.raises(UsageError, match="GM-U426"):
        ReviewDesk(out, KEY)
