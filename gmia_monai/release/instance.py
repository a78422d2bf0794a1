"""Instances: what a run knows of each input file, kept in the work folder so that nothing is read twice.

What is kept is what a release may hold anyway: keyed hashes, the new header, the image at the model's size. No
identifier, no text and no pixel of the source at its own size is written anywhere.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import zipfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset

from gmia_monai.dicom.atomic import atomic_path
from gmia_monai.dicom.decode import Decoded
from gmia_monai.dicom.pseudonyms import handle
from gmia_monai.dicom.release_header import Derivation, HeaderRules, release_dataset, release_names
from gmia_monai.errors import IntegrityError
from gmia_monai.release.pixels import model_image
from gmia_monai.typing import PathLike

__all__ = ["SUFFIX_OF", "Instance", "instance_handle", "read_instance", "write_instance"]

SUFFIX_OF = {"dicom": ".dcm", "png": ".png", "jpeg": ".png", "nifti": ".nii.gz"}
_STATES = ("taken", "held", "rejected")


def instance_handle(key: bytes, relative_path: str) -> str:
    """Keyed hash of a file's place in the input; names the instance in ledger, log and report."""
    return handle(key, f"instance {relative_path}")


@dataclass(frozen=True, eq=False)
class Instance:
    """One input file after intake.

    Attributes:
        handle: see :func:`instance_handle`.
        state: ``taken``, ``held`` or ``rejected``.
        codes: why it is not taken.
        content: keyed hash of the file, which tells copies; of one that could not be read empty.
        name: of the released file; keyed hash of the identifier.
        patient: keyed hash.
        format: of the input.
        photometric, bits, rows, columns: of the input, which the release takes over.
        header: the new header as DICOM JSON; None for formats without one.
        known: facts that the anonymization may use: ``view``, ``sex`` and ``age``.
        image: the source at the model's size, in [0, 1].
    """

    handle: str
    state: str
    codes: tuple[str, ...] = ()
    content: str = ""
    name: str = ""
    patient: str = ""
    format: str = ""
    photometric: str = "MONOCHROME2"
    bits: int = 8
    rows: int = 0
    columns: int = 0
    header: dict[str, Any] | None = field(default=None, repr=False)
    known: dict[str, Any] = field(default_factory=dict, repr=False)
    image: Float32[np.ndarray, "s s"] | None = field(default=None, repr=False)

    @classmethod
    def taken_from(
        cls,
        key: bytes,
        relative_path: str,
        digest: str,
        decoded: Decoded,
        rules: HeaderRules,
        derivation: Derivation,
        image_size: int,
    ) -> Instance:
        """An image that decoding gave.

        Args:
            key: of the project.
            relative_path: place in the input, for hashing alone.
            digest: SHA-256 of the file, for hashing alone.
            decoded: the image.
            rules: of the policy for headers.
            derivation: what will be done to it; its sizes are set here.
            image_size: side of the model's image.
        """
        rows, columns = decoded.levels.shape
        content = hmac.new(key, f"content {digest}".encode(), hashlib.sha256).hexdigest()[:32]
        found = cls(
            handle=instance_handle(key, relative_path),
            state="taken",
            content=content,
            format=decoded.format,
            photometric=decoded.photometric,
            bits=decoded.bits,
            rows=rows,
            columns=columns,
            image=model_image(decoded.levels, image_size).astype(np.float32),
        )
        by = hashlib.sha256(f"{derivation.description} {derivation.model_sha256}".encode()).hexdigest()
        if decoded.header is None:
            # Nothing says whose it is: a patient of its own, named by its content, as copies have to be told.
            return replace(
                found, name=handle(key, f"file {content} {by}", 32), patient=handle(key, f"content {content}")
            )
        names = release_names(key, decoded.header, by)
        derivation = replace(derivation, from_side=image_size, to_sides=(rows, columns))
        header = release_dataset(key, decoded.header, names, rules, derivation)
        known = {"view": decoded.header.view, "sex": decoded.header.sex, "age": decoded.header.age_years}
        return replace(
            found,
            name=names.file,
            patient=names.patient,
            header={"meta": header.file_meta.to_json_dict(), "dataset": header.to_json_dict()},
            known=known,
        )

    def dataset(self) -> Dataset:
        """The new header; without elements where there is none."""
        found = self.header or {"meta": {}, "dataset": {}}
        dataset = Dataset.from_json(found["dataset"])
        dataset.file_meta = FileMetaDataset(Dataset.from_json(found["meta"]))
        return dataset

    def stopped(self, state: str, codes: tuple[str, ...]) -> Instance:
        """The same, held or rejected."""
        return replace(self, state=state, codes=codes)


def write_instance(instance: Instance, path: PathLike) -> None:
    """Keeps an instance, whole or not at all."""
    facts = {name: value for name, value in vars(instance).items() if name != "image"}
    image = np.zeros((0, 0), np.float32) if instance.image is None else instance.image
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, facts=np.array(json.dumps(facts)), image=image)


def read_instance(path: PathLike) -> Instance | None:
    """An instance that was kept; None where there is none.

    Raises:
        IntegrityError: ``GM-W303`` for a file that is none.
    """
    path = Path(path)
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            facts, image = json.loads(str(arrays["facts"])), arrays["image"]
        found = Instance(**facts | {"codes": tuple(facts["codes"]), "image": image if image.size else None})
        if found.state not in _STATES or (found.state == "taken") != (image.size > 0 and not found.codes):
            raise ValueError
        return found
    except (OSError, ValueError, TypeError, KeyError, zipfile.BadZipFile, EOFError, RecursionError):
        raise IntegrityError(
            "GM-W303", "what was kept of an instance is damaged", next_step="remove the work folder, and run again"
        ) from None
