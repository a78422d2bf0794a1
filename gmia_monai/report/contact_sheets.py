"""Contact sheets of systems: the same sources through each of them, and what the parts of GMIA do to them.

Sources are drawn or synthesised radiographs: a sheet of real ones, released unchanged, would be a copy of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from gmia_monai.data.release import Release
from gmia_monai.errors import UsageError
from gmia_monai.report.figures import change_image, contact_sheet
from gmia_monai.typing import Image2D, PathLike

__all__ = ["losses_sheet", "reconstructions_sheet", "shown_images", "systems_sheet"]

_KINDS = {"k_to_one": "several images to one", "generated": "generated, of no source"}


def shown_images(release: Release, positions: Sequence[int]) -> list[Image2D]:
    """The released image that stands for each source: its own, the first that it is among the sources of, or, where
    images are generated, one after the other; black where there is none."""
    images = release.pixels[:, 0]
    blank = np.zeros(release.pixels.shape[2:], np.float32)
    if release.kind == "generated":
        return [images[i] if i < len(images) else blank for i in range(len(positions))]
    of_source: dict[int, int] = {}
    for place, sources in enumerate(release.sources):
        for source in sources:
            of_source.setdefault(source, place)
    return [images[of_source[p]] if p in of_source else blank for p in positions]


def systems_sheet(
    sources: Sequence[Image2D],
    releases: Mapping[str, Release],
    positions: Sequence[int],
    path: PathLike,
    *,
    heading: str,
    cell_px: int = 80,
    groups: int = 2,
) -> None:
    """Writes a PNG with the sources in the first row and a row a system, named below it.

    Args:
        sources: images that are shown, no real ones.
        releases: by name of the system, of images that these are among.
        positions: places of the sources among the images that were released.
        path: the PNG.
        heading: one line above all.
        cell_px: side of a cell.
        groups: columns of rows.

    Raises:
        UsageError: ``GM-U386`` where sources and positions differ in number or no release is given.
    """
    if len(sources) != len(positions) or not releases:
        raise UsageError(
            "GM-U386",
            "sources and releases of a contact sheet do not fit",
            got=f"{len(sources)} sources, {len(positions)} positions, {len(releases)} releases",
            expected="a position a source, and a release",
        )
    rows: list[Sequence[Image2D]] = [list(sources)]
    captions = ["sources"]
    for name, release in releases.items():
        rows.append(shown_images(release, positions))
        kind = _KINDS.get(release.kind)
        captions.append(name if kind is None else f"{name} ({kind})")
    titles = [str(i + 1) for i in range(len(sources))]
    contact_sheet(rows, titles, path, captions=captions, heading=heading, cell_px=cell_px, groups=groups)


def reconstructions_sheet(
    sources: Sequence[Image2D],
    reconstructions: Mapping[str, Sequence[Image2D]],
    path: PathLike,
    *,
    heading: str,
    cell_px: int = 128,
) -> None:
    """Writes a PNG like figure 2 of GMIA's paper: each source, and what each kind of training makes of it.

    Args:
        sources: images that are shown, no real ones.
        reconstructions: by kind of training, an image a source.
        path: the PNG.
        heading: one line above all.
        cell_px: side of a cell.
    """
    rows, captions = [], []
    for place, source in enumerate(sources):
        made = [images[place] for images in reconstructions.values()]
        rows.append([source, *made])
        captions.append("PSNR " + ", ".join(f"{_psnr(source, image):.1f} dB" for image in made))
    titles = ["source", *reconstructions]
    contact_sheet(rows, titles, path, captions=captions, heading=heading, cell_px=cell_px, groups=2)


def _psnr(one: Image2D, other: Image2D) -> float:
    error = float(np.mean((np.asarray(one, np.float64) - np.asarray(other, np.float64)) ** 2))
    return float("inf") if error == 0 else -10.0 * float(np.log10(error))


def losses_sheet(
    sources: Sequence[Image2D],
    reconstructed: Sequence[Image2D],
    by_loss: Mapping[str, Sequence[Image2D]],
    cosines: Mapping[str, Sequence[float]],
    path: PathLike,
    *,
    heading: str,
    cell_px: int = 112,
) -> None:
    """Writes a PNG like figure 3 of GMIA's paper: each source, its reconstruction, and what each loss alone and both
    together make of it, each followed by its change against the reconstruction, which is where optimisation starts.

    Args:
        sources: images that are shown, no real ones.
        reconstructed: an image a source.
        by_loss: by name of the loss, an image a source.
        cosines: by name of the loss, identity cosine to the source, for the captions.
        path: the PNG.
        heading: one line above all.
        cell_px: side of a cell.
    """
    rows, captions = [], []
    for place, (source, start) in enumerate(zip(sources, reconstructed, strict=True)):
        cells = [source, start]
        for images in by_loss.values():
            cells += [images[place], change_image(start, images[place])]
        rows.append(cells)
        captions.append("cosine  " + "   ".join(f"{name}: {found[place]:.2f}" for name, found in cosines.items()))
    titles = ["source", "reconstruction", *(title for name in by_loss for title in (name, "change x 2"))]
    contact_sheet(rows, titles, path, captions=captions, heading=heading, cell_px=cell_px)
