"""What can be refused before the first image is read: folders, names, the device, sizes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from gmia_monai.attacks.attackers import make_attackers
from gmia_monai.errors import UsageError
from gmia_monai.evaluation.read import release_files
from gmia_monai.evaluation.suite import checked_attacks
from gmia_monai.typing import PathLike

__all__ = ["MIN_SIDE", "check_device", "check_folder", "check_judgement", "check_release"]

MIN_SIDE = 32


def check_release(
    released: PathLike, links: PathLike | None = None, labels: PathLike | None = None, image_size: int = MIN_SIDE
) -> None:
    """Refuses files of a release that are not there, and a size that is none.

    Raises:
        UsageError: ``GM-U320`` no released images, ``GM-U321`` no such links, ``GM-U371`` no such labels, ``GM-U372``
            an image size below :data:`MIN_SIDE`.
    """
    if image_size < MIN_SIDE:
        raise UsageError("GM-U372", "the images would be too small", got=image_size, expected=f"{MIN_SIDE} or more")
    if not released:
        raise UsageError("GM-U320", "no release is given", next_step="name the folder of the released images")
    release_files(released)
    for path, code, name in ((links, "GM-U321", "links"), (labels, "GM-U371", "labels")):
        if path is not None and not Path(path).is_file():
            raise UsageError(code, f"the {name} file is not there", got=Path(path).name, next_step=f"check --{name}")


def check_judgement(
    attacks: Sequence[str] | None,
    attackers: Sequence[str] | None,
    device: str,
    folders: Sequence[PathLike | None],
    show_images: int = 0,
) -> None:
    """Refuses unknown names, a device that is not there, and folders that cannot be made.

    Args:
        attacks: names; None: all.
        attackers: names; None: all.
        device: where networks will run.
        folders: that will be written to; None or empty: none.
        show_images: patients whose images the report shows.

    Raises:
        UsageError: ``GM-U323`` an attack, ``GM-U319`` an attacker that is none, ``GM-U373`` a device, ``GM-U374`` a
            folder, ``GM-U375`` a number of patients to show that cannot be used.
    """
    checked_attacks(attacks)
    make_attackers(list(attackers or ()))
    if show_images < 0:
        raise UsageError("GM-U375", "fewer than no images to show", got=show_images, expected="0 or more")
    check_device(device)
    for folder in folders:
        check_folder(folder)


def check_device(device: str) -> None:
    """Refuses a device that this installation cannot compute on.

    Raises:
        UsageError: ``GM-U373``.
    """
    try:
        torch.zeros(1, device=device).tolist()
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        available = "cpu or cuda" if torch.cuda.is_available() else "cpu; no usable GPU is found here"
        raise UsageError("GM-U373", "the device cannot be used", got=device, expected=available) from error


def check_folder(folder: PathLike | None) -> None:
    """Refuses a folder that is a file, or would stand below one.

    Raises:
        UsageError: ``GM-U374``.
    """
    if not folder:
        return
    path = Path(folder).absolute()
    there = next(place for place in (path, *path.parents) if place.exists())
    if not there.is_dir():
        raise UsageError(
            "GM-U374",
            "results cannot be written there",
            got=f"{there.name} is a file",
            expected="a folder, or a place for a new one",
            next_step="check --output-dir and --cache-dir",
        )
