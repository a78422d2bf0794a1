"""One release, whole: keys, workers, report, exit codes."""

from __future__ import annotations

import pytest
from toy_release import KEY, Redraw, open_workshop, toy_parts, write_input

from gmia_monai.dicom.pseudonyms import load_key
from gmia_monai.errors import ExitCode, UsageError
from gmia_monai.release import folder as module
from gmia_monai.release.folder import exit_code_of, project_key, release_and_leave, release_folder
from gmia_monai.release.opening import Opening
from gmia_monai.release.places import places_of
from gmia_monai.report.release import release_report


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setattr(
        Opening,
        "__call__",
        lambda self: open_workshop(self.places.source, self.places.output, self.policy, key=self.key),
    )
    (tmp_path / "out.key").write_text(KEY.hex())  # others draw other faces, some of them alike
    (tmp_path / "out.key").chmod(0o600)
    return write_input(tmp_path / "in", patients=2, images=2)


def test_a_key_is_made_once_said_and_never_where_one_is_named(tmp_path):
    (tmp_path / "in").mkdir()
    places, told = places_of(tmp_path / "in", tmp_path / "out"), []
    key = project_key(places, None, told.append)
    assert key == project_key(places, None, told.append) == load_key(tmp_path / "out.key")
    assert len(told) == 1 and "out.key" in told[0] and key.hex() not in told[0]
    with pytest.raises(UsageError, match="GM-U082"):
        project_key(places, tmp_path / "other.key")


def test_ends_report_and_progress(source, tmp_path):
    seen = []
    outcome = release_folder(source, tmp_path / "out", watch=lambda p: seen.append(p.stage), report=release_report)
    assert outcome.ends == {"released": 4, "held": 0, "rejected": 0}
    assert (tmp_path / "out/report.html").is_file() and "making" in seen and seen[-1] == "done"


@pytest.mark.parametrize(
    ("workers", "device", "several"), [(0, "cpu", 2), (0, "cuda", 0), (3, "cpu", 3), (1, "cpu", 0)]
)
def test_workers(source, tmp_path, monkeypatch, workers, device, several):
    asked = []

    class Stop(Exception):
        pass

    def made(opening, n):
        asked.append(n)
        raise Stop

    monkeypatch.setattr(module, "Several", made)
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda pid: {0, 1})
    if several:
        with pytest.raises(Stop):
            release_folder(source, tmp_path / "out", device=device, workers=workers)
    else:
        release_folder(source, tmp_path / "out", device=device, workers=workers)
    assert asked == [several] * bool(several)


def test_a_workshop_is_closed_whatever_happens(source, tmp_path, monkeypatch):
    closed = []

    class Bad(Redraw):
        def __call__(self, *given):
            raise KeyboardInterrupt

    def opened(self):
        workshop = open_workshop(self.places.source, self.places.output, parts=toy_parts())
        object.__setattr__(workshop.parts, "redraw", Bad())
        end = workshop.close
        workshop.close = lambda: (closed.append(1), end())
        return workshop

    monkeypatch.setattr(Opening, "__call__", opened)
    with pytest.raises(KeyboardInterrupt):
        release_folder(source, tmp_path / "out")
    assert closed == [1]


def test_leaving_says_how_it_ended(source, tmp_path):
    (source / "none.txt").write_text("no image")
    with pytest.raises(SystemExit) as caught:
        release_and_leave(lambda: release_folder(source, tmp_path / "out"))
    assert caught.value.code == ExitCode.SOME_REJECTED
    assert exit_code_of({"released": 3, "held": 0}) == ExitCode.OK == 0 != exit_code_of({"held": 1})
