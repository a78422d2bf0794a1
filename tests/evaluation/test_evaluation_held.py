"""Who holds a system gives it the records of the images that they know, and seeds of their own."""

from __future__ import annotations

import numpy as np
from attack_cohorts import real_images

from gmia_monai.anonymizers import ImageAnonymizer, Noise, Outcome, Unchanged
from gmia_monai.evaluation.held import held_anonymizer


class _Tinted(ImageAnonymizer):
    """A grey value from the record, and chance from the seed."""

    def __init__(self) -> None:
        super().__init__("tinted", "tinted", random=True)

    def known_of(self, real):
        return np.array([[record.age / 100.0] for record in real.cohort], dtype=np.float32)

    def anonymize_batch(self, images, seeds):
        return images * 0.0, [Outcome()] * len(images)

    def anonymize_known(self, images, seeds, known):
        grey = images * 0.0 + known[:, 0].reshape(-1, 1, 1, 1)
        return grey + 0.001 * (seeds[0] % 7), [Outcome()] * len(images)


def test_records_of_known_images_go_with_them():
    own, judged = real_images("a", 3), real_images("t", 2)
    held = held_anonymizer(_Tinted(), None, [own, judged])
    order = [4, 0]
    ages = np.array([judged.cohort[i].age for i in order]) / 100.0
    assert np.abs(held(judged.pixels[order], 1).mean(axis=(1, 2, 3)) - ages).max() < 0.01
    assert (held(real_images("v", 2).pixels, 1) == 0).all(), "nobody knows these"


def test_seeds_are_the_holders_own_and_other_systems_are_as_they_are():
    real = real_images("t", 2)
    held = held_anonymizer(Noise(), None, [real])
    assert not np.array_equal(held(real.pixels, 1), held(real.pixels, 2))
    assert np.array_equal(held(real.pixels, 1), Noise().anonymize(real, 1).pixels)
    assert np.abs(held_anonymizer(Unchanged())(real.pixels, 0) - real.pixels).max() <= 0.5 / 255 + 1e-6
