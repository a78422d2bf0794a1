"""One door to every data set: a manifest, or a folder in a layout that is known."""

from __future__ import annotations

import difflib
import inspect
import logging
from dataclasses import replace
from pathlib import Path

from gmia_monai.data.cohort import Cohort
from gmia_monai.data.manifest import read_manifest
from gmia_monai.data.sources import SOURCES
from gmia_monai.errors import ManifestError, UsageError
from gmia_monai.typing import PathLike

__all__ = ["load_cohort"]

_log = logging.getLogger(__name__)


def load_cohort(
    manifest: PathLike | None = None,
    dataset_dir: PathLike | None = None,
    image_size: int = 64,
    *,
    source: str | None = None,
    role_key: bytes | str | None = None,
    **options: object,
) -> Cohort:
    """Read a cohort from a manifest or a data set's folder; a manifest wins if both are given.

    Args:
        manifest: CSV of :mod:`gmia_monai.data.manifest`; None or empty if there is none. Its images are looked for
            beside it, then in ``dataset_dir``.
        dataset_dir: folder of a data set; its layout is recognised.
        image_size: side in pixels that the images will be used at; the development folder chooses its images by it.
        source: name of the layout, for a folder that is recognised as another one.
        role_key: key for roles by hash, at least 1 byte.
        options: passed to the source, e.g. ``min_images_per_patient=20`` for MIMIC-CXR-JPG.

    Raises:
        ManifestError: ``GM-M001`` nothing given, ``GM-M002`` no images found, ``GM-M003`` a path that is not there, or
            what the manifest or source refuses.
        UsageError: ``GM-U036`` an option that the source does not have, ``GM-U037`` no such source.
    """
    if manifest:
        _refuse_options(options, (), "a manifest")
        cohort = read_manifest(manifest, fallback_root=dataset_dir or None)
    elif dataset_dir:
        cohort = _read_folder(Path(dataset_dir).expanduser().absolute(), image_size, source, options)
    else:
        raise ManifestError(
            "GM-M001",
            "neither a manifest nor a data set is given",
            next_step="name the manifest of the real images, or the folder of their data set",
        )
    if role_key:
        if cohort.role_scheme != "hash":
            _log.warning("the role key is not used: roles come from the %s of each patient", cohort.role_scheme)
        cohort = replace(cohort, role_key=role_key.encode("utf-8") if isinstance(role_key, str) else role_key)
    _log.info("%r", cohort)
    return cohort


def _read_folder(root: Path, image_size: int, source: str | None, options: dict[str, object]) -> Cohort:
    if not root.is_dir():
        raise ManifestError("GM-M003", "dataset_dir is not a folder", got=str(root), next_step="check the path")
    if source is not None and source not in SOURCES:
        raise UsageError("GM-U037", "unknown source", got=source, expected=tuple(SOURCES))
    for name, module in SOURCES.items():
        if source == name or (source is None and module.matches(root)):
            known = tuple(inspect.signature(module.read).parameters)[1:]
            _refuse_options(options, known, f"the source {name}")
            if "image_size" in known:
                options = {"image_size": image_size, **options}
            cohort: Cohort = module.read(root, **options)
            return cohort
    raise ManifestError(
        "GM-M002",
        f"no images found in {root}",
        expected=f"one of the layouts {', '.join(SOURCES)}",
        next_step="check the folder, or give a manifest",
    )


def _refuse_options(options: dict[str, object], known: tuple[str, ...], where: str) -> None:
    for name in options:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            raise UsageError(
                "GM-U036",
                f"{where} has no option {name}",
                expected=", ".join(known) or "no options",
                next_step=f"did you mean {close[0]}?" if close else None,
            )
