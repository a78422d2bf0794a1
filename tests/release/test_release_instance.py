"""Instances: kept and read again, with nothing in them that a release may not hold."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from pydicom import Dataset

from gmia_monai.dicom.decode import Decoded
from gmia_monai.dicom.release_header import Derivation, HeaderRules
from gmia_monai.dicom.source_header import SourceHeader
from gmia_monai.errors import IntegrityError
from gmia_monai.release.instance import Instance, instance_handle, read_instance, write_instance

KEY = bytes(range(32))
HEADER = SourceHeader("CR", "JANE", "1.2.77", "1.2.88", "1.2.99", accession="ACC", sex="F", age_years=40, view="PA")
DONE = Derivation("drawn anew", "a" * 64, "0.1.0", True, 64, (0, 0))


def _taken(path: str = "JANE/a.dcm", digest: str = "d" * 64, key: bytes = KEY, **more) -> Instance:
    levels = np.random.default_rng(0).integers(0, 65536, (90, 120), dtype=np.uint16)
    image = Decoded(levels, "dicom", "MONOCHROME1", 12, HEADER)
    return Instance.taken_from(key, path, digest, replace(image, **more), HeaderRules(), DONE, 64)


def test_an_instance_is_kept_and_read(tmp_path):
    path, one = tmp_path / "a.npz", _taken()
    assert read_instance(path) is None
    write_instance(one, path)
    again = read_instance(path)
    assert np.array_equal(again.image, one.image) and one.image.shape == (64, 64)
    assert {k: v for k, v in vars(again).items() if k != "image"} == {
        k: v for k, v in vars(one).items() if k != "image"
    }
    assert (again.rows, again.columns, again.bits, again.photometric) == (90, 120, 12, "MONOCHROME1")
    header = Dataset.from_json(again.header["dataset"])
    assert header.PatientID == again.patient and "64 x 64" in header.DerivationDescription
    stopped = one.stopped("held", ("GM-H001",))
    write_instance(stopped, path)
    assert read_instance(path).codes == ("GM-H001",) and read_instance(path).image is not None


def test_nothing_of_the_source_s_header_is_kept(tmp_path):
    write_instance(_taken(), tmp_path / "a.npz")
    raw = (tmp_path / "a.npz").read_bytes() + json.dumps(vars(_taken()), default=str).encode()
    for token in (b"JANE", b"1.2.77", b"1.2.88", b"1.2.99", b"ACC", b"dddddddd"):
        assert token not in raw


def test_names_are_by_identifier_handles_by_place_and_content_by_content():
    one, moved, copy = _taken(), _taken("b.dcm"), _taken(digest="e" * 64)
    assert one.handle == instance_handle(KEY, "JANE/a.dcm") != moved.handle and one.name == moved.name
    assert one.content == moved.content != copy.content
    other = _taken(key=bytes(32))
    assert not {one.handle, one.name, one.content, one.patient} & {
        other.handle,
        other.name,
        other.content,
        other.patient,
    }
    bare, other_bare = _taken(header=None, format="png"), _taken(header=None, format="png", digest="e" * 64)
    assert bare.header is None and bare.patient != other_bare.patient and bare.name != other_bare.name


@pytest.mark.parametrize("raw", [b"", b"PK\x03\x04", b"\x93NUMPY"])
def test_a_damaged_file_is_refused(tmp_path, raw):
    (tmp_path / "a.npz").write_bytes(raw)
    with pytest.raises(IntegrityError, match="GM-W303"):
        read_instance(tmp_path / "a.npz")


def test_a_state_that_cannot_be_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    for wrong in (
        replace(_taken(), state="released"),
        replace(_taken(), codes=("GM-H001",)),
        replace(_taken(), image=None),
    ):
        write_instance(wrong, path)
        with pytest.raises(IntegrityError, match="GM-W303"):
            read_instance(path)
