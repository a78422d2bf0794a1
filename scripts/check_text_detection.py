"""How much planted text the release gate's detector finds in radiographs, and how often it finds some where none is.

Text of several sizes and contrasts is planted at random places; a planting counts as found where the words that are
read are more than those of the image without it. Prints one line of JSON for each size, each contrast and all, with
95 % intervals (Wilson), and one for images as they are: markers of side and view are no text, other letters are.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from gmia_monai.dicom.text import TextDetector
from gmia_monai.errors import GmiaError
from gmia_monai.metrics.limits import wilson_interval
from gmia_monai.transforms.readers import SUFFIXES, read_radiograph

FONT = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
TEXTS = ("DOE JANE", "1960-05-01", "ID 4711-22", "ST MARY HOSPITAL", "M 067Y", "SMITH^JOHN")
SIZES = (8, 12, 16, 24, 36, 48)
CONTRASTS = (0.05, 0.1, 0.2, 0.5, 1.0)


def planted(image: np.ndarray, text: str, size: int, contrast: float, rng: np.random.Generator) -> np.ndarray:
    """Text at a random place, lighter than a dark place and darker than a bright one, as far as grey values go."""
    font = ImageFont.truetype(str(FONT), size)
    width, height = (int(n) for n in font.getbbox(text)[2:])
    x = int(rng.integers(0, max(1, image.shape[1] - width)))
    y = int(rng.integers(0, max(1, image.shape[0] - height)))
    picture = Image.new("L", image.shape[::-1])
    ImageDraw.Draw(picture).text((x, y), text, fill=255, font=font)
    mask = np.asarray(picture, dtype=np.float64) / 255
    sense = 1.0 if image[y : y + height, x : x + width].mean() < 0.5 else -1.0
    return np.clip(image + sense * contrast * mask, 0.0, 1.0)


def main(arguments: list[str] | None = None) -> int:
    """Measures; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, help="folder of radiographs at their own size (PNG, JPEG, DICOM)")
    parser.add_argument("--n_planted", type=int, default=500, help="plantings")
    parser.add_argument("--n_clean", type=int, default=500, help="images that are looked at as they are, at most")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    files = sorted(p for p in options.images.rglob("*") if p.is_file() and p.name.lower().endswith(tuple(SUFFIXES)))
    if not files:
        print("error: no radiographs in that folder", file=sys.stderr)
        return 2
    detector, rng = TextDetector(), np.random.default_rng(options.seed)
    before: dict[Path, int] = {}
    found: dict[str, list[bool]] = defaultdict(list)
    try:
        for path in files[: options.n_clean]:
            before[path] = len(detector(read_radiograph(path)[0]))
            found["as they are, text seen"].append(before[path] > 0)
        for i in range(options.n_planted):
            path = files[i % len(files)]
            image = read_radiograph(path)[0].astype(np.float64)
            size, contrast = int(rng.choice(SIZES)), float(rng.choice(CONTRASTS))
            known = before.setdefault(path, len(detector(image)) if path not in before else 0)
            hit = len(detector(planted(image, TEXTS[i % len(TEXTS)], size, contrast, rng))) > known
            for name in ("planted", f"planted, {size:2d} px", f"planted, contrast {contrast:g}"):
                found[name].append(hit)
    except GmiaError as error:
        print(f"error: {error}", file=sys.stderr)
        return int(error.exit_code)
    for name in sorted(found):
        share = wilson_interval(sum(found[name]), len(found[name]))
        print(
            json.dumps(
                {"what": name, "n": len(found[name]), "share": share.value, "low": share.low, "high": share.high}
            )
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
