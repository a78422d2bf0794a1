"""Processes that share work: each piece is done, also where one of them dies."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from gmia_monai.evaluation.benchmark_state import claimed
from gmia_monai.evaluation.workers import shared_work


def _pieces(folder: Path, main: int, dies: bool) -> None:
    """Writes a file for each of some pieces that nobody else is at; another process than ``main`` may die at one."""
    for piece in range(4):
        with claimed(folder, str(piece)) as mine:
            done = folder / f"{piece}.done"
            if mine and not done.exists():
                if dies and os.getpid() != main:
                    os.kill(os.getpid(), 9)
                done.write_text(f"{torch.get_num_threads()} {os.environ.get('OMP_NUM_THREADS')}")


def test_one_worker_is_this_process(tmp_path) -> None:
    seen: list[int] = []
    shared_work(seen.append, (3,), 1)
    assert seen == [3]


@pytest.mark.slow
@pytest.mark.parametrize("dies", [False, True])
def test_all_pieces_are_done_with_one_thread_each(tmp_path, dies, monkeypatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    threads = torch.get_num_threads()
    shared_work(_pieces, (tmp_path, os.getpid(), dies), 2)
    assert sorted(p.name for p in tmp_path.glob("*.done")) == [f"{i}.done" for i in range(4)]
    assert {p.read_text() for p in tmp_path.glob("*.done")} == {"1 1"}
    assert os.environ["OMP_NUM_THREADS"] == "7" and torch.get_num_threads() == threads
