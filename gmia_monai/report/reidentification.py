"""The row of Packhäuser et al. (Scientific Reports 12, 14851, 2022): how well a Siamese network finds a person again.

Verification, accuracy at a threshold, retrieval, and the years between two images, of unchanged images and of every
system, beside what was published for unchanged ones.
"""

from __future__ import annotations

from collections.abc import Mapping

from gmia_monai.report.cells import System
from gmia_monai.report.counted import Figure, counted_table

__all__ = ["PUBLISHED", "reidentification_parts"]

PUBLISHED = (
    "Published for unchanged images (Packhäuser et al., *Deep learning-based patient re-identification is able to "
    "exploit the biometric nature of medical chest X-ray data*, Scientific Reports 12, 14851, 2022): AUC 0.994, "
    "accuracy 95.55 %, mAP@R 0.9748, precision@1 0.9963. These are of all of ChestX-ray14, images of 1024 px resized "
    "to 256 px for verification, 100,000 test pairs, and networks pre-trained on ImageNet. Not the same data, sizes, "
    "pairs or galleries: they stand beside these lines and are not to be compared digit by digit."
)
_YEARS = {
    "under 1": "under_1",
    "1 to 2": "1_to_2",
    "2 to 5": "2_to_5",
    "5 to 10": "5_to_10",
    "10 or more": "10_or_more",
}
_FOUND: dict[str, Figure] = {
    "AUC (random negatives)": Figure("verification_auc.T1.snn.v1", ("random",)),
    "AUC (matched negatives)": Figure("verification_auc.T1.snn.v1", ("matched",)),
    "accuracy, two released images": Figure("linkability_accuracy.inner.snn.v1", ("balanced",)),
    "mAP@R": Figure("map_at_r.released_in_real.snn.v1"),
    "precision@1": Figure("rank_1.released_in_real.snn.v1"),
}


def reidentification_parts(systems: Mapping[str, System]) -> list[str]:
    """Paragraphs and tables; a sentence where no line has a figure of the Siamese attacker."""
    title = "## Patients found again, after Packhäuser et al."
    found = counted_table(systems, _FOUND)
    years = {
        years: Figure(f"verification_auc_years.T1.worst.{part}.v1", ("matched",)) for years, part in _YEARS.items()
    }
    over_time = counted_table(systems, years)
    if not found:
        parts = [title, "No lines of the Siamese attacker `snn` yet."]
    else:
        parts = [
            title,
            "The attacker `snn`, a Siamese network trained on real images of other patients. AUC: a released image "
            "and another real image of the person (T1). Accuracy: on pairs of two released images, half of one person, "
            "at the threshold of the highest F1 on V2. mAP@R and precision@1: a released image in a gallery of real "
            "ones without its source. On `unchanged`, all of these compare real images.",
            *found,
            PUBLISHED,
        ]
    if over_time:
        parts += ["AUC by years between the two images, T1, worst attacker, matched negatives:", *over_time]
    return parts
