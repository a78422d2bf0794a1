"""The writer: files in the input's size and depth, honest figures, nothing half-written, nothing of the source."""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
import torch
from monai.engines import SupervisedEvaluator
from monai.transforms import Compose
from PIL import Image
from tiny_bundle import SIZE, ToyNet

from gmia_monai.data import AnonymizationRun
from gmia_monai.data.phantom import Acquisition, Identity, generate_cohort, phantom_image
from gmia_monai.engines import UnitDataset, run_units, unit_batch, unit_loader
from gmia_monai.handlers import AnonymizationWriter
from gmia_monai.handlers.anonymization import COLUMNS
from gmia_monai.inferers import LatentOptimizationInferer
from gmia_monai.transforms import CentreSquared, LoadRadiographd, ResizeSquared, read_radiograph

LOAD = LoadRadiographd("image", track_meta=True)
CHAIN = Compose([LOAD, CentreSquared("image"), ResizeSquared("image", SIZE)])
SETTINGS: dict[str, Any] = {"margin_cos": -0.6, "max_steps": 60}


@pytest.fixture
def toy() -> ToyNet:
    return ToyNet(SIZE)


def anonymize(
    source: Path, out: Path, net: ToyNet, unit_size: int = 4, fill: str = "edge", **settings: Any
) -> tuple[AnonymizationRun, AnonymizationWriter]:
    settings = {**SETTINGS, **settings}
    run = AnonymizationRun(source, out, settings, unit_size)
    inferer = LatentOptimizationInferer(**settings)
    writer = AnonymizationWriter(run, inferer, net.identity, fill)
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=unit_loader(UnitDataset(run, CHAIN, SIZE)),
        network=net,
        inferer=inferer,
        prepare_batch=unit_batch,
        val_handlers=[writer],
        decollate=False,
    )
    run_units(evaluator, writer)
    return run, writer


def table(out: Path) -> list[dict[str, str]]:
    with (out / "table.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def phantom(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    return phantom_image(Identity.from_seed(seed), Acquisition.from_seed(seed), shape)


@pytest.fixture
def kinds(tmp_path: Path) -> Path:
    """One image of each kind, none of them square but two."""
    folder = tmp_path / "in"
    generate_cohort(tmp_path / "cohort", 1, 5, size=64, formats=["dicom"])
    folder.mkdir()
    for file in (tmp_path / "cohort" / "images").glob("*.dcm"):
        file.rename(folder / file.name)
    Image.fromarray(np.rint(phantom((48, 60)) * 255).astype(np.uint8)).save(folder / "a8.png")
    Image.fromarray(np.rint(phantom((70, 41)) * 65535).astype(np.uint16)).save(folder / "a16.png")
    Image.fromarray(np.rint(phantom((50, 52)) * 255).astype(np.uint8)).save(folder / "b.jpg", quality=95)
    values = np.rint(phantom((44, 64)) * 3000 - 1000).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(values.T, np.eye(4)), folder / "c.nii.gz")
    nibabel.save(nibabel.Nifti1Image(phantom((40, 40)).T, np.eye(4)), folder / "d.nii")
    return folder


def test_files_come_back_in_the_size_depth_and_kind_of_the_input(kinds, tmp_path, toy) -> None:
    out = tmp_path / "out"
    run, _ = anonymize(kinds, out, toy)
    rows = {row["handle"]: row for row in table(out)}
    assert len(rows) == len(run.sources) == 10
    suffix = {".png": ".png", ".jpg": ".png", ".dcm": ".png", ".gz": ".nii.gz", ".nii": ".nii.gz"}
    for source in run.sources:
        row = rows[source.handle]
        assert row["status"] == "anonymized", row
        file = out / row["file"]
        assert file == out / "images" / f"{source.handle}{suffix[source.path.suffix]}"
        before, frame = read_radiograph(source.path)
        after, written = read_radiograph(file)
        assert after.shape == before.shape
        assert written.bits == (16 if frame.kind == "dicom" and frame.bits > 8 else frame.bits)
        assert (int(row["rows"]), int(row["cols"]), int(row["bits"])) == (frame.rows, frame.cols, frame.bits)
        assert np.abs(after - before).max() > 0.05
    by_name = {s.name: out / rows[s.handle]["file"] for s in run.sources}
    assert Image.open(by_name["a8.png"]).mode == "L"
    assert Image.open(by_name["a16.png"]).mode in ("I;16", "I")
    assert np.asarray(Image.open(by_name["a16.png"])).max() > 255
    assert nibabel.load(by_name["c.nii.gz"]).get_data_dtype() == np.int16
    assert nibabel.load(by_name["c.nii.gz"]).shape[:2] == (64, 44)
    assert nibabel.load(by_name["d.nii"]).get_data_dtype() == np.float32
    shapes = {Image.open(path).size for name, path in by_name.items() if name.endswith(".dcm")}
    assert shapes == {(64, 64), (64, 72)}


def test_the_cosine_is_that_of_the_file_as_an_attacker_reads_it(kinds, tmp_path, toy) -> None:
    out = tmp_path / "out"
    run, _ = anonymize(kinds, out, toy)
    rows = {row["handle"]: row for row in table(out)}
    for source in run.sources:
        # NIfTI of integers has no range of its own: a reader takes the extremes of what it finds.
        if source.name == "c.nii.gz":
            continue
        row = rows[source.handle]
        pair = [CHAIN({"image": str(path)})["image"][None] for path in (source.path, out / row["file"])]
        a, b = (toy.identity(image)[0].double().numpy() for image in pair)
        cos = float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
        assert float(row["cos_after"]) == pytest.approx(cos, abs=2e-6)
        assert float(row["cos_before"]) > float(row["cos_after"])


def test_rounding_and_resampling_show_in_the_cosine(tmp_path, toy) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    Image.fromarray(np.rint(phantom((45, 45)) * 255).astype(np.uint8)).save(folder / "a.png")
    anonymize(folder, tmp_path / "out", toy)
    (row,) = table(tmp_path / "out")
    assert row["converged"] == "1" and float(row["cos_optimized"]) <= -0.6
    assert row["cos_after"] != row["cos_optimized"]


def test_the_table(kinds, tmp_path, toy) -> None:
    (kinds / "broken.png").write_bytes(b"\x89PNG")
    out = tmp_path / "out"
    run, writer = anonymize(kinds, out, toy, start_noise=0.1)
    rows = table(out)
    assert list(rows[0]) == COLUMNS
    assert [row["handle"] for row in rows] == [s.handle for s in run.sources]
    assert {row["release"] for row in rows} == {"not released"}
    for row, source in zip(rows, run.sources, strict=True):
        if source.name == "broken.png":
            assert (row["status"], row["reason"], row["file"]) == ("rejected", "GM-D003", "")
            assert row["steps"] == row["cos_after"] == ""
        else:
            assert (row["status"], row["reason"]) == ("anonymized", "")
            assert 1 <= int(row["steps"]) <= 60 and row["converged"] in "01"
            assert int(row["seed"]) == run.image_seed(source)
            assert float(row["utility_drift"]) >= 0 and float(row["seconds"]) >= 0
    assert "Not released" in (out / "NOT_RELEASED.txt").read_text()


def test_of_dicom_the_pixels_alone_come_out(kinds, tmp_path, toy) -> None:
    out = tmp_path / "out"
    anonymize(kinds, out, toy)
    sources = [pydicom.dcmread(path) for path in sorted(kinds.glob("*.dcm"))]
    old = {str(e.value) for d in sources for e in d.iterall() if e.VR in ("UI", "PN", "LO", "DA", "SH") and e.value}
    assert len(sources) == 5 and len(old) > 20 and not list(out.rglob("*.dcm"))
    written = [path.read_bytes() for path in out.rglob("*") if path.is_file()]
    assert not [value for value in old if len(value) > 5 and any(value.encode() in raw for raw in written)]
    assert all(Image.open(path).info == {} for path in (out / "images").glob("*.png"))


@pytest.fixture
def twelve(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(6):
        Image.fromarray(np.rint(phantom((40, 44), i) * 255).astype(np.uint8)).save(folder / f"{i}.png")
    return folder


def _bytes(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((out / "images").iterdir())}


def _without_time(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


@pytest.mark.parametrize("at_write", [3, 4])
def test_an_interrupted_run_leaves_whole_files_and_goes_on(twelve, tmp_path, toy, monkeypatch, at_write) -> None:
    from gmia_monai.handlers import anonymization
    from gmia_monai.transforms import write

    whole = tmp_path / "whole"
    (tmp_path / "whole.key").write_text("00" * 32)
    (tmp_path / "out.key").write_text("00" * 32)
    for key in ("whole.key", "out.key"):
        (tmp_path / key).chmod(0o600)
    anonymize(twelve, whole, toy, unit_size=2)

    out = tmp_path / "out"
    count: Iterator[int] = iter(range(1, 100))
    real = write.PILWriter.write

    def interrupted(self: Any, filename: Any, **kwargs: Any) -> Any:
        if next(count) == at_write:
            Path(filename).write_bytes(b"half")
            raise KeyboardInterrupt
        return real(self, filename, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(write.PILWriter, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            anonymize(twelve, out, toy, unit_size=2)
    left = [path for path in out.rglob("*") if path.is_file() and path.parent.name == "images"]
    assert len(left) == at_write - 1
    for path in left:
        assert path.read_bytes() == (whole / "images" / path.name).read_bytes()
    assert not [path for path in out.rglob(".*") if path.is_file()], "temporary files are removed"
    assert not (out / "table.csv").exists()

    computed: list[int] = []
    optimize = LatentOptimizationInferer.optimize

    def counted(self: Any, inputs: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        computed.append(len(inputs))
        return optimize(self, inputs, *args, **kwargs)

    monkeypatch.setattr(LatentOptimizationInferer, "optimize", counted)
    anonymize(twelve, out, toy, unit_size=2)
    assert computed == [2, 2], "the finished unit is not done again, the interrupted one is"
    assert _bytes(out) == _bytes(whole)
    assert _without_time(table(out)) == _without_time(table(whole))
    assert anonymization.COLUMNS == list(table(out)[0])


def test_a_second_run_computes_nothing_and_restores_the_table(twelve, tmp_path, toy, monkeypatch, caplog) -> None:
    out = tmp_path / "out"
    anonymize(twelve, out, toy)
    before = (out / "table.csv").read_bytes(), _bytes(out)
    (out / "table.csv").unlink()

    def fail(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(LatentOptimizationInferer, "optimize", fail)
    with caplog.at_level(logging.INFO, "gmia_monai"):
        anonymize(twelve, out, toy)
    assert ((out / "table.csv").read_bytes(), _bytes(out)) == before
    assert "all units are done" in caplog.text


def test_other_settings_write_over_and_are_not_taken_for_the_first(twelve, tmp_path, toy) -> None:
    out = tmp_path / "out"
    anonymize(twelve, out, toy)
    first = _bytes(out)
    anonymize(twelve, out, toy, margin_cos=-0.9)
    assert _bytes(out) != first
    run, _ = anonymize(twelve, out, toy)
    assert _bytes(out) == first
    assert len(list((out / ".units").iterdir())) == len(run.units)


def test_the_fill_is_the_one_asked_for(tmp_path, toy) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    Image.fromarray(np.rint(phantom((40, 80)) * 255).astype(np.uint8)).save(folder / "a.png")
    outside = {}
    for fill in ("edge", "zero"):
        anonymize(folder, tmp_path / fill, toy, fill=fill)
        (path,) = (tmp_path / fill / "images").iterdir()
        outside[fill] = np.asarray(Image.open(path))[:, :20]
    assert (outside["zero"] == 0).all()
    assert len(np.unique(outside["edge"])) == 1 and outside["edge"][0, 0] > 0


def test_progress_is_logged_without_names(twelve, tmp_path, toy, caplog) -> None:
    with caplog.at_level(logging.INFO):
        anonymize(twelve, tmp_path / "out", toy)
    told = [record.getMessage() for record in caplog.records if record.name.startswith("gmia_monai")]
    assert any("4 of 6 images" in text for text in told)
    assert any("6 images anonymized" in text and "0 rejected" in text for text in told)
