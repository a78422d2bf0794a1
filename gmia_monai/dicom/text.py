"""Text in pixels: found by its strokes, read by tesseract; without tesseract there is an error, never an empty answer.

Text drawn into a radiograph is small, bright or dark against what is around it, and stands in lines. Such lines are
found first, at several sizes and in both senses, whatever they say; all of them go, enlarged to one height and without
their background, onto pages that tesseract reads. ``scripts/check_text_detection.py`` measures what is found.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from scipy import ndimage, sparse
from scipy.spatial import cKDTree

from gmia_monai.errors import ResourceError

__all__ = ["MARKERS", "TextDetector", "Word"]

MARKERS = ("L", "R", "LT", "RT", "AP", "PA", "PORTABLE", "ERECT", "SUPINE")
_STROKES = (9, 17, 33, 65)  # largest sizes in pixels of what is text, not anatomy
_HEIGHT, _GAP, _WIDTH = 44, 26, 1400  # of a line on the page
_LINES = 400  # a page
_MAX_PARTS = 20_000
_SIDE = 2048  # larger images are read at this size: text on them is larger, too
_SECONDS = 60
_CERTAIN, _SOMEWHAT = 75.0, 40.0


@dataclass(frozen=True)
class Word:
    """A word that was read.

    Attributes:
        text: its letters and digits, in capitals.
        confidence: of tesseract, 0 to 100.
        line: number of the line that it stands in.
        box: of that line: first row and column, and those behind the last.
    """

    text: str
    confidence: float
    line: int
    box: tuple[int, int, int, int]


@dataclass(frozen=True)
class _Line:
    top: int
    left: int
    bottom: int
    right: int
    strokes: int
    bright: bool


@dataclass(frozen=True)
class TextDetector:
    """Finds text in radiographs.

    Attributes:
        markers: words that are no text: side, view, and how the image was taken.
        program: of tesseract; None looks for it.
    """

    markers: Sequence[str] = MARKERS
    program: str | None = None

    @property
    def path(self) -> str:
        """Where tesseract is.

        Raises:
            ResourceError: ``GM-R089`` where it is not.
        """
        found = shutil.which(self.program or "tesseract")
        if found is None:
            raise ResourceError(
                "GM-R089",
                "tesseract is not installed, and nothing is released without it",
                next_step="install it from your distribution: apt-get install tesseract-ocr",
            )
        return found

    def __call__(self, image: Float[np.ndarray, "h w"]) -> list[Word]:
        """Words of lines that are text: one word that is read with certainty, or five letters with some.

        Args:
            image: in [0, 1].

        Raises:
            ResourceError: ``GM-R089`` where tesseract is missing or fails.
            TimeoutError: where it takes too long.
        """
        by_line: dict[int, list[Word]] = {}
        for word in self.words(image):
            if not self._is_marker(word.text):
                by_line.setdefault(word.line, []).append(word)
        found: list[Word] = []
        for words in by_line.values():
            certain = any(len(w.text) >= 3 and w.confidence >= _CERTAIN for w in words)
            letters = sum(len(w.text) for w in words if w.confidence >= _SOMEWHAT)
            if certain or letters >= 5:
                found += [w for w in words if w.confidence >= _SOMEWHAT]
        return found

    def words(self, image: Float[np.ndarray, "h w"]) -> list[Word]:
        """All words, markers too, with their confidence.

        Raises:
            ResourceError: ``GM-R089``, and TimeoutError, as above.
        """
        path = self.path
        grey = _levels(image)
        lines = list(_lines(grey))
        factor = np.array([image.shape[0] / grey.shape[0], image.shape[1] / grey.shape[1]] * 2)
        words: list[Word] = []
        for first in range(0, len(lines), _LINES):
            part = lines[first : first + _LINES]
            page, tops = _page([_strip(grey, line) for line in part])
            for text, confidence, row in self._read(path, page, tops):
                line = part[row]
                edges = np.array([line.top, line.left, line.bottom, line.right]) * factor
                top, left = (int(edge) for edge in np.floor(edges[:2]))
                bottom, right = (int(edge) for edge in np.ceil(edges[2:]))
                words.append(Word(text, confidence, first + row, (top, left, bottom, right)))
        return words

    def _is_marker(self, text: str) -> bool:
        """A marker, or what is left of one that was cut."""
        return not text or any(text in marker.upper() for marker in self.markers)

    def _read(self, path: str, page: UInt8[np.ndarray, "h w"], tops: Sequence[int]) -> Iterator[tuple[str, float, int]]:
        """Text, confidence and row of each word on a page."""
        buffer = io.BytesIO()
        Image.fromarray(page).save(buffer, "PNG", dpi=(150, 150))
        try:
            done = subprocess.run(
                [path, "stdin", "stdout", "--psm", "6", "--oem", "1", "-l", "eng", "tsv"],
                input=buffer.getvalue(),
                capture_output=True,
                timeout=_SECONDS,
                check=True,
                env={"OMP_THREAD_LIMIT": "1", "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
            )
        except subprocess.TimeoutExpired:
            raise TimeoutError("looking for text took too long") from None
        except (OSError, subprocess.SubprocessError) as error:
            raise ResourceError(
                "GM-R089", "tesseract failed, and nothing is released without it", got=type(error).__name__
            ) from None
        middles = np.array(tops) + _HEIGHT / 2
        for row in done.stdout.decode("utf-8", "replace").splitlines()[1:]:
            cells = row.split("\t")
            text = re.sub(r"[^A-Z0-9]", "", cells[-1].upper()) if len(cells) == 12 else ""
            if text:
                middle = int(cells[7]) + int(cells[9]) / 2
                yield text, float(cells[10]), int(np.argmin(np.abs(middles - middle)))


def _levels(image: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "rows cols"]:
    """0 to 255, at most so large a side, at least twice the smallest text that there can be."""
    picture = Image.fromarray(np.clip(image, 0.0, 1.0).astype(np.float32))
    longest = max(picture.size)
    factor = _SIDE / longest if longest > _SIDE else 2.0 if longest <= _SIDE // 4 else 1.0
    if factor != 1.0:
        size = [max(1, round(side * factor)) for side in picture.size]
        picture = picture.resize((size[0], size[1]), Image.Resampling.BICUBIC)
    levels: np.ndarray = np.clip(np.asarray(picture, dtype=np.float32) * 255, 0, 255)
    return levels


def _lines(grey: Float[np.ndarray, "h w"]) -> Iterator[_Line]:
    """Rows of small parts of one height that stand beside each other."""
    for strokes in _STROKES:
        if min(grey.shape) <= 2 * strokes:
            break
        for bright in (True, False):
            sense = grey if bright else 255 - grey
            above = sense - ndimage.grey_opening(sense, size=(strokes, strokes))
            boxes = _parts(above > max(8.0, 4.0 * float(np.median(above))), strokes)
            yield from (_Line(*box, strokes, bright) for box in _rows(boxes))


def _parts(mask: np.ndarray, strokes: int) -> np.ndarray:
    """Top, left, bottom and right of connected parts that a letter can be."""
    labels, n = ndimage.label(mask)
    if n == 0:
        return np.zeros((0, 4), dtype=int)
    slices = ndimage.find_objects(labels)
    boxes = np.array([[s[0].start, s[1].start, s[0].stop, s[1].stop] for s in slices])
    height, width = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    area = np.bincount(labels.ravel(), minlength=n + 1)[1:]
    like = (height >= 5) & (height <= 2.2 * strokes) & (width <= 2.5 * strokes) & (area >= 0.15 * height * width)
    found: np.ndarray = boxes[like]
    return found[np.argsort(found[:, 2] - found[:, 0])[::-1]][:_MAX_PARTS]


def _rows(boxes: np.ndarray) -> Iterator[tuple[int, int, int, int]]:
    """Four parts or more, each beside another one of its height."""
    if len(boxes) < 4:
        return
    top, left, bottom, right = boxes.T
    height = bottom - top
    middle = np.stack([(top + bottom) / 2, (left + right) / 2], axis=1)
    # Those that can be neighbours: no further apart than the widest part and the widest gap between two.
    pairs = cKDTree(middle).query_pairs(float(3.5 * height.max()), output_type="ndarray")
    if not len(pairs):
        return
    a, b = pairs[:, 0], pairs[:, 1]
    larger, smaller = np.maximum(height[a], height[b]), np.minimum(height[a], height[b])
    gap = np.maximum(left[a], left[b]) - np.minimum(right[a], right[b])
    beside = (np.abs(middle[a, 0] - middle[b, 0]) < 0.45 * larger) & (smaller > 0.45 * larger)
    beside &= (gap < 1.6 * larger) & (gap > -0.3 * larger)
    graph = sparse.coo_matrix((np.ones(int(beside.sum())), (a[beside], b[beside])), shape=(len(boxes), len(boxes)))
    n, member = sparse.csgraph.connected_components(graph, directed=False)
    for row in np.flatnonzero(np.bincount(member, minlength=n) >= 4):
        of_row = boxes[member == row]
        (y0, x0), (y1, x1) = of_row[:, :2].min(axis=0), of_row[:, 2:].max(axis=0)
        if x1 - x0 > 1.2 * (y1 - y0):
            yield int(y0), int(x0), int(y1), int(x1)


def _strip(grey: Float[np.ndarray, "h w"], line: _Line) -> UInt8[np.ndarray, "rows cols"]:
    """A line black on white, at the height of the page's lines, without what is behind it."""
    margin, far = max(2, (line.bottom - line.top) // 5), line.strokes
    sense = grey if line.bright else 255 - grey
    top, left = max(0, line.top - margin), max(0, line.left - margin)
    bottom, right = line.bottom + margin, line.right + margin
    y, x = max(0, top - far), max(0, left - far)
    around = sense[y : bottom + far, x : right + far]
    above = around - ndimage.grey_opening(around, size=(far, far))
    part = above[top - y : bottom - y, left - x : right - x]
    part = np.clip(part / max(float(np.percentile(part, 97)), 8.0), 0, 1)
    picture = Image.fromarray((255 - 255 * part).astype(np.uint8))
    width = min(_WIDTH, max(8, round(picture.width * _HEIGHT / picture.height)))
    strip: np.ndarray = np.asarray(picture.resize((width, _HEIGHT), Image.Resampling.BICUBIC))
    return strip


def _page(strips: Sequence[UInt8[np.ndarray, "_ _"]]) -> tuple[UInt8[np.ndarray, "h w"], list[int]]:
    """Lines below each other, and where each begins."""
    page = np.full(((_HEIGHT + _GAP) * len(strips) + _GAP, _WIDTH + 60), 255, dtype=np.uint8)
    tops = [_GAP + i * (_HEIGHT + _GAP) for i in range(len(strips))]
    for top, strip in zip(tops, strips, strict=True):
        page[top : top + _HEIGHT, 30 : 30 + strip.shape[1]] = strip
    return page, tops
