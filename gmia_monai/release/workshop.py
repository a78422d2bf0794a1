"""The workshop: what one worker does, with a file and with a unit of images; it decides nothing about the output."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float32

from gmia_monai.dicom.decode import Decoded
from gmia_monai.dicom.decoder import Decoder, read_file
from gmia_monai.dicom.header_check import check_header
from gmia_monai.dicom.intensity import from_unit, integer_to_unit
from gmia_monai.dicom.release_header import Derivation, HeaderRules
from gmia_monai.errors import InputError, ResourceError
from gmia_monai.release.gate import Decision
from gmia_monai.release.instance import SUFFIX_OF, Instance, instance_handle
from gmia_monai.release.intake import admit
from gmia_monai.release.parts import Parts
from gmia_monai.release.pixels import blanked, full_image, upscale
from gmia_monai.release.places import Places
from gmia_monai.release.policy import Policy
from gmia_monai.release.scores import pixel_scores, scores_with_sources
from gmia_monai.release.time_limit import time_limit
from gmia_monai.release.writing import encode, put

__all__ = ["Made", "Workshop"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Made:
    """A new image that waits for its end.

    Attributes:
        handle: of the instance.
        decision: of the gate.
        sha256: of the staged file; empty where there is none.
    """

    handle: str
    decision: Decision
    sha256: str = ""


@dataclass
class Workshop:
    """One worker's tools.

    Attributes:
        key: of the project.
        policy: what may leave, and how.
        places: folders.
        parts: networks, detector, gate.
        seed: secret of the project, see :class:`gmia_monai.release.parts.Redrawing`.
        version: of this package.
        decoder: child process that decodes.
    """

    key: bytes
    policy: Policy
    places: Places
    parts: Parts
    seed: int
    version: str
    decoder: Decoder = field(init=False)

    def __post_init__(self) -> None:
        intake = self.policy.intake
        self.decoder = Decoder(float(intake.decode_seconds), intake.decode_memory_mib)

    def close(self) -> None:
        """Ends the child process."""
        self.decoder.close()

    # -- files ------------------------------------------------------------------------------------------------------
    def take_in(self, relative_path: str) -> Instance:
        """Reads one file and says whether it is taken; whatever is wrong with it, it gets a state and a code."""
        return self.examine(relative_path)[0]

    def examine(self, relative_path: str) -> tuple[Instance, Decoded | None]:
        """As :meth:`take_in`, with what decoding gave where it gave something."""
        handle, decoded = instance_handle(self.key, relative_path), None
        try:
            raw, digest = read_file(self.places.source / relative_path, self.policy.intake.max_file_mib << 20)
            decoded = self.decoder.decode(raw)
            held = admit(decoded, self.policy.intake)
            decoded, text = self._without_text(decoded)
            found = self._instance(relative_path, digest, decoded)
            held += text + self._held_for(found)
        except InputError as error:
            return Instance(handle, "rejected", (error.code,)), decoded
        except ResourceError:
            raise  # the machine lacks something: no end for the image, which another run may give it
        except TimeoutError:
            return Instance(handle, "held", ("GM-H203",)), decoded
        except Exception as error:  # noqa: BLE001 - no file may end the run, and what is unknown is not released
            _log.warning("%s: intake ended with %s", handle, type(error).__name__)
            return Instance(handle, "held", ("GM-H204",)), decoded
        return (found.stopped("held", tuple(held)) if held else found), decoded

    def _instance(self, relative_path: str, digest: str, decoded: Decoded) -> Instance:
        header = self.policy.header
        rules = HeaderRules(header.retain_patient_characteristics, header.dates == "shift", header.max_shift_days)
        weights = hashlib.sha256(repr(sorted(self.parts.redraw.weights.items())).encode()).hexdigest()
        side = self.parts.redraw.image_size
        done = Derivation(self.parts.redraw.description, weights, self.version, True, side, (0, 0))
        return Instance.taken_from(self.key, relative_path, digest, decoded, rules, done, side)

    def _without_text(self, decoded: Decoded) -> tuple[Decoded, list[str]]:
        """The image without the lines of text that the policy blanks, and why it is held where text is left."""
        says_so = decoded.header is not None and decoded.header.burned_in == "YES"
        words = self.parts.find_text(integer_to_unit(decoded.levels, 16))
        if not words:  # text that a header speaks of and nobody finds may be anywhere
            return decoded, ["GM-H007"] if says_so else []
        if self.policy.text.before == "hold":
            return decoded, ["GM-H007"]
        levels = blanked(decoded.levels, [word.box for word in words])
        left = self.parts.find_text(integer_to_unit(levels, 16))
        return replace(decoded, levels=levels), ["GM-H007"] if left else []

    def _held_for(self, found: Instance) -> list[str]:
        """What the pixels say against an image."""
        assert found.image is not None
        return [] if float(self.parts.watch.strangeness(found.image[None])[0]) <= 1.0 else ["GM-H006"]

    # -- units ------------------------------------------------------------------------------------------------------
    def make(self, unit: Sequence[Instance], others: Mapping[str, Float32[np.ndarray, "m s s"]]) -> list[Made]:
        """New images of a unit, staged and judged.

        Args:
            unit: instances that were taken.
            others: all source images of each patient, by the patient's name.
        """
        images = np.stack([instance.image for instance in unit if instance.image is not None]).astype(np.float32)
        try:
            known, handles, patients = ([getattr(i, name) for i in unit] for name in ("known", "handle", "patient"))
            with time_limit(self.policy.system.unit_seconds):
                squares = np.asarray(self.parts.redraw(images, known, handles, patients, self.seed))
            if squares.shape != images.shape:
                raise ValueError
        except TimeoutError:
            return [Made(instance.handle, self.parts.gate.judge({}, ["GM-H207"])) for instance in unit]
        except Exception as error:  # noqa: BLE001 - held, whatever it was
            _log.warning("a unit of %d: anonymization ended with %s", len(unit), type(error).__name__)
            return [Made(instance.handle, self.parts.gate.judge({}, ["GM-H205"])) for instance in unit]
        return [self._made(i, square, others[i.patient]) for i, square in zip(unit, squares, strict=True)]

    def _made(self, instance: Instance, square: np.ndarray, sources: np.ndarray) -> Made:
        failures: list[str] = []
        scores: dict[str, object] = {}
        digest = ""
        try:
            raw = encode(instance, square, self.policy.header.background)
            path = self.places.staged(instance.name, SUFFIX_OF[instance.format])
            put(path, raw)
            staged = path.read_bytes()  # what is judged is what is on the disk
            digest = hashlib.sha256(staged).hexdigest()
            with time_limit(self.policy.checks.seconds):
                scores = self._scores(instance, square, staged, sources)
        except TimeoutError:
            self.decoder.close()  # its answer may still be on the way; it starts again by itself
            failures.append("GM-H203")
        except Exception as error:  # noqa: BLE001 - a check that was not made is not passed
            if isinstance(error, OSError | ResourceError):
                raise  # a full disk, a detector that is not installed: no fault of the image
            _log.warning("%s: a check ended with %s", instance.handle, type(error).__name__)
            failures.append("GM-H204")
        return Made(instance.handle, self.parts.gate.judge(scores, failures), digest)

    def _scores(self, instance: Instance, square: np.ndarray, staged: bytes, sources: np.ndarray) -> dict[str, object]:
        """Of each check of the gate, on the staged bytes."""
        watch, size = self.parts.watch, self.parts.redraw.image_size
        back = self.decoder.decode(staged)
        assert instance.image is not None
        scores: dict[str, object] = {
            **pixel_scores(back.levels, size, watch, self.parts.find_text),
            **scores_with_sources(back.levels, instance.image, sources, watch),
        }
        return scores | {
            "upscale": upscale(instance.rows, instance.columns, size),
            "header": float(len(check_header(staged))) if instance.format == "dicom" else 0.0,
            "pixels": _difference(instance, square, back, self.policy.header.background),
        }


def _difference(instance: Instance, square: np.ndarray, back: Decoded, background: str) -> float:
    """Largest difference, in levels of the written depth, between what was to be written and what is there."""
    if back.levels.shape != (instance.rows, instance.columns):
        return float("inf")
    meant = from_unit(full_image(square, instance.rows, instance.columns, background), instance.bits).astype(np.int64)
    there = np.rint(back.levels / 65535 * (2**instance.bits - 1)).astype(np.int64)
    return float(np.abs(meant - there).max())
