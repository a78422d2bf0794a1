from __future__ import annotations

import numpy as np
import pytest

from gmia_monai.data.labels import findings_of, label_matrix, parse_labels
from gmia_monai.errors import UsageError

_LABELS = [(("Edema", -1.0), ("Mass", 1.0)), (("Mass", -1.0),), (), None, (("Mass", 0.0), ("Other", 1.0))]
_FINDINGS = ("Mass", "Edema")


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("Mass|?Edema", (("Mass", 1.0), ("Edema", -1.0))),
        ("No Finding", ()),
        ("", None),
        (" Mass | ", (("Mass", 1.0),)),
    ],
)
def test_parse(text, labels):
    assert parse_labels(text) == labels


def test_findings_are_sorted_and_unique():
    assert findings_of(_LABELS) == ("Edema", "Mass", "Other")


@pytest.mark.parametrize(("policy", "value"), [("zeros", 0.0), ("ones", 1.0), ("ignore", np.nan)])
def test_policies(policy, value):
    expected = np.array([[1, value], [value, 0], [0, 0], [np.nan, np.nan], [0, 0]], dtype=np.float32)
    matrix = label_matrix(_LABELS, _FINDINGS, policy)
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix, expected)


def test_soft_labels_are_drawn_one_by_one_in_the_ranges_of_the_paper():
    labels = [(("Mass", -1.0), ("Edema", -1.0), ("Atelectasis", -1.0), ("Hernia", 1.0))] * 500
    matrix = label_matrix(labels, ("Mass", "Edema", "Atelectasis", "Hernia"), "soft", seed=3)
    for column, (low, high) in enumerate([(0, 0.3), (0.55, 0.85), (0.55, 0.85)]):
        drawn = matrix[:, column]
        assert low <= drawn.min() and drawn.max() <= high
        assert np.ptp(drawn) > 0.95 * (high - low) and len(np.unique(drawn)) > 400
        assert abs(drawn.mean() - (low + high) / 2) < 0.02
    assert (matrix[:, 3] == 1).all(), "a certain label stays"
    again = label_matrix(labels, ("Mass", "Edema", "Atelectasis", "Hernia"), "soft", seed=3)
    np.testing.assert_array_equal(matrix, again)
    assert not np.array_equal(matrix, label_matrix(labels, ("Mass", "Edema", "Atelectasis", "Hernia"), "soft", seed=4))


def test_no_findings_and_no_images():
    assert label_matrix(_LABELS, (), "soft").shape == (5, 0)
    assert label_matrix([], _FINDINGS).shape == (0, 2)


def test_unknown_policy():
    with pytest.raises(UsageError, match="GM-U032"):
        label_matrix(_LABELS, _FINDINGS, "guess")
