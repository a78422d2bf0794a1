"""Procedural chest radiographs: attenuation of simple shapes, added up along the ray and shown like a film.

Not a model of any person: every shape is an analytic curve whose parameters are drawn from a seed. Body coordinates are
x in [-1, 1] (left of the picture is the right side of the patient) and y in [-1, 1] downwards.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter, map_coordinates

__all__ = ["FINDINGS", "Acquisition", "Identity", "phantom_image"]

FINDINGS = ("Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Nodule", "Pneumothorax")

_CANVAS = 384  # pixels a side of the patient's own texture
_DRAWN_SIDE = 256  # small images are drawn at least this large and averaged down, so that thin ribs do not alias

Field = Float[np.ndarray, "h w"]
Canvas = Float[np.ndarray, "side side"]


@dataclass(frozen=True)
class Identity:
    """What stays the same in all images of one patient; lengths in body coordinates, angles in radians."""

    seed: int
    female: bool = False
    chest_half_width: float = 0.80
    body_half_width: float = 0.97
    lung_apex: float = -0.76
    dome: float = 0.36
    dome_step: float = 0.06
    rib_spacing: float = 0.125
    rib_drop: float = 0.25
    rib_phase: float = 0.0
    rib_strength: float = 0.10
    heart_width: float = 0.33
    heart_x: float = 0.10
    heart_tilt: float = 0.6
    knob: float = 0.075
    mediastinum: float = 0.12
    clavicle_slope: float = 0.25
    spine_curve: float = 0.0
    stoutness: float = 1.0
    vascularity: float = 1.0

    @classmethod
    def from_seed(cls, seed: int) -> Identity:
        """Draw a patient; the same seed gives the same patient."""
        rng = np.random.default_rng([seed, 1])
        low_high = {
            "chest_half_width": (0.70, 0.86), "body_half_width": (0.90, 1.12), "lung_apex": (-0.84, -0.68),
            "dome": (0.26, 0.46), "dome_step": (0.01, 0.11), "rib_spacing": (0.105, 0.145), "rib_drop": (0.12, 0.42),
            "rib_phase": (0.0, 1.0), "rib_strength": (0.07, 0.14), "heart_width": (0.27, 0.37),
            "heart_x": (0.05, 0.15), "heart_tilt": (0.35, 0.85), "knob": (0.05, 0.10), "mediastinum": (0.10, 0.15),
            "clavicle_slope": (0.08, 0.42), "spine_curve": (-0.05, 0.05), "stoutness": (0.85, 1.15),
            "vascularity": (0.7, 1.3),
        }  # fmt: skip
        drawn = {name: float(rng.uniform(*bounds)) for name, bounds in low_high.items()}
        return cls(seed=seed, female=bool(rng.random() < 0.5), **drawn)


@dataclass(frozen=True)
class Acquisition:
    """What differs between two images of one patient.

    Attributes:
        shift: (x, y) of the body in the picture, in body coordinates.
        angle: rotation in radians; zoom: magnification; inspiration: how much lower the diaphragm is.
        exposure: factor on the attenuation; contrast: exponent of the film; fog: grey of air.
        noise: standard deviation in grey levels of 1.
        portable: AP instead of PA, which magnifies the heart.
        findings: names of ``FINDINGS`` to draw; side: -1 patient's right (left of the picture), +1 patient's left.
        seed: of the noise and of where findings lie.
    """

    seed: int = 0
    shift: tuple[float, float] = (0.0, 0.0)
    angle: float = 0.0
    zoom: float = 1.0
    inspiration: float = 0.0
    exposure: float = 1.0
    contrast: float = 1.0
    fog: float = 0.03
    noise: float = 0.012
    portable: bool = False
    side: int = -1
    findings: tuple[str, ...] = field(default=())

    @classmethod
    def from_seed(cls, seed: int, findings: tuple[str, ...] = (), portable: bool = False) -> Acquisition:
        """Draw one visit's position, breath and exposure; the same seed gives the same visit."""
        rng = np.random.default_rng([seed, 2])
        return cls(
            seed=seed,
            shift=(float(rng.normal(0, 0.02)), float(rng.normal(0, 0.025))),
            angle=float(rng.normal(0, 0.02)),
            zoom=float(rng.uniform(0.96, 1.05)),
            inspiration=float(rng.normal(0, 0.03)),
            exposure=float(rng.uniform(0.75, 1.15)),
            contrast=float(rng.uniform(0.8, 1.25)),
            fog=float(rng.uniform(0.0, 0.15) ** 2 / 0.15),
            noise=float(rng.uniform(0.006, 0.016)),
            portable=portable,
            side=int(rng.choice([-1, 1])),
            findings=findings,
        )


def phantom_image(identity: Identity, acquisition: Acquisition, size: int | tuple[int, int]) -> Field:
    """Draw one frontal radiograph.

    Args:
        identity: the patient.
        acquisition: the visit.
        size: side in pixels, or (height, width).

    Returns:
        float32 image in [0, 1], MONOCHROME2 sense: air is dark.
    """
    height, width = (size, size) if isinstance(size, int) else size
    factor = -(-_DRAWN_SIDE // min(height, width))
    x, y = _body_coordinates(acquisition, height * factor, width * factor)
    attenuation = _attenuation(identity, acquisition, x, y)
    attenuation = attenuation.reshape(height, factor, width, factor).mean((1, 3))
    film = 1.0 - np.exp(-1.85 * acquisition.exposure * np.clip(attenuation, 0.0, None))
    film = acquisition.fog + (0.96 - acquisition.fog) * film**acquisition.contrast
    rng = np.random.default_rng([identity.seed, acquisition.seed, 3])
    film = film + acquisition.noise * rng.standard_normal(film.shape) * np.sqrt(film + 0.05)
    film = np.maximum(film, _marker(film.shape))
    return np.clip(film, 0.0, 1.0).astype(np.float32)


def _body_coordinates(acquisition: Acquisition, height: int, width: int) -> tuple[Field, Field]:
    side = min(height, width)
    y, x = np.meshgrid(
        (np.arange(height) + 0.5 - height / 2) * 2 / side,
        (np.arange(width) + 0.5 - width / 2) * 2 / side,
        indexing="ij",
    )
    x, y = (x - acquisition.shift[0]) / acquisition.zoom, (y - acquisition.shift[1]) / acquisition.zoom
    cos, sin = np.cos(acquisition.angle), np.sin(acquisition.angle)
    return cos * x + sin * y, cos * y - sin * x


def _step(value: Field, softness: float) -> Field:
    """0 where value is negative, 1 where positive, smooth over about ``softness``."""
    return 0.5 * (1.0 + np.tanh(value / softness))


def _ellipse(x: Field, y: Field, centre: tuple[float, float], radii: tuple[float, float], tilt: float = 0.0) -> Field:
    """1 at the centre, 0 on the border, negative outside."""
    dx, dy = x - centre[0], y - centre[1]
    cos, sin = np.cos(tilt), np.sin(tilt)
    return 1.0 - np.hypot((cos * dx + sin * dy) / radii[0], (cos * dy - sin * dx) / radii[1])


def _dome(identity: Identity, across: Field, x: Field, inspiration: float) -> Field:
    """Height of the diaphragm; ``across`` is 0 at the mediastinum and 1 at the wall of the chest."""
    top = identity.dome + inspiration + np.where(x > 0, identity.dome_step, 0.0)
    return top + 0.24 * (np.clip(across - 0.40, 0, 1.2) / 0.6) ** 2.3 + 0.05 * (np.clip(0.40 - across, 0, 1) / 0.4) ** 2


def _lungs(identity: Identity, x: Field, across: Field, y: Field, inspiration: float) -> Field:
    """Air in the ray, 0 to 1."""
    inner = np.clip((0.38 - across) / 0.38, 0, 1.6)
    outer = np.clip((across - 0.38) / 0.62, 0, 1.6)
    roof = identity.lung_apex + 0.30 * inner**2.4 + 0.40 * outer**2.4 + 0.62 * outer**7
    floor = _dome(identity, across, x, inspiration)
    inside = _step(y - roof, 0.02) * _step(floor - y, 0.012) * _step(across, 0.03) * _step(1.0 - across, 0.02)
    deep = (1 - np.exp(-np.clip(y - roof, 0, None) / 0.16)) * (1 - np.exp(-np.clip(floor - y, 0, None) / 0.10))
    return inside * (0.35 + 0.65 * deep)


def _bones(identity: Identity, x: Field, across: Field, y: Field, spine_x: Field) -> Field:
    """Ribs behind and in front, spine, clavicles, shoulder."""
    bone = np.zeros_like(x)
    wall = _step(across + 0.15, 0.02) * _step(1.10 - across, 0.03)
    arch = np.clip(across, 0, 1.1)
    for number in range(11):
        start = identity.lung_apex + 0.02 + (number + identity.rib_phase - 0.5) * identity.rib_spacing
        flare = 0.5 + 0.05 * number
        behind = start - 0.10 * np.sin(np.pi * np.clip(arch / 0.75, 0, 1)) + identity.rib_drop * flare * 1.5 * arch**3
        bone += identity.rib_strength * wall * _rib(y - behind, 0.024 + 0.010 * arch)
        front = start + 0.16 + (0.26 + identity.rib_drop) * np.clip(1.0 - arch, 0, 1) ** 1.3
        if 1 <= number <= 7:
            reach = _step(across - 0.42, 0.08) * _step(1.05 - across, 0.03)
            bone += 0.40 * identity.rib_strength * reach * _rib(y - front, 0.030)
    vertebra = 0.5 + 0.5 * np.tanh(
        3.5 * np.cos(2 * np.pi * (y / (0.9 * identity.rib_spacing) + identity.rib_phase)) + 2
    )
    bone += (0.10 + 0.12 * vertebra) * _step(0.085 + 0.012 * vertebra - np.abs(x - spine_x), 0.012)
    reach = np.abs(x) - 0.07
    collar = identity.lung_apex + 0.20 - identity.clavicle_slope * reach - 0.05 * np.sin(2 * np.pi * reach / 0.75)
    ends = _step(reach, 0.02) * _step(identity.chest_half_width - 0.06 - reach, 0.03)
    bone += 0.16 * ends * _rib(y - collar, 0.036 + 0.012 * np.cos(2 * np.pi * reach / 0.7))
    blade = _step(np.abs(x) - (0.74 + 0.16 * (y + 0.45)) * identity.chest_half_width / 0.8, 0.008)
    bone += 0.09 * blade * _step(y + 0.62, 0.03) * _step(0.08 - y, 0.10) * _step(1.05 - np.abs(x), 0.1)
    head = _ellipse(np.abs(x), y, (identity.body_half_width + 0.03, identity.lung_apex + 0.24), (0.17, 0.17))
    return bone + 0.09 * _step(head, 0.14)


def _rib(offset: Field, half_width: Field | float) -> Field:
    """Section of a tube of bone: rims brighter than the middle."""
    t = np.abs(offset) / half_width
    return np.exp(-(t**4)) * (0.65 + 0.5 * np.clip(t, 0, 1) ** 3)


def _heart(identity: Identity, acquisition: Acquisition, x: Field, y: Field, spine_x: Field) -> Field:
    """Depth of heart, great vessels and hila."""
    size = 1.10 if acquisition.portable else 1.0
    if "Cardiomegaly" in acquisition.findings:
        size *= 1.45
    floor = identity.dome + 0.7 * acquisition.inspiration
    top = floor - 0.62 - 0.18 * (size - 1)
    below = np.clip((y - top) / (floor - top), 0, 1.3)
    # Half-widths of the shadow to the left and right of the patient, from the great vessels down to the diaphragm.
    round_off = np.sqrt(np.clip(1 - (np.clip(below - 0.80, 0, None) / 0.55) ** 2, 0, 1))
    stem = identity.mediastinum * (0.72 + 0.28 * _step(y + 0.30, 0.25))
    left = (
        stem + size * (identity.heart_width + identity.heart_x) * below ** (1.0 + 1.4 * identity.heart_tilt) * round_off
    )
    bulge = np.sin(np.pi * np.clip((below - 0.25) / 1.0, 0, 1)) ** 1.5
    right = stem + (0.55 * size * identity.heart_width - 0.5 * identity.heart_x) * bulge * 0.75
    left = np.minimum(left, 0.88 * identity.chest_half_width)
    off = x - spine_x
    depth = 0.30 * _step(stem - np.abs(off), 0.03)
    swell = 0.24 + 0.10 * below
    depth = np.maximum(depth, swell * _step(left - off, 0.022) * _step(right + off, 0.022) * _step(below - 0.02, 0.1))
    arch = _ellipse(
        x, y, (identity.mediastinum - 0.035, identity.lung_apex + 0.42), (identity.knob, identity.knob * 1.2)
    )
    depth = np.maximum(depth, 0.30 * _step(arch, 0.18))
    for sign, height in ((-1, 0.02), (1, -0.03)):
        hilum = np.hypot((x - sign * (identity.mediastinum + 0.06)) / 0.085, (y + 0.08 - height) / 0.14)
        depth = depth + 0.09 * np.exp(-(hilum**2))
    windpipe = np.exp(-(((x - spine_x) / 0.05) ** 4)) * _step(-0.22 - y, 0.05)
    return depth - 0.16 * windpipe


@lru_cache(maxsize=32)
def _texture(seed: int, vascularity: float) -> Canvas:
    """The patient's own lung vessels and soft tissue grain, on a canvas of the whole body frame."""
    rng = np.random.default_rng([seed, 4])
    vessels = Image.new("L", (_CANVAS, _CANVAS), 0)
    draw = ImageDraw.Draw(vessels)

    def branch(x: float, y: float, angle: float, width: float, length: float) -> None:
        for _ in range(int(length / 0.05)):
            to = (x + 0.05 * np.cos(angle), y + 0.05 * np.sin(angle))
            ends = [(v + 1) / 2 * _CANVAS for v in (x, y, *to)]
            draw.line(ends, fill=int(min(255, 70 + 45 * width)), width=max(1, round(width)))
            (x, y), angle = to, angle + rng.normal(0, 0.18)
        if width > 0.9:
            for turn in (-1, 1):
                branch(x, y, angle + turn * rng.uniform(0.2, 0.6), width * 0.72, length * rng.uniform(0.65, 0.9))

    for sign in (-1, 1):
        for angle in np.linspace(-1.25, 1.35, 8):
            start = angle + rng.normal(0, 0.1)
            branch(sign * 0.16, -0.06, start if sign > 0 else np.pi - start, rng.uniform(2.2, 4.0), 0.24)
    tree = gaussian_filter(np.asarray(vessels, dtype=np.float64) / 255.0, 1.6)
    grain = gaussian_filter(rng.standard_normal((_CANVAS, _CANVAS)), 2.0) * 2.0
    clouds = gaussian_filter(rng.standard_normal((_CANVAS, _CANVAS)), 16.0) * 16.0
    return vascularity * 0.20 * tree + 0.020 * grain + 0.035 * clouds


def _sampled(canvas: Canvas, x: Field, y: Field) -> Field:
    rows, columns = (y + 1) / 2 * _CANVAS - 0.5, (x + 1) / 2 * _CANVAS - 0.5
    return map_coordinates(canvas, [rows, columns], order=1, mode="reflect")


def _attenuation(identity: Identity, acquisition: Acquisition, x: Field, y: Field) -> Field:
    """Sum of attenuation along the ray; 1 is about the middle of the body."""
    spine_x = identity.spine_curve * np.sin(2.2 * y + identity.rib_phase)
    # Fraction of the way from the mediastinum to the wall of the chest; the chest narrows towards the apex.
    wall = identity.chest_half_width * (0.90 + 0.10 * np.clip(y + 0.6, -1, 1))
    across = (np.abs(x) - 0.55 * identity.mediastinum) / (wall - 0.55 * identity.mediastinum)
    lungs = _lungs(identity, x, across, y, acquisition.inspiration)
    texture = _sampled(_texture(identity.seed, identity.vascularity), x, y)

    collar_line = identity.lung_apex - 0.10 + 0.26 * np.clip(np.abs(x) - 0.26, 0, None) ** 0.9
    trunk = identity.body_half_width * (1.0 + 0.42 * np.exp(-(((y + 0.48) / 0.26) ** 2)))
    torso = np.sqrt(np.clip(1 - (np.abs(x) / trunk) ** 3.0, 0, 1)) * _step(y - collar_line, 0.07)
    throat = 0.25 + 0.30 * np.exp(np.clip((y - identity.lung_apex - 0.05) / 0.10, -8, 1))
    neck = np.sqrt(np.clip(1 - (np.abs(x) / throat) ** 2, 0, 1))
    arm = np.clip(_ellipse(np.abs(x), y, (identity.body_half_width + 0.14, -0.15), (0.20, 0.60)), 0, None)
    belly = _step(y - _dome(identity, across, x, acquisition.inspiration), 0.022) * _step(1.02 - across, 0.10)
    body = np.maximum(torso * (0.60 + 0.10 * y), 0.46 * neck * _step(identity.lung_apex + 0.20 - y, 0.14))
    body = np.maximum(body, 0.5 * np.sqrt(arm)) * identity.stoutness
    if identity.female:
        for sign in (-1, 1):
            breast = _ellipse(x, y, (sign * 0.46, identity.dome - 0.10), (0.36, 0.34))
            body = body + 0.16 * np.sqrt(np.clip(breast, 0, None)) * torso
    heart = _heart(identity, acquisition, x, y, spine_x) * torso
    gas = _step(_ellipse(x, y, (0.40, identity.dome + identity.dome_step + 0.16), (0.15, 0.07)), 0.3)
    bone = _bones(identity, x, across, y, spine_x)
    air, opacity = _with_findings(identity, acquisition, x, across, y, lungs)
    solid = np.maximum(heart, 0.38 * belly) + 0.12 * heart * belly - 0.16 * gas * belly
    total = body + solid + bone * np.clip(torso * 1.6 + neck, 0, 1) + 0.015 * texture * torso
    shaded = 1 - 0.85 * np.clip(heart / 0.32, 0, 1)
    return total - 0.40 * air * shaded + air * shaded * texture + opacity


def _with_findings(
    identity: Identity, acquisition: Acquisition, x: Field, across: Field, y: Field, lungs: Field
) -> tuple[Field, Field]:
    """Air left in the lungs and opacity added to them by the findings (the heart's own is in ``_heart``)."""
    rng = np.random.default_rng([identity.seed, acquisition.seed, 5])
    air, opacity = lungs, np.zeros_like(x)
    half = _step(acquisition.side * x, 0.01)
    low, depth = rng.uniform(0.20, 0.34), rng.uniform(0.6, 0.85)
    spot = (acquisition.side * rng.uniform(0.34, 0.58), rng.uniform(-0.35, 0.12))
    patch = (acquisition.side * rng.uniform(0.36, 0.54), rng.uniform(-0.05, 0.18))
    seed = int(rng.integers(2**31))
    if "Effusion" in acquisition.findings:
        level = identity.dome + acquisition.inspiration - low + 0.18
        fluid = half * _step(y - level + 0.42 * np.clip(across, 0, 1.1) ** 4, 0.025)
        air, opacity = air * (1 - 0.92 * fluid), opacity + 0.28 * fluid * lungs
    if "Nodule" in acquisition.findings:
        ball = np.clip(_ellipse(x, y, spot, (0.075, 0.07), 0.5), 0, None)
        opacity = opacity + 0.42 * np.sqrt(ball) * np.clip(lungs * 1.5, 0, 1)
    if "Infiltration" in acquisition.findings:
        cloud = np.exp(-(((x - patch[0]) / 0.20) ** 2) - ((y - patch[1]) / 0.24) ** 2)
        patchy = _sampled(_texture(seed, 1.0), x, y)
        opacity = opacity + lungs * cloud * np.clip(0.34 + 3.0 * patchy, 0, 0.8)
    if "Atelectasis" in acquisition.findings:
        plate = np.exp(-(((y - 0.14 - 0.25 * (across - 0.5)) / 0.028) ** 2)) * _step(0.85 - across, 0.08)
        wedge = np.exp(-(((y - 0.30) / 0.12) ** 2)) * _step(0.45 - across, 0.12)
        opacity = opacity + half * lungs * (0.30 * plate + 0.26 * wedge)
    if "Pneumothorax" in acquisition.findings:
        edge = depth + 0.10 * (y + 0.3) + 0.5 * np.clip(y, 0, None) ** 2
        free = half * _step(across - edge, 0.012)
        line = half * np.exp(-(((across - edge) / 0.014) ** 2))
        opacity = opacity - 0.12 * free * lungs + 0.13 * line * lungs
    return air, opacity


def _marker(shape: tuple[int, int]) -> Field:
    """A lead letter L in the corner on the patient's left, as technicians place it."""
    height, width = shape
    mask = np.zeros(shape)
    side = min(height, width)
    tall, thick, top, left = (
        round(0.06 * side),
        max(1, round(0.012 * side)),
        round(0.05 * side),
        round(width - 0.09 * side),
    )
    mask[top : top + tall, left : left + thick] = 0.96
    mask[top + tall - thick : top + tall, left : left + round(0.6 * tall)] = 0.96
    return mask
