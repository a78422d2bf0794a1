"""``gmia doctor``: whether this machine has what a release needs."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

import gmia_monai
from gmia_monai.cli.folders import models_folder
from gmia_monai.errors import ExitCode, GmiaError

__all__ = ["doctor"]

_PACKAGES = ("torch", "monai", "pydicom", "pylibjpeg", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg", "pylibjpeg-rle")
_MIN_FREE_GIB = 1.0


def doctor(
    models_dir: Annotated[Path | None, typer.Option(help="Recorded weights; the bundle's by default.")] = None,
    output: Annotated[Path, typer.Option(help="Where a release would be written.")] = Path(),
) -> None:
    """Look at this machine: packages, decoders, text detector, GPU, weights and their hashes, disk.

    Exit code 3: a file is not what was recorded; 4: something is missing.
    """
    worst = ExitCode.OK
    for name, look in _looks(models_dir, output):
        try:
            typer.echo(f"good     {name}: {look()}")
        except GmiaError as error:
            worst = max(worst, error.exit_code)
            typer.echo(f"missing  {name}: {error}")
        except (OSError, ImportError, importlib.metadata.PackageNotFoundError) as error:
            worst = max(worst, ExitCode.RESOURCES)
            typer.echo(f"missing  {name}: {type(error).__name__}")
    raise typer.Exit(int(worst))


def _looks(models_dir: Path | None, output: Path) -> Iterator[tuple[str, Callable[[], str]]]:
    yield (
        "gmia_monai",
        lambda: f"{gmia_monai.__version__}, Python {sys.version.split()[0]}, {os.cpu_count()} processors",
    )
    for package in _PACKAGES:
        yield package, lambda package=package: importlib.metadata.version(package)
    yield "decoders", _decoders
    yield "text detector", _text
    yield "PS3.15 tables", _tables
    yield "GPU", _gpu
    yield "weights", lambda: _weights(models_folder(models_dir))
    yield "gate", lambda: _gate(models_folder(models_dir))
    yield "disk", lambda: _disk(output)


def _decoders() -> str:
    from gmia_monai.dicom.decoder import Decoder
    from gmia_monai.errors import InputError

    with Decoder() as decoder:
        try:
            decoder.decode(b"no image")
        except InputError:
            pass
    from pydicom.pixels import get_decoder
    from pydicom.uid import AllTransferSyntaxes

    able = []
    for syntax in AllTransferSyntaxes:
        try:
            able.append(get_decoder(syntax).is_available)
        except NotImplementedError:  # pydicom knows it by name alone, as those of video
            continue
    return f"{sum(able)} of {len(able)} transfer syntaxes, in a child process"


def _text() -> str:
    import subprocess

    from gmia_monai.dicom.text import TextDetector

    path = TextDetector().path
    done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=20, check=False)
    return (done.stdout or done.stderr).splitlines()[0]


def _tables() -> str:
    from gmia_monai.dicom.header_check import listed_by_profile
    from gmia_monai.dicom.ps315 import EDITION

    return f"edition {EDITION}; {len(listed_by_profile())} elements in the second table"


def _gpu() -> str:
    import torch

    if not torch.cuda.is_available():
        return "none; processors do the work"
    return ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))


def _weights(folder: Path) -> str:
    from gmia_monai.weights import read_index, read_metadata

    index = read_index(folder)
    for entry in index.values():
        read_metadata(folder / entry["file"], entry["sha256"])
    return f"{len(index)} files, all as recorded"


def _gate(folder: Path) -> str:
    from gmia_monai.release.calibration import read_calibration
    from gmia_monai.release.gate_files import CALIBRATION
    from gmia_monai.release.watching import NetworkWatch

    found, digest = read_calibration(folder / CALIBRATION, dict(NetworkWatch.from_weights(folder).weights))
    return f"calibrated with {found.n_strangers} pairs of {found.n_patients} patients, sha256 {digest[:16]}"


def _disk(output: Path) -> str:
    from gmia_monai.errors import ResourceError

    free = shutil.disk_usage(output).free / 2**30
    if free < _MIN_FREE_GIB:
        raise ResourceError(
            "GM-R090", "little room on the disk", got=f"{free:.1f} GiB", expected=f"{_MIN_FREE_GIB} GiB"
        )
    return f"{free:.0f} GiB free"
