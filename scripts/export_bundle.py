"""Writes a self-contained bundle folder, which trains and infers where gmia_monai is not installed.

    python scripts/export_bundle.py --output_dir exported/gmia_monai

The folder holds configs, docs, licence, the recorded weights, ``models/model.pt`` (the plain state dict of
``network_def``, as the model zoo and MONAI Deploy expect it) and the package. Commands run from inside it.
"""

from __future__ import annotations

import argparse
import json
import re
import secrets
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import yaml
from monai.bundle import ConfigParser
from torch import Tensor, nn

from gmia_monai.errors import GmiaError, IntegrityError, UsageError, coded_cause
from gmia_monai.networks import fill_anonymizer
from gmia_monai.weights import INDEX, read_index, sha256_of

__all__ = ["MAX_BYTES", "export_bundle", "halved", "main"]

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "bundle"
PACKAGE = ROOT / "gmia_monai"
MAX_BYTES = 25_000_000  # a file of the model zoo
URL = "https://example.org/replace-me"
TEXT = {".yaml", ".yml", ".json", ".md"}
_ROOT_LINE = re.compile(r"^bundle_root:.*$", re.MULTILINE)
_PATH = re.compile(r"(?<![\w./-])bundle/(?=(?:configs|docs|models)\b)")
# What an export and the runs of Python in it leave; anything else, such as trained weights, is never deleted.
_CONTENT = {"LICENSE", "configs", "docs", "gmia_monai", "large_files.yml", "models", "__pycache__"}
_UNWANTED = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")


def from_inside(text: str) -> str:
    """A config or a page of the docs, with its paths as they are seen from inside the exported folder."""
    return _PATH.sub("", _ROOT_LINE.sub("bundle_root: .", text))


def halved(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights in float16; vectors and scalars, which are small and hold the statistics, as they are.

    Raises:
        IntegrityError: ``GM-W020`` for a value beyond the range of float16.
    """
    half = {k: v.half() if v.is_floating_point() and v.ndim > 1 else v for k, v in state.items()}
    for name, tensor in half.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise IntegrityError("GM-W020", f"{name} does not fit into float16", next_step="train with weight decay")
    return half


def export_bundle(output_dir: Path, models_dir: Path, url: str = URL, max_bytes: int = MAX_BYTES) -> list[str]:
    """Writes the bundle beside ``output_dir`` and then renames it, so that no half-written bundle is left.

    Args:
        output_dir: folder to write; an earlier export there is replaced.
        models_dir: folder with ``index.json`` and the weights that it records.
        url: where files over the limit will be found, without the file's own path.
        max_bytes: limit of a file; ``model.pt`` goes to float16 above it, and what is still above it is listed in
            ``large_files.yml``.

    Returns:
        lines that say what was written.

    Raises:
        UsageError: ``GM-U090`` the folder holds something else than an export, e.g. the output of a training.
        IntegrityError: ``GM-W001`` … ``GM-W006`` of the weights, ``GM-W020``, ``GM-W021``.
    """
    output_dir, models_dir = output_dir.absolute(), models_dir.absolute()
    _check_target(output_dir)
    network = _network(models_dir)
    temporary = output_dir.with_name(f".{output_dir.name}-{secrets.token_hex(4)}")
    try:
        _copy_tree(temporary)
        _copy_weights(models_dir, temporary / "models")
        lines = [_save_model(network, temporary / "models" / "model.pt", max_bytes)]
        lines += _list_large_files(temporary, url, max_bytes)
        _replace(output_dir, temporary)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    files = [path for path in output_dir.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    return [f"{output_dir}: {len(files)} files, {_mb(size)}", *lines]


def _check_target(target: Path) -> None:
    resolved = target.resolve()
    own = [path for path in (SOURCE, PACKAGE) if resolved == path or path in resolved.parents]
    found = {path.name for path in target.iterdir()} if target.is_dir() else set()
    exported = found <= _CONTENT and {"configs", PACKAGE.name} <= found
    if own or (target.exists() and not (target.is_dir() and (exported or not found))):
        raise UsageError(
            "GM-U090",
            "the output folder holds something else than an exported bundle",
            got=", ".join(sorted(found - _CONTENT)[:3]) or target.name,
            expected="a new or empty folder, or an earlier export",
            next_step="choose another --output_dir",
        )


def _network(models_dir: Path) -> nn.Module:
    """``network_def`` of the configs, filled with the recorded weights."""
    shapes = []
    for name in ("inference", "inference_deploy"):
        parser = ConfigParser()
        parser.read_config(SOURCE / "configs" / f"{name}.yaml")
        network = fill_anonymizer(parser.get_parsed_content("network_def"), models_dir)
        shapes.append([parser.get_parsed_content("image_size")] * 2)
    metadata = json.loads((SOURCE / "configs" / "metadata.json").read_text())
    for tensor in (
        metadata["network_data_format"]["inputs"]["image"],
        metadata["network_data_format"]["outputs"]["pred"],
    ):
        if any(tensor["spatial_shape"] != shape for shape in shapes):
            raise IntegrityError(
                "GM-W021", "metadata.json names another image size", got=tensor["spatial_shape"], expected=shapes[0]
            )
    return network


def _copy_tree(target: Path) -> None:
    for folder in ("configs", "docs"):
        shutil.copytree(SOURCE / folder, target / folder, ignore=_UNWANTED)
        for path in (target / folder).rglob("*"):
            if path.suffix in TEXT:
                path.write_text(from_inside(path.read_text(encoding="utf-8")), encoding="utf-8")
    shutil.copy(SOURCE / "LICENSE", target / "LICENSE")
    shutil.copytree(PACKAGE, target / PACKAGE.name, ignore=_UNWANTED)


def _copy_weights(source: Path, target: Path) -> None:
    target.mkdir()
    for name, entry in read_index(source).items():
        path = source / entry["file"]
        if path.parent != source or not path.is_file() or sha256_of(path) != entry["sha256"]:
            raise IntegrityError("GM-W002", f"the {name} weights are not the file that was recorded")
        shutil.copy(path, target / path.name)
        (target / path.name).chmod(0o644)
    shutil.copy(source / INDEX, target / INDEX)


def _save_model(network: nn.Module, path: Path, max_bytes: int) -> str:
    state = network.state_dict()
    torch.save(state, path)
    size = path.stat().st_size
    if size <= max_bytes:
        return f"models/model.pt: float32, {_mb(size)}"
    torch.save(halved(state), path)
    return f"models/model.pt: float16, {_mb(path.stat().st_size)} ({_mb(size)} in float32 is over {_mb(max_bytes)})"


def _list_large_files(folder: Path, url: str, max_bytes: int) -> list[str]:
    large = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size > max_bytes]
    if not large:
        return []
    names = [path.relative_to(folder).as_posix() for path in large]
    entries = [
        {"path": name, "url": f"{url.rstrip('/')}/{name}", "hash_val": sha256_of(path), "hash_type": "sha256"}
        for name, path in zip(names, large, strict=True)
    ]
    (folder / "large_files.yml").write_text(yaml.safe_dump({"large_files": entries}, sort_keys=False))
    lines = [
        f"{name}: {_mb(path.stat().st_size)} is over {_mb(max_bytes)}: listed in large_files.yml, not for the zoo's git"
        for name, path in zip(names, large, strict=True)
    ]
    if url == URL:
        lines.append("large_files.yml has a placeholder for the address: give --url where you upload the files")
    return lines


def _replace(target: Path, temporary: Path) -> None:
    old = temporary.with_name(f"{temporary.name}-old")
    if target.exists():
        target.rename(old)
    try:
        temporary.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _mb(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:.1f} MB"


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(description="Write a self-contained bundle folder.")
    parser.add_argument("--output_dir", type=Path, default=ROOT / "exported" / "gmia_monai")
    parser.add_argument("--models_dir", type=Path, default=SOURCE / "models")
    parser.add_argument("--url", default=URL, help="where files over 25 MB will be found (for large_files.yml)")
    options = parser.parse_args(arguments)
    try:
        lines = export_bundle(options.output_dir, options.models_dir, options.url)
    except Exception as error:  # noqa: BLE001 - the config parser wraps coded errors; others are raised again
        coded: GmiaError | None = coded_cause(error)
        if coded is None:
            raise
        print(f"error: {coded}", file=sys.stderr)
        return int(coded.exit_code)
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
