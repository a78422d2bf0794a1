"""LoadRadiographd: the path under a key becomes the radiograph, as the networks take it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from gmia_monai.errors import InputError
from gmia_monai.transforms.frame import frame_key
from gmia_monai.transforms.readers import read_radiograph

__all__ = ["LoadRadiographd"]


class LoadRadiographd(MapTransform):
    """Read PNG, JPEG, DICOM or NIfTI: ``Float[Tensor, "1 h w"]`` in [0, 1], MONOCHROME2, row-major.

    Args:
        keys: keys that hold a path.
        track_meta: also keep the image's `Frame` under ``<key>_frame``, from which a result is written back in the
            input's size and depth. Off for training: batches stay plain tensors. With it on, give the DataLoader
            ``collate_fn=collate_frames``.
        allow_missing_keys: pass over keys that are absent.
        name_file: errors name the file. Only for training: names of files can hold names of patients.

    Raises:
        InputError: as `read_radiograph`.
    """

    def __init__(
        self,
        keys: KeysCollection,
        track_meta: bool = False,
        allow_missing_keys: bool = False,
        name_file: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.name_file = name_file
        self.track_meta = track_meta

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            try:
                image, frame = read_radiograph(result[key])
            except InputError as error:
                if not self.name_file:
                    raise
                raise InputError(
                    error.code,
                    f"{Path(result[key]).name}: {error.what}",
                    got=error.got,
                    expected=error.expected,
                    next_step=error.next_step,
                ) from error
            result[key] = torch.from_numpy(image)[None]
            if self.track_meta:
                result[frame_key(key)] = frame
        return result
