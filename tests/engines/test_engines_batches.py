"""What the training engines make of a batch."""

from __future__ import annotations

import torch

from gmia_monai.engines import AugmentedBatch, batch_as_target
from gmia_monai.transforms import BatchAugmentation


def test_batch_as_target_gives_the_image_twice() -> None:
    image, target = batch_as_target({"image": torch.ones(2, 1, 4, 4), "label": torch.zeros(2)})
    assert image is target


def test_labels_pass_and_images_change() -> None:
    x = torch.rand(4, 1, 8, 8)
    image, label = AugmentedBatch(BatchAugmentation(flip_prob=1.0))({"image": x, "label": torch.arange(4)})
    assert torch.equal(image, x.flip(-1))
    assert label.tolist() == [0, 1, 2, 3]


def test_an_auto_encoder_gets_the_changed_image_as_target() -> None:
    x = torch.rand(4, 1, 8, 8)
    image, target = AugmentedBatch(BatchAugmentation(flip_prob=1.0))({"image": x})
    assert target is image
    assert torch.equal(image, x.flip(-1))


def test_a_mirrored_patient_is_another_patient() -> None:
    x = torch.rand(100, 1, 8, 8)
    torch.manual_seed(0)
    image, label = AugmentedBatch(BatchAugmentation(), mirrored_classes=7)({"image": x, "label": torch.arange(100) % 7})
    mirrored = label >= 7
    assert 30 <= int(mirrored.sum()) <= 70
    assert torch.equal(image[mirrored], x[mirrored].flip(-1))
    assert torch.equal(image[~mirrored], x[~mirrored])
    assert torch.equal(label % 7, torch.arange(100) % 7)
