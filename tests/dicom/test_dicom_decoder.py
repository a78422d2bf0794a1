"""The decoder: what the child gives is what decoding gives, and no file costs more than itself."""

from __future__ import annotations

import io
import os
import struct
import time

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from gmia_monai.dicom import decoder as module
from gmia_monai.dicom.decode import decode_bytes
from gmia_monai.dicom.decoder import Decoder, read_file
from gmia_monai.errors import InputError

RNG = np.random.default_rng(0)


def dicom(pixels: np.ndarray | None = None, syntax: str = ExplicitVRLittleEndian, **more) -> bytes:
    """A CR file."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID, dataset.SOPInstanceUID = ComputedRadiographyImageStorage, "1.2.3"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.PatientID = "1.2", "1.2.1", "77"
    dataset.ViewPosition, dataset.BodyPartExamined = "PA", "CHEST"
    levels = RNG.integers(0, 4096, (40, 48), dtype=np.uint16) if pixels is None else pixels
    dataset.set_pixel_data(levels, "MONOCHROME2", 12, generate_instance_uid=False)
    for keyword, value in more.items():
        setattr(dataset, keyword, value)
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def png(mode: str = "L", **more) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (40, 48), dtype=np.uint8)).convert(mode).save(buffer, "PNG", **more)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def child():
    with Decoder(seconds=20.0) as decoder:
        yield decoder


def test_the_child_gives_what_decoding_gives(child):
    for raw in (dicom(), dicom(syntax=DeflatedExplicitVRLittleEndian), png(), png("RGB")):
        ours, theirs = decode_bytes(raw), child.decode(raw)
        assert np.array_equal(ours.levels, theirs.levels) and ours.about() == theirs.about()
    levels = np.array([[0, 4095] * 24] * 40, dtype=np.uint16)
    assert decode_bytes(dicom(levels)).levels.max() == 65535 and decode_bytes(dicom(levels)).header.view == "PA"


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", "GM-D002"),
        (b"%PDF-1.4", "GM-D002"),
        (b"\x7fELF" + bytes(300), "GM-D002"),
        (dicom()[:-500], "GM-D003"),
        (dicom(NumberOfFrames=2), "GM-D005"),
        (dicom(Rows=3), "GM-D006"),
        (dicom(np.full((40, 48), 7, np.uint16)), "GM-D007"),
        (dicom(SOPClassUID="1.2.840.10008.5.1.4.1.1.2"), "GM-D020"),
        (dicom(PatientID=""), "GM-D021"),
        (dicom(Rows=65535, Columns=65535), "GM-D010"),
        (png()[:200], "GM-D003"),
        (png("1"), "GM-D011"),
    ],
    ids=str,
)
def test_what_cannot_be_taken_has_a_code_in_the_child_too(child, raw, code):
    with pytest.raises(InputError, match=code):
        decode_bytes(raw)
    with pytest.raises(InputError, match=code):
        child.decode(raw)


def test_deep_wide_and_growing_files_are_refused(child):
    deep = Dataset()
    for _ in range(40):
        outer = Dataset()
        outer.ReferencedStudySequence = [deep]
        deep = outer
    wide = [Dataset() for _ in range(30_000)]
    for item in wide:
        item.CodeValue = "1"
    growing = dicom(syntax=DeflatedExplicitVRLittleEndian, ImageComments="a" * 30_000_000)
    for raw, code in (
        (dicom(ReferencedStudySequence=[deep]), "GM-D024"),
        (dicom(ReferencedStudySequence=wide), "GM-D024"),
        (growing, "GM-D023"),
    ):
        with pytest.raises(InputError, match=code):
            child.decode(raw)


def test_errors_quote_nothing_of_the_file(child):
    for raw in (
        dicom(PatientName="Doe^Jane", SOPClassUID="1.2.99"),
        dicom(PatientName="Doe^Jane", Rows=0),
        png()[:99],
    ):
        with pytest.raises(InputError) as raised:
            child.decode(raw)
        assert "Doe" not in str(raised.value) and "1.2.99" not in str(raised.value)


def test_a_child_that_hangs_dies_or_lies_costs_one_file(monkeypatch):
    with Decoder(seconds=2.0) as decoder:
        decoder.decode(png())
        popen = module.subprocess.Popen
        for sabotage in (
            "import time; _serve_ = 0; time.sleep(60)",
            "import os; os._exit(3)",
            "import os, struct; os.write(1, struct.pack('<QQ', 2, 0) + b'[]')",
            "import os, struct; os.write(1, struct.pack('<QQ', 1 << 60, 0))",
            "import os; os.write(1, b'+' * 9)",
        ):
            decoder.close()
            start = "import os, sys; os.write(1, b'+'); sys.stdin.buffer.read(8); "
            instead = lambda command, code=start + sabotage, **k: popen([command[0], "-c", code], **k)  # noqa: E731
            monkeypatch.setattr(module.subprocess, "Popen", instead)
            began = time.monotonic()
            with pytest.raises(InputError, match="GM-D027"):
                decoder.decode(png())
            assert time.monotonic() - began < 30
            monkeypatch.undo()
            assert decoder.decode(png()).bits == 8


def test_memory_of_the_child_is_limited():
    with Decoder(seconds=20.0, memory_mib=64) as decoder:
        decoder.decode(png())
        with pytest.raises(InputError, match="GM-D0(27|03)"):
            decoder.decode(dicom(np.tile(np.arange(4000, dtype=np.uint16), (6000, 1))))
        decoder.decode(png())


def test_no_secret_of_the_environment_reaches_the_child(monkeypatch):
    monkeypatch.setenv("GMIA_SECRET", "x")
    with Decoder() as decoder:
        child = decoder._started()
        assert b"GMIA_SECRET" not in open(f"/proc/{child.pid}/environ", "rb").read()  # noqa: PTH123, SIM115


def test_files_are_read_once_and_only_plain_ones(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"content")
    raw, digest = read_file(path, 100)
    assert raw == b"content" and len(digest) == 64
    link, pipe, hole = tmp_path / "link", tmp_path / "pipe", tmp_path / "hole"
    link.symlink_to(path)
    os.mkfifo(pipe)
    with hole.open("wb") as stream:
        stream.truncate(1 << 32)
    for wrong, code in (
        (link, "GM-D025"),
        (pipe, "GM-D025"),
        (tmp_path, "GM-D025"),
        (tmp_path / "none", "GM-D001"),
        (hole, "GM-D026"),
    ):
        with pytest.raises(InputError, match=code):
            read_file(wrong, 1 << 20)


def test_the_length_of_an_answer_is_that_of_the_levels(child):
    assert struct.calcsize("<QQ") == 16
    assert child.decode(dicom(np.zeros((33, 37), np.uint16) + np.eye(33, 37, dtype=np.uint16))).levels.shape == (33, 37)
