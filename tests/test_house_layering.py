"""The layering of the package and its rule on heavy imports, read from the syntax tree of every file."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "gmia_monai"
NAME = PACKAGE.name

# Highest room first. A file may import from its own line and from the lines before it.
LAYERS = (
    ("errors", "typing"),
    ("dicom",),
    ("weights",),
    ("data",),
    ("transforms",),
    ("networks",),
    ("losses",),
    ("metrics",),
    ("engines", "handlers"),
    ("inferers",),
    ("anonymizers",),
    ("attacks",),
    ("evaluation",),
    ("release",),
    ("report",),
    ("workflows",),
    ("review", "deploy", "cli"),
)
RANK = {room: rank for rank, line in enumerate(LAYERS) for room in line}

TORCH_FREE_ROOMS = ("errors", "typing", "dicom")
HEAVY = ("matplotlib", "mlflow", "torchvision", "lpips")
# Nothing of this may be loaded by `import gmia_monai`.
NOT_ON_IMPORT = ("monai", "mlflow", "matplotlib", "torchvision")
ONLY_IN = {"safetensors": ("weights",)}
NOT_IN = {"monai": ("release",)}


def room_of(parts: tuple[str, ...]) -> str:
    """First part below the package: a folder or a top-level module; "" for the package itself."""
    return parts[0].removesuffix(".py").replace("__init__", "")


def is_type_checking(node: ast.stmt) -> bool:
    """True for ``if TYPE_CHECKING:``, whose imports never run."""
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def imports(tree: ast.Module, module: tuple[str, ...]) -> Iterator[tuple[int, str, bool]]:
    """Yield (line, dotted name, runs when the file is imported) of each import; relative ones are made absolute."""
    stack: list[tuple[ast.AST, bool]] = [(tree, True)]
    while stack:
        node, runs = stack.pop()
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, runs
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(module[: len(module) - node.level]) if node.level else ""
            origin = ".".join(part for part in (base, node.module or "") if part)
            for alias in node.names:
                yield node.lineno, f"{origin}.{alias.name}", runs
        inner = runs and not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for child in ast.iter_child_nodes(node):
            off = isinstance(node, ast.If) and is_type_checking(node) and child in node.body
            stack.append((child, inner and not off))


def violations(root: Path) -> list[str]:
    """Every breach of the layering or of the import rules below the package folder ``root``."""
    found = []
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        room = room_of(parts)
        where = path.relative_to(root.parent).as_posix()
        if room and room not in RANK:
            found.append(f"{where}: room '{room}' is not in the list of rooms")
            continue
        module = (root.name, *parts[:-1], path.stem)
        for line, name, runs in imports(ast.parse(path.read_text(encoding="utf-8")), module):
            top, _, rest = name.partition(".")
            target = rest.partition(".")[0]
            if top == root.name and room and target in RANK and RANK[target] > RANK[room]:
                found.append(f"{where}:{line}: '{room}' is above '{target}' and may not import it")
            if room in TORCH_FREE_ROOMS and top in ("torch", "monai"):
                found.append(f"{where}:{line}: '{room}' may not import {top}, not even in a function")
            if top in HEAVY and runs:
                found.append(f"{where}:{line}: {top} is imported when the module is; import it where it is used")
            if top in ONLY_IN and room not in ONLY_IN[top]:
                found.append(f"{where}:{line}: only {', '.join(ONLY_IN[top])} may import {top}")
            if room in NOT_IN.get(top, ()):
                found.append(f"{where}:{line}: '{room}' may not import {top}")
    return found


def loaded_after(statement: str, suspects: tuple[str, ...]) -> list[str]:
    """Names in ``suspects`` that a fresh interpreter has loaded after ``statement``."""
    code = f"{statement}\nimport sys\nprint(*[m for m in {suspects!r} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    return run.stdout.split()


def test_no_file_breaks_the_layering_or_the_import_rules():
    found = violations(PACKAGE)
    assert not found, "\n" + "\n".join(found)


PLANTED = {
    "dicom/a.py": ("from gmia_monai.data import phantom", "'dicom' is above 'data'"),
    "data/b.py": ("def f():\n    from ..cli.main import app", "'data' is above 'cli'"),
    "losses/c.py": ("from gmia_monai import workflows", "'losses' is above 'workflows'"),
    "dicom/d.py": ("def f():\n    import torch.nn", "may not import torch"),
    "metrics/e.py": ("import matplotlib.pyplot as plt", "matplotlib is imported"),
    "metrics/f.py": ("class A:\n    from mlflow import log_metric", "mlflow is imported"),
    "networks/g.py": ("from safetensors.torch import load_file", "only weights may import safetensors"),
    "release/h.py": ("def f():\n    import monai", "'release' may not import monai"),
    "misc/i.py": ("import json", "room 'misc' is not in the list"),
    "errors.py": ("from .typing import x\nfrom . import dicom", "'errors' is above 'dicom'"),
}
ALLOWED = {
    "__init__.py": "def __getattr__(name):\n    from .cli import main",
    "weights.py": "import safetensors\nimport torch\nfrom .errors import GmiaError\nfrom gmia_monai import __version__",
    "report/a.py": "def f():\n    import matplotlib.pyplot\nfrom ..data.phantom import x\nfrom .b import y",
    "report/b.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import mlflow\nelse:\n    import json",
    "handlers/a.py": "from ..engines import trainer",
    "engines/a.py": "from gmia_monai.handlers.ema import Ema",
}


def plant(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / NAME / name).parent.mkdir(parents=True, exist_ok=True)
        (root / NAME / name).write_text(text + "\n", encoding="utf-8")
    return root / NAME


@pytest.mark.parametrize("name", PLANTED)
def test_checker_finds_a_planted_violation(tmp_path, name):
    text, message = PLANTED[name]
    found = violations(plant(tmp_path, {name: text}))
    assert len(found) == 1
    assert found[0].startswith(f"{NAME}/{name}") and message in found[0]


def test_checker_accepts_what_is_allowed(tmp_path):
    assert violations(plant(tmp_path, ALLOWED)) == []


def test_import_of_the_package_loads_nothing_heavy():
    assert loaded_after(f"import {NAME}", NOT_ON_IMPORT) == []
    assert loaded_after("import json", ("json", "mlflow")) == ["json"]


def test_torch_free_rooms_load_neither_torch_nor_monai():
    files = [
        path for room in TORCH_FREE_ROOMS for path in (*PACKAGE.glob(f"{room}.py"), *PACKAGE.glob(f"{room}/**/*.py"))
    ]
    modules = [".".join((NAME, *path.relative_to(PACKAGE).with_suffix("").parts)) for path in files]
    assert len(modules) >= 3
    assert loaded_after("import " + ", ".join(modules), ("torch", "monai")) == []


def test_what_decides_a_release_loads_neither_torch_nor_monai():
    names = ("gate", "ledger", "parts", "places", "plan", "policy", "reasons", "runner", "verify", "workshop")
    modules = [f"{NAME}.release.{name}" for name in names]
    assert loaded_after("import " + ", ".join(modules), ("torch", "monai", "mlflow", "sklearn")) == []
