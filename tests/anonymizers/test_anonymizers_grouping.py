"""Groups are of k different patients, are the same whatever the order of the images, and tell how alike their labels
are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from attack_cohorts import IMAGES_EACH, real_images

from gmia_monai.anonymizers.grouping import (
    diversity_figures,
    label_diversity,
    majority_labels,
    one_image_per_patient,
    same_size_clusters,
)
from gmia_monai.data.cohort import Cohort, ImageRecord
from gmia_monai.data.release import RealImages, Release
from gmia_monai.errors import UsageError


def naive_clusters(points: np.ndarray, k: int) -> list[list[int]]:
    left, groups = list(range(len(points))), []
    while len(left) >= k:
        total = [sum(np.linalg.norm(points[i] - points[j]) for j in left) for i in left]
        first = left[int(np.argmax(total))]
        rest = sorted((i for i in left if i != first), key=lambda i: np.linalg.norm(points[i] - points[first]))
        groups.append([first, *rest[: k - 1]])
        left = [i for i in left if i not in groups[-1]]
    return groups


@pytest.mark.parametrize(("n", "k"), [(23, 5), (20, 5), (9, 2), (7, 7), (11, 10)])
def test_clusters_are_those_of_the_greedy_rule(n, k):
    points = np.random.default_rng(n).standard_normal((n, 3))
    found = same_size_clusters(points, k)
    assert found.tolist() == naive_clusters(points, k)
    assert found.shape == (n // k, k) and len(np.unique(found)) == found.size, "the rest is in no group"


def test_equal_points_are_grouped_as_well():
    found = same_size_clusters(np.zeros((7, 2)), 3)
    assert found.tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(("n", "k"), [(4, 5), (0, 2), (5, 1), (5, 0)])
def test_groups_that_cannot_be_formed_are_refused(n, k):
    with pytest.raises(UsageError) as caught:
        same_size_clusters(np.zeros((n, 2)), k)
    assert caught.value.code == "GM-U067"


def test_every_patient_has_one_image_and_the_seed_decides_which():
    real = real_images("t", 30)
    first, again, other = (one_image_per_patient(real, seed) for seed in (0, 0, 1))
    assert sorted(real.cohort.patient_index[first].tolist()) == list(range(30))
    assert np.array_equal(first, again)
    which = np.array([sorted(chosen) for chosen in (first, other)]) % IMAGES_EACH
    assert set(which[0].tolist()) == set(range(IMAGES_EACH)), "not always the first"
    assert 0.4 < (which[0] != which[1]).mean() < 0.95, "two of three choices differ"


def test_the_order_of_the_list_changes_neither_choice_nor_order():
    real = real_images("t", 12)
    order = np.random.default_rng(0).permutation(len(real))
    assert np.array_equal(order[one_image_per_patient(real.take(order), 3)], one_image_per_patient(real, 3))


def test_patients_with_the_same_image_keep_the_order_of_the_list():
    real = real_images("t", 4).take(np.arange(4) * IMAGES_EACH)
    real = RealImages(real.cohort, np.repeat(real.pixels[:1], 4, axis=0))
    assert one_image_per_patient(real, 0).tolist() == [0, 1, 2, 3]


def _cohort(*labels: tuple[tuple[str, float], ...] | None) -> Cohort:
    return Cohort(tuple(ImageRecord(Path(f"/{i}.png"), f"p{i}", labels=one) for i, one in enumerate(labels)))


def test_label_diversity_counts_sets_of_findings():
    a, b, none = (("A", 1.0),), (("A", 1.0), ("B", 1.0)), ()
    cohort = _cohort(a, b, none, a, (("A", 1.0), ("B", 0.0)), None, (("A", 1.0), ("B", -1.0)))
    groups = ((0, 3), (0, 1, 2), (0, 4, 6), (0, 5), (5,), ())
    release = Release("x", np.zeros((len(groups), 1, 4, 4), np.float32), groups, "k_anonymous")
    assert label_diversity(release, cohort).tolist() == [1, 3, 1, 1, 0, 0]
    assert label_diversity(replace(release, sources=groups[::-1]), cohort).tolist() == [0, 0, 1, 1, 3, 1]


def test_without_findings_all_sets_are_the_same():
    release = Release("x", np.zeros((1, 1, 4, 4), np.float32), ((0, 1),))
    assert label_diversity(release, _cohort((), ())).tolist() == [1]


def test_majority_labels_are_those_of_half_of_the_sources_or_more():
    records = [
        ImageRecord(Path(f"/{i}.png"), f"p{i}", labels=labels)
        for i, labels in enumerate([(("A", 1.0),), (("A", 1.0), ("B", 1.0)), (), None])
    ]
    cohort = Cohort(tuple(records), findings=("A", "B"))
    found = majority_labels(cohort, [[0, 1, 2], [1, 2], [0, 3], [3]])
    assert np.array_equal(found, [[1, 0], [1, 1], [1, 0], [np.nan, np.nan]], equal_nan=True)
    assert majority_labels(Cohort(tuple(records[3:])), [[0]]) is None


def test_figures_of_diversity_are_the_least_and_the_mean():
    assert diversity_figures(np.array([1, 2, 5])) == {"label_diversity_min": 1.0, "label_diversity_mean": 2.667}
    assert diversity_figures(np.array([], dtype=np.int64)) == {}
