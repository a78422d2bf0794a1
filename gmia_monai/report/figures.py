"""Contact sheets: images before and after, side by side. Pillow loads on first use."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gmia_monai.errors import UsageError
from gmia_monai.typing import Image2D, PathLike

__all__ = ["change_image", "contact_sheet", "optimization_caption"]

_BACKGROUND, _INK, _FAINT = 18, 235, 190
# the font inside Pillow has no glyphs for these
_PLAIN = str.maketrans({"—": "-", "–": "-", "−": "-", "→": "to", "…": "..."})


def contact_sheet(
    rows: Sequence[Sequence[Image2D]],
    titles: Sequence[str],
    path: PathLike,
    *,
    captions: Sequence[str] | None = None,
    heading: str | None = None,
    cell_px: int = 192,
    groups: int = 1,
) -> None:
    """Write a greyscale PNG with one patient image a row and one stage a column.

    Args:
        rows: images of each row in the order of the columns, float in [0, 1], MONOCHROME2; sizes may differ.
        titles: name of each column, e.g. source, reconstruction, anonymized, difference.
        path: the PNG to write (temporary file, then rename).
        captions: one line below each row, e.g. ``cosine 0.93 to -0.02, 8 steps``; never an identifier.
        heading: one line above the sheet.
        cell_px: side of a cell; images are enlarged or reduced to fit it, aspect kept.
        groups: rows standing side by side, so that a long sheet becomes a broad one.

    Raises:
        UsageError: GM-U281 where rows, titles and captions do not fit.
    """
    from PIL import Image, ImageDraw, ImageFont

    columns = len(titles)
    if not rows or any(len(row) != columns for row in rows) or (captions is not None and len(captions) != len(rows)):
        raise UsageError(
            "GM-U281", "rows, titles and captions do not fit", expected="an image a title, a caption a row"
        )
    text_px = max(12, cell_px // 13)
    font, bold = ImageFont.load_default(text_px), ImageFont.load_default(text_px + 3)
    gap, margin, line = max(3, cell_px // 48), max(8, cell_px // 12), int(text_px * 1.6)
    head = int(line * 1.4) if heading else 0
    row_height = cell_px + (line if captions is not None else gap)
    group_width = columns * (cell_px + gap) - gap
    down = -(-len(rows) // groups)
    across = min(groups, len(rows))
    width = 2 * margin + across * group_width + (across - 1) * 2 * margin
    sheet = Image.new("L", (width, 2 * margin + head + line + down * row_height), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    if heading:
        draw.text((margin, margin), _fitted(heading, bold, width - 2 * margin), fill=_INK, font=bold)
    top = margin + head
    for group in range(across):
        left = margin + group * (group_width + 2 * margin)
        for column, title in enumerate(titles):
            centre = left + column * (cell_px + gap) + cell_px // 2
            draw.text((centre, top + line // 2), _fitted(title, font, cell_px), fill=_INK, font=font, anchor="mm")
    for index, row in enumerate(rows):
        group, place = divmod(index, down)
        left, upper = margin + group * (group_width + 2 * margin), top + line + place * row_height
        for column, image in enumerate(row):
            cell = _cell(image, cell_px)
            offset = ((cell_px - cell.width) // 2, (cell_px - cell.height) // 2)
            sheet.paste(cell, (left + column * (cell_px + gap) + offset[0], upper + offset[1]))
        if captions is not None:
            caption = _fitted(captions[index], font, group_width)
            middle = (left + group_width // 2, upper + cell_px + line // 2 - 1)
            draw.text(middle, caption, fill=_FAINT, font=font, anchor="mm")
    _save_atomically(path, lambda temporary: sheet.save(temporary, format="PNG", optimize=True))


def change_image(before: Image2D, after: Image2D, gain: float = 2.0) -> Image2D:
    """What changed, as a column of a contact sheet: mid-grey for nothing, brighter where ``after`` is brighter."""
    return np.clip(0.5 + gain * 0.5 * (np.asarray(after) - np.asarray(before)), 0, 1).astype(np.float32)


def optimization_caption(cos_before: float, cos_after: float, steps: int, converged: bool) -> str:
    """Caption of one row: cosine to the source before and after, number of steps, and whether they were enough."""
    return f"cosine {cos_before:.2f} to {cos_after:.2f} · {steps} steps" + ("" if converged else " · not converged")


def _cell(image: Image2D, cell_px: int) -> Any:
    from PIL import Image

    array = np.asarray(image, dtype=np.float32)
    if array.ndim != 2 or not np.isfinite(array).all():
        raise UsageError("GM-U282", "not a greyscale image", got=f"shape {array.shape}", expected="finite, h w")
    picture = Image.fromarray(np.round(np.clip(array, 0, 1) * 255).astype(np.uint8))
    scale = cell_px / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC)


def _fitted(text: str, font: Any, width: int) -> str:
    """The text in the glyphs of the font, shortened until it fits."""
    text = text.translate(_PLAIN)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text.rstrip() + "..."


def _save_atomically(path: PathLike, write: Any) -> None:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        write(temporary)
        os.replace(temporary, path)  # noqa: PTH105
    finally:
        temporary.unlink(missing_ok=True)
