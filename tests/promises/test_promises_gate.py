"""Nothing is released below the threshold: whatever scores are, whatever fails, however little was changed."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from promise import kept, size
from toy_release import LIMITS, SIZE, Redraw, Watch, no_text, release, write_input

from gmia_monai.release import scores
from gmia_monai.release.gate import Bounds, Gate
from gmia_monai.release.parts import Parts

EDGES = [bound for limits in LIMITS.values() for bound in (limits.low, limits.high) if math.isfinite(bound)]
NEAR = [
    f(edge) for edge in EDGES for f in (lambda x: math.nextafter(x, math.inf), lambda x: math.nextafter(x, -math.inf))
]
ODD = [
    math.nan,
    math.inf,
    -math.inf,
    -0.0,
    5e-324,
    1e308,
    None,
    True,
    False,
    "0.1",
    b"0",
    10**400,
    complex(0, 1),
    [],
    {},
]
number = st.one_of(
    st.floats(-1.5, 1.5), st.floats(), st.sampled_from([*EDGES, *NEAR]), st.integers(-3, 60), st.sampled_from(ODD)
)
score = st.one_of(number, st.lists(number, max_size=4), st.tuples(number, number))
record = st.dictionaries(st.sampled_from([*LIMITS, "unknown", ""]), score, max_size=9)
whole = st.fixed_dictionaries({name: score for name in LIMITS})
good = st.fixed_dictionaries(
    {name: st.floats(max(b.low, -1.0), min(b.high, 1.0)) for name, b in LIMITS.items()},
    optional={"unknown": score},
)


def _passes(scores: dict) -> bool:
    """The rule, restated: the checks that there have to be, no other, finite numbers, all within the limits."""
    if set(scores) != set(LIMITS):
        return False
    for name, found in scores.items():
        numbers = list(found) if isinstance(found, list | tuple) else [found]
        if not numbers:
            return False
        for one in numbers:
            if type(one) not in (int, float) or not -1e300 < one < 1e300:
                return False
            if one < LIMITS[name].low or one > LIMITS[name].high:
                return False
    return True


def test_no_record_of_scores_opens_the_gate_that_should_not():
    wrong, tried, opened = [], 0, 0
    gate = Gate(LIMITS)

    @settings(max_examples=size(1500, 10_000), deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.one_of(record, whole, good), st.lists(st.sampled_from(["GM-H204", "GM-H205", "nonsense"]), max_size=1))
    def judge(scores, failures):
        nonlocal tried, opened
        tried += 1
        decision = gate.judge(scores, failures)
        opened += decision.released
        if decision.released != (_passes(scores) and not failures) or decision.released == bool(decision.codes):
            wrong.append((scores, failures))

    judge()
    assert opened > tried / 50, "records that pass are among them"
    kept("no record of scores opens the gate that should not", tried, wrong)


# -- faults -----------------------------------------------------------------------------------------------------------
class Fault:
    """Breaks the n-th call of a part."""

    def __init__(self, how: Callable[[object], object], at: int) -> None:
        self.how, self.at, self.calls = how, at, 0

    def __call__(self, real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **more: object) -> object:
            self.calls += 1
            found = real(*arguments, **more)
            return self.how(found) if self.calls == self.at else found

        return call


def _raise(error: BaseException) -> Callable[[object], object]:
    def fail(found: object) -> object:
        raise error

    return fail


def _nan(found: object) -> object:
    return np.full_like(np.asarray(found, dtype=float), np.nan)


def _short(found: object) -> object:
    return np.asarray(found)[:0]


HOW = {
    "memory": _raise(MemoryError()),
    "device": _raise(RuntimeError("CUDA error: device-side assert triggered")),
    "value": _raise(ValueError()),
    "timeout": _raise(TimeoutError()),
    "nan": _nan,
    "nothing": lambda found: None,
    "short": _short,
    "words": lambda found: "0.0",
}
WHERE = {
    "redraw": ("toy_release.Redraw.__call__", ("memory", "device", "value", "nan", "nothing", "short", "words")),
    "embed": ("toy_release.Watch.embed", ("memory", "device", "nan", "nothing", "short")),
    "compare": ("toy_release.Watch.compare", ("timeout", "nan", "short", "words")),
    "findings": ("toy_release.Watch.findings", ("value", "nan")),
    "copy": ("toy_release.Watch.nearest_copy", ("memory", "nan", "nothing")),
    "read back": ("gmia_monai.release.scores.model_image", ("memory", "nan", "value")),
}
FAULTS = [(where, how) for where, (_, hows) in WHERE.items() for how in hows]


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return write_input(tmp_path_factory.mktemp("faults") / "in", patients=6, images=4)


def test_no_fault_lets_an_image_through(source, tmp_path, monkeypatch):
    """An image whose check broke is held; the unit that a broken redrawing made is held as a whole."""
    assert len(FAULTS) == 24
    positions = range(1, size(2, 20) + 1)
    wrong, tried = [], 0
    for where, how in FAULTS:
        for position in positions:
            fault = Fault(HOW[how], position)
            path = WHERE[where][0]
            with monkeypatch.context() as patch:
                module, _, name = path.rpartition(".")
                owner = {"toy_release.Redraw": Redraw, "toy_release.Watch": Watch}.get(module, scores)
                patch.setattr(owner, name, fault(getattr(owner, name)))
                outcome = release(source, tmp_path / f"{where}-{how}-{position}")
            reached = fault.calls >= position
            tried += 1
            expected = 24 if not reached else 23 if where != "redraw" else None
            held = outcome.ends["held"]
            if (reached and not held) or (expected is not None and outcome.ends["released"] > expected):
                wrong.append((where, how, position, outcome.ends))
    kept("no injected fault lets an image through", tried, wrong, f"{len(FAULTS)} faults, each at several calls")


# -- too little changed -----------------------------------------------------------------------------------------------
RNG = np.random.default_rng(0)


def _jpeg(image: np.ndarray) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(np.round(image * 255).astype(np.uint8)).save(buffer, "JPEG", quality=95)
    return np.asarray(Image.open(buffer), dtype=np.float32) / 255


SLIGHT = {
    "unchanged": lambda image: image,
    "noise of 0.001": lambda image: np.clip(image + RNG.normal(0, 0.001, image.shape), 0, 1).astype(np.float32),
    "one pixel aside": lambda image: np.roll(image, 1, axis=1),
    "JPEG 95": _jpeg,
    "mirrored": lambda image: image[:, ::-1].copy(),
    "gamma 1.02": lambda image: image**1.02,
}


class MirrorWatch(Watch):
    """Sees an image and its mirror image alike."""

    def embed(self, images: np.ndarray) -> np.ndarray:
        return super().embed((images + images[:, :, ::-1]) / 2)


@pytest.mark.parametrize("how", SLIGHT)
def test_what_changes_too_little_is_held(how, tmp_path):
    n = size(2, 20)
    source = write_input(tmp_path / "in", patients=n, images=10)
    gate = Gate(LIMITS | {"identity": Bounds(-0.6, 0.6)})
    parts = Parts(replace(Redraw(), instead=SLIGHT[how]), MirrorWatch(), no_text, gate, "3" * 64)
    outcome = release(source, tmp_path / "out", parts=parts)
    out = list((tmp_path / "out" / "images").rglob("*.dcm"))
    assert SIZE == 32 and outcome.ends["held"] == 10 * n
    kept(f"images that are {how} are held", 10 * n, [path.name for path in out])
