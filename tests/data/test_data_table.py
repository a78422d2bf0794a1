from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from gmia_monai.data.table import Problems, read_columns, read_table
from gmia_monai.errors import ManifestError


def test_rows_are_numbered_as_in_an_editor(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('a,b\n\n 1 ,"x\ny"\n\n\n3,4\n')
    assert list(read_table(path)) == [(1, ["a", "b"]), (3, ["1", "x\ny"]), (7, ["3", "4"])]


def test_gzip_and_ragged_rows(tmp_path):
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(b"a,b,\n1\n1,2,3,4\n"))
    assert list(read_columns(path, ("a",))) == [(2, {"a": "1", "b": "", "": ""}), (3, {"a": "1", "b": "2", "": "3"})]
    with pytest.raises(ManifestError, match="GM-M010 t.csv.gz lacks columns; got: no c"):
        list(read_columns(path, ("a", "c")))


def test_no_problem_no_error():
    Problems(Path("t.csv")).raise_if_any()


def test_one_problem():
    problems = Problems(Path("/secret/t.csv"))
    problems.add("GM-M099", "is odd", 3, "a")
    with pytest.raises(ManifestError) as error:
        problems.raise_if_any("fix it")
    text = str(error.value)
    assert "1 problem in t.csv" in text and "t.csv: row 3, column a: is odd [GM-M099]" in text and "fix it" in text
    assert "secret" not in text
