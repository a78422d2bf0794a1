"""Key file and keyed hashes."""

from __future__ import annotations

import hashlib
import hmac
import os
import stat

import pytest
from pydicom.uid import UID

from gmia_monai.dicom.pseudonyms import create_key, default_key_path, handle, links_path, load_key, uid
from gmia_monai.errors import UsageError

KEY = bytes(range(32))


def test_key_is_random_private_and_never_overwritten(tmp_path):
    old = os.umask(0)
    try:
        path = create_key(tmp_path / "new" / "a.key")
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    key = load_key(path)
    assert len(key) == 32 and key != load_key(create_key(tmp_path / "b.key"))
    with pytest.raises(UsageError, match="GM-U081"):
        create_key(path)
    assert load_key(path) == key


@pytest.mark.parametrize("text", ["", "00" * 31, "zz" * 32, "\u00e9" * 64])
def test_damaged_keys_are_refused(tmp_path, text):
    path = tmp_path / "k"
    path.write_bytes(text.encode())
    path.chmod(0o600)
    with pytest.raises(UsageError, match="GM-U084"):
        load_key(path)


def test_missing_and_open_keys_are_refused(tmp_path):
    with pytest.raises(UsageError, match="GM-U082"):
        load_key(tmp_path / "none")
    path = create_key(tmp_path / "k")
    path.chmod(0o640)
    with pytest.raises(UsageError, match="GM-U083"):
        load_key(path)


def test_handles_depend_on_key_and_name_and_are_hmac():
    expected = hmac.new(KEY, b"handle\0p/1.png", hashlib.sha256).hexdigest()
    assert handle(KEY, "p/1.png") == expected[:16] and handle(KEY, "p/1.png", 64) == expected
    assert handle(KEY, "p/2.png") != handle(KEY, "p/1.png") != handle(bytes(32), "p/1.png")
    with pytest.raises(UsageError, match="GM-U085"):
        handle(KEY, "x", 4)


def test_uids_are_valid_stable_and_unrelated_to_handles():
    first, second = uid(KEY, "a"), uid(KEY, "b")
    assert first == uid(KEY, "a") != second
    assert UID(first).is_valid and first.startswith("2.25.") and len(first) <= 64
    assert f"{int(first[5:]):032x}"[:8] != handle(KEY, "a")[:8]


def test_key_and_links_stand_outside_the_output(tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    monkeypatch.chdir(out)
    for folder in (out, f"{out}/", ".", "../out"):
        assert default_key_path(folder) == tmp_path.resolve() / "out.key"
        assert links_path(folder) == tmp_path.resolve() / "out.links.csv"


def test_a_key_that_cannot_be_made_is_a_coded_error(tmp_path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UsageError, match="GM-U086"):
        create_key(tmp_path / "file" / "project.key")
