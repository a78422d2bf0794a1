"""Workers: answers in the order of the questions, and errors that say what happened."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path

import pytest
from toy_release import open_workshop, write_input

from gmia_monai.errors import IntegrityError, ResourceError
from gmia_monai.release.workers import Alone, Several
from gmia_monai.release.workshop import Workshop


def _damaged() -> Workshop:
    raise IntegrityError("GM-W001", "weights are gone", got="toy")


class _Killed:
    """Ends its process as the operating system does when memory is gone."""

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop

    def take_in(self, path: str) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def _kills(source: Path, output: Path) -> _Killed:
    return _Killed(open_workshop(source, output))


def test_answers_come_in_the_order_of_the_questions(tmp_path):
    source = write_input(tmp_path / "in", patients=3, images=2)
    paths = [str(path.relative_to(source)) for path in sorted(source.rglob("*.dcm"))]
    workshop = open_workshop(source, tmp_path / "out")
    alone = list(Alone(workshop).take_in(paths))
    with Several(partial(open_workshop, source, tmp_path / "out"), 2) as several:
        found = list(several.take_in(paths))
    workshop.close()
    assert [i.handle for i in found] == [i.handle for i in alone] and len(found) == 6


def test_a_worker_that_cannot_open_its_parts_says_why():
    with Several(_damaged, 2) as several, pytest.raises(IntegrityError, match="weights are gone; got: toy"):
        list(several.take_in(["a", "b"]))


def test_a_worker_that_is_killed_is_said(tmp_path):
    source = write_input(tmp_path / "in", patients=1, images=1)
    with Several(partial(_kills, source, tmp_path / "out"), 1) as several, pytest.raises(ResourceError, match="R306"):
        list(several.take_in(["a"]))
