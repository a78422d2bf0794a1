"""Work units as batches: what is read, what is rejected with its code, what must stop the run."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from monai.transforms import Compose
from PIL import Image

from gmia_monai.data import AnonymizationRun
from gmia_monai.engines import UnitDataset, run_units, unit_batch, unit_loader
from gmia_monai.errors import UsageError
from gmia_monai.transforms import CentreSquared, LoadRadiographd, ResizeSquared

SIZE = 32


def chain() -> Compose:
    load = LoadRadiographd("image", track_meta=True)
    return Compose([load, CentreSquared("image"), ResizeSquared("image", SIZE)])


@pytest.fixture
def run(tmp_path: Path) -> AnonymizationRun:
    folder = tmp_path / "in"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(5):
        Image.fromarray(rng.integers(0, 256, (40, 48), dtype=np.uint8)).save(folder / f"{i}.png")
    return AnonymizationRun(folder, tmp_path / "out", {}, unit_size=2)


def test_a_unit_is_a_batch_in_the_order_of_its_handles(run) -> None:
    batches = list(unit_loader(UnitDataset(run, chain(), SIZE)))
    assert [batch["unit"] for batch in batches] == [0, 1, 2]
    assert [tuple(batch["image"].shape) for batch in batches] == [(2, 1, SIZE, SIZE)] * 2 + [(1, 1, SIZE, SIZE)]
    for batch in batches:
        assert batch["sources"] == run.units[batch["unit"]]
        assert batch["seeds"] == [run.image_seed(source) for source in batch["sources"]]
        assert batch["rejected"] == []
        for image, source, frame in zip(batch["image"], batch["sources"], batch["frames"], strict=True):
            assert torch.equal(image, chain()({"image": str(source.path)})["image"])
            assert (frame.rows, frame.cols, frame.model_size) == (40, 48, SIZE)


def test_only_unfinished_units_are_read(run) -> None:
    run.finish_unit(run.units[1], [{"handle": s.handle, "file": ""} for s in run.units[1]])
    dataset = UnitDataset(run, chain(), SIZE)
    assert len(dataset) == 2
    assert [item["image"] for item in dataset.data] == [str(s.path) for s in run.units[0] + run.units[2]]
    assert [dataset[i]["unit"] for i in range(2)] == [0, 2]


def test_an_unreadable_image_is_rejected_and_the_others_go_on(run) -> None:
    broken, whole = run.units[0]
    broken.path.write_bytes(broken.path.read_bytes()[:60])
    batch = UnitDataset(run, chain(), SIZE)[0]
    assert batch["rejected"] == [(broken, "GM-D003")]
    assert batch["sources"] == [whole]
    assert batch["seeds"] == [run.image_seed(whole)]
    assert len(batch["image"]) == len(batch["frames"]) == 1


def test_a_unit_without_a_readable_image_is_an_empty_batch(run) -> None:
    for source in run.units[0]:
        source.path.unlink()
    batch = UnitDataset(run, chain(), SIZE)[0]
    assert batch["image"].shape == (0, 1, SIZE, SIZE)
    assert [code for _, code in batch["rejected"]] == ["GM-D001", "GM-D001"]


@pytest.mark.parametrize("error", [UsageError("GM-U062", "a wrong config"), KeyError("a bug"), KeyboardInterrupt()])
def test_what_is_no_fault_of_the_image_stops_the_run(run, error) -> None:
    def fail(item: Any) -> Any:
        raise error

    with pytest.raises(type(error)):
        UnitDataset(run, fail, SIZE)[0]


def test_the_evaluator_gets_images_and_seeds() -> None:
    image = torch.rand(2, 1, 4, 4)
    inputs, targets, args, kwargs = unit_batch({"image": image, "seeds": [3, 4]}, torch.device("cpu"))
    assert torch.equal(inputs, image)
    assert (targets, args, kwargs) == (None, (), {"seeds": [3, 4]})


class _Writer:
    def __init__(self, called: list[str], statuses: list[str]) -> None:
        self.called = called
        self.run = SimpleNamespace(rows=lambda: iter([{"status": status} for status in statuses]))

    def finish(self) -> None:
        self.called.append("finish")


def _evaluator(called: list[str], pending: int) -> SimpleNamespace:
    return SimpleNamespace(data_loader=range(pending), run=lambda: called.append("run"))


@pytest.mark.parametrize("pending", [0, 2])
def test_where_all_is_done_only_the_tables_are_written(pending) -> None:
    called: list[str] = []
    run_units(_evaluator(called, pending), _Writer(called, ["anonymized", "rejected"]))
    assert called == (["run"] if pending else ["finish"])


@pytest.mark.parametrize("pending", [0, 2])
def test_the_program_says_by_its_exit_code_that_an_image_was_rejected(pending, monkeypatch) -> None:
    program = SimpleNamespace(__spec__=SimpleNamespace(name="monai.bundle.__main__"))
    monkeypatch.setitem(sys.modules, "__main__", program)
    run_units(_evaluator([], pending), _Writer([], ["anonymized"]))
    with pytest.raises(SystemExit) as ended:
        run_units(_evaluator([], pending), _Writer([], ["anonymized", "rejected"]))
    assert ended.value.code == 1
