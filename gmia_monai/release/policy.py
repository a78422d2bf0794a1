"""The policy of a release: one file that says what may leave, how, and after which checks.

Plain YAML or JSON into one frozen model: a word that is not known is an error, nothing in it is evaluated.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from gmia_monai.dicom.text import MARKERS
from gmia_monai.errors import UsageError
from gmia_monai.typing import PathLike

__all__ = ["Policy", "explain_policy", "load_policy"]

_MAX_BYTES = 1 << 20
Setting = Union[bool, int, float, str, list[Union[bool, int, float, str]], None]  # noqa: UP007 - read at run time
Act = Literal["hold", "reject"]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


def _default_settings() -> dict[str, Setting]:
    return {"temperature": 0.7, "emphasis": 3.0, "steps": 12, "lr": 0.08, "refiner": "latent_diffusion"}


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


class System(_Part):
    """What rewrites the pixels."""

    name: str = Field(
        "robust", pattern=r"^[a-z0-9_]{1,40}$", description="a name of `gmia benchmark --list`, one to one"
    )
    settings: dict[str, Setting] = Field(
        default_factory=_default_settings,
        description="of the class of that name, as in benchmark.yaml",
    )
    image_size: int = Field(64, ge=32, le=1024, description="side in pixels that the weights are for")
    unit_seconds: int = Field(900, ge=1, le=86_400, description="for the new images of a unit, then they are held")


class Intake(_Part):
    """Which images are taken; what is not taken is held (a person may look) or rejected."""

    modalities: list[Literal["CR", "DX"]] = Field(["CR", "DX"], description="of DICOM files")
    secondary_capture: bool = Field(False, description="take secondary captures that say they are chest radiographs")
    images_without_header: bool = Field(False, description="take PNG, JPEG and NIfTI, which say nothing of themselves")
    views: list[Literal["PA", "AP", "LL", "RL"]] = Field(["PA", "AP"], description="view positions that are taken")
    unknown_view: Act = Field("hold", description="where the header names no view")
    other_view: Act = Field("reject", description="where it names another one")
    unknown_body_part: Act | Literal["take"] = Field("take", description="where a CR or DX names no body part")
    min_age_years: int = Field(18, ge=0, le=120, description="younger patients are not taken")
    under_age: Act = Field("reject", description="younger patients")
    unknown_age: Act | Literal["take"] = Field("hold", description="where age and birth date are missing")
    max_file_mib: int = Field(512, ge=1, le=4096, description="larger files are rejected unread")
    decode_seconds: int = Field(30, ge=1, le=600, description="for reading one file, then it is rejected")
    decode_memory_mib: int = Field(2048, ge=256, le=65536, description="for reading one file")


class Text(_Part):
    """Burned-in text, looked for before and after; what is found in a new image always holds it."""

    before: Literal["hold", "blank"] = Field(
        "hold", description="text in a source: held, or its lines blanked before anything else sees the image"
    )
    markers: list[str] = Field(list(MARKERS), description="words that are no text")


class Header(_Part):
    """What the new header holds."""

    retain_patient_characteristics: bool = Field(True, description="sex and age (ages above 89 become 90)")
    dates: Literal["shift", "remove"] = Field("shift", description="shift: by one keyed number of days a patient")
    max_shift_days: int = Field(365, ge=7, le=3650, description="largest shift, either way; never 0")
    background: Literal["black", "edge"] = Field("black", description="what lies outside the square that was rewritten")


class Checks(_Part):
    """What an image has to pass."""

    identity_share: float = Field(
        0.01,
        gt=0.0,
        le=0.2,
        description="share of pairs of strangers, on either side, whose scores count as too near or too far",
    )
    max_utility_drift: Share = Field(0.35, description="mean change of the probabilities of findings")
    min_contrast: Share = Field(0.05, description="standard deviation of grey values that an image must have, of 1")
    max_upscale: float | None = Field(
        None, ge=1.0, description="quality floor: largest factor between the sides of the written and the model's image"
    )
    seconds: int = Field(300, ge=1, le=86_400, description="for the checks of one image, then it is held")
    max_copy_cos: float = Field(0.9, gt=0.0, le=1.0, description="similarity to a training image that is a copy")


class Batch(_Part):
    """The adaptive attack on the whole release (T1, matched negatives, cross-fitted over patients)."""

    attack: Literal["off", "report", "require"] = Field(
        "off", description="report: made and reported; require: nothing is released before it has passed"
    )
    max_auc: float = Field(0.6, gt=0.5, le=1.0, description="largest upper 95 % limit of its AUC that passes")
    min_patients: int = Field(
        100, ge=20, description="patients with two images or more; with fewer it cannot tell, and does not pass"
    )
    folds: int = Field(5, ge=3, le=20, description="of patients")
    steps: int = Field(100, ge=1, le=10_000, description="updates of each refit")


class Review(_Part):
    """What a person may do who looks at the new images (`gmia review`)."""

    may_release: list[Literal["GM-H103", "GM-H104", "GM-H105", "GM-H106"]] = Field(
        [],
        description="reasons that a person may overrule: diagnosis, contrast, enlargement, text in the new image; "
        "nobody overrules identity, copies, headers and checks that failed",
    )
    show_sources: bool = Field(False, description="show the source, at the model's size, beside its new image")


class Policy(_Part):
    """A policy; every part has defaults that are the careful ones."""

    version: int = Field(1, ge=1, le=1, description="of this format")
    linkage: Literal["unlinkable", "pseudonymous"] = Field(
        "unlinkable", description="pseudonymous: one new identity a patient, so that series stay series"
    )
    system: System = System()
    intake: Intake = Intake()
    text: Text = Text()
    header: Header = Header()
    checks: Checks = Checks()
    batch: Batch = Batch()
    review: Review = Review()

    @model_validator(mode="after")
    def _fits_together(self) -> Policy:
        if "policy" in self.system.settings:
            raise ValueError("linkage is said once: at the top, not in system.settings")
        return self

    def to_json(self) -> str:
        """All settings, defaults included; :func:`load_policy` reads them."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, indent=1) + "\n"

    @property
    def sha256(self) -> str:
        """Of :meth:`to_json`: names the policy in ledger and report."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


def load_policy(path: PathLike | Mapping[str, Any] | None) -> Policy:
    """Reads a policy from a file, or takes its settings as they are; None: all defaults.

    Raises:
        UsageError: ``GM-U402`` where there is no such file, ``GM-U403`` where it is no YAML or JSON of plain values,
            ``GM-U404`` for a setting that is not known or out of its range.
    """
    if path is None:
        return Policy()
    if isinstance(path, Mapping):
        return _checked(path)
    path = Path(path)
    if not path.is_file():
        raise UsageError("GM-U402", "no policy file", got=path.name, next_step="leave --policy out for the defaults")
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError
        loader = _Plain(path.read_text(encoding="utf-8"))
        found = loader.get_single_data()
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        raise UsageError("GM-U403", "the policy is no plain YAML or JSON", got=path.name) from None
    if found is None:
        found = {}
    if not isinstance(found, dict):
        raise UsageError("GM-U403", "the policy is no mapping of settings", got=path.name)
    return _checked(found)


def _checked(found: Mapping[str, Any]) -> Policy:
    try:
        return Policy.model_validate(dict(found))
    except ValidationError as error:
        raise UsageError("GM-U404", "the policy cannot be used", got=_first(error)) from None


class _Plain(yaml.SafeLoader):  # type: ignore[misc]  # untyped library
    """Plain values only: no tags, no anchors, no key twice."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("no aliases")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value]
        if len(names) != len(set(map(str, names))):
            raise yaml.YAMLError("a key twice")
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        return found


def _first(error: ValidationError) -> str:
    """The first complaint in words; for an unknown word the nearest one that there is."""
    one = error.errors(include_url=False)[0]
    place = [str(part) for part in one["loc"]]
    where = ".".join(place) or "policy"
    if one["type"] == "extra_forbidden":
        known = [name for name, _, _ in explain_policy()]
        near = difflib.get_close_matches(where, known, 1) or [n for n in known if n.endswith("." + place[-1])]
        return f"{where}: not a setting" + (f"; did you mean {near[0]}?" if near else "")
    return f"{where}: {one['msg'][0].lower()}{one['msg'][1:]}"


def explain_policy() -> Iterator[tuple[str, str, str]]:
    """Every setting as (dotted name, default, meaning)."""
    yield from _explained(Policy, "")


def _explained(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str, str]]:
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _explained(kind, f"{prefix}{name}.")
        else:
            default = field.get_default(call_default_factory=True)
            yield f"{prefix}{name}", json.dumps(default), f"{field.description}{_choices(field)}"


def _choices(field: FieldInfo) -> str:
    """The words that a setting may be, where it is one of a few."""
    words: list[str] = []
    kinds = [field.annotation]
    while kinds:
        kind = kinds.pop()
        if get_origin(kind) is Literal:
            words += [str(word) for word in get_args(kind)]
        elif get_origin(kind) is Union or "|" in str(kind):
            kinds += [k for k in get_args(kind)]
    return f" ({', '.join(words)})" if len(words) > 1 else ""
