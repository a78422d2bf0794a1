"""What is kept in the repository: sizes, lengths, paths, docstrings, names."""

from __future__ import annotations

import ast
import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAX_BYTES = 25 * 1024 * 1024
MAX_LINES = 400
# A path into somebody's machine. Written so that this line does not match itself.
LOCAL_PATH = re.compile(r"(?<![\w./:*}-])(/(home|Users|root|work|mnt|scratch)/\w+|[A-Z]:\\Users\\\w+)")
MODULES = sorted((ROOT / "gmia_monai").rglob("*.py"))


def tracked_files() -> list[Path]:
    """Files that git tracks, or would with ``git add``."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        run = subprocess.run(command, capture_output=True, cwd=ROOT, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout: the list of tracked files is not to be had")
    paths = [ROOT / name for name in run.stdout.decode("utf-8").split("\0") if name]
    return sorted({path for path in paths if path.is_file()})


def text_of(path: Path) -> str | None:
    """Content of a text file, or None for a binary one."""
    data = path.read_bytes()
    if b"\0" in data[:8192]:
        return None
    return data.decode("utf-8", errors="replace")


def local_paths(text: str) -> list[str]:
    """Absolute paths of one person's machine in ``text``."""
    return [match.group(0) for match in LOCAL_PATH.finditer(text)]


def test_no_tracked_file_is_too_large():
    sizes = {path.relative_to(ROOT).as_posix(): path.stat().st_size for path in tracked_files()}
    assert "setup.cfg" in sizes
    assert {name: size for name, size in sizes.items() if size > MAX_BYTES} == {}


def test_no_local_path_in_tracked_text():
    found = {}
    for path in tracked_files():
        text = text_of(path)
        if text is not None and (hits := local_paths(text)):
            found[path.relative_to(ROOT).as_posix()] = sorted(set(hits))
    assert found == {}


def test_local_path_pattern():
    slash = "/"
    for text in ("open('@home@alice@x.png')", "dir: @work@data", "cd @root@a", "C:\\Users\\bob\\x"):
        assert local_paths(text.replace("@", slash)), text
    for text in ("network@work@x", "https:@@site.org@home@page", "${HOME}@work@x", "..@home@x", "@usr@bin@env"):
        assert not local_paths(text.replace("@", slash)), text


def test_no_data_set_image_is_tracked():
    suspicious = [path for path in tracked_files() if path.suffix.lower() in {".dcm", ".jpg", ".jpeg", ".nii"}]
    assert suspicious == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_module_says_what_it_is(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if not tree.body:
        return
    assert ast.get_docstring(tree), "the module has no docstring"
    if path.name == "__init__.py":
        return
    future = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module == "__future__"]
    assert future, "`from __future__ import annotations` is missing"
    assigned = {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    if not path.name.startswith("_"):
        assert "__all__" in assigned, "`__all__` is missing"


def test_python_files_are_short():
    long = {}
    for folder in ("gmia_monai", "scripts", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            lines = len(path.read_text(encoding="utf-8").splitlines())
            if lines > MAX_LINES:
                long[path.relative_to(ROOT).as_posix()] = lines
    assert long == {}


def test_names_of_test_files_are_unique():
    counts = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert {name: count for name, count in counts.items() if count > 1} == {}
    assert not list((ROOT / "tests").rglob("__init__.py"))
