"""The row of Packhäuser et al. (Scientific Reports 12, 14851, 2022): how well their two networks find a person again.

Verification and accuracy at a threshold by the Siamese verifier, retrieval by the retrieval network, and the years
between two images, of unchanged images and of every system, beside what was published for unchanged ones.
"""

from __future__ import annotations

from collections.abc import Mapping

from gmia_monai.report.cells import System
from gmia_monai.report.counted import Figure, counted_table

__all__ = ["PUBLISHED", "reidentification_parts"]

PUBLISHED = (
    "Published for unchanged images (Packhäuser et al., *Deep learning-based patient re-identification is able to "
    "exploit the biometric nature of medical chest X-ray data*, Scientific Reports 12, 14851, 2022): AUC 0.994, "
    "accuracy 95.55 %, mAP@R 0.9748, precision@1 0.9963. These are of all of ChestX-ray14, images of 1024 px, resized "
    "to 256 px for verification, 100,000 test pairs, and networks pre-trained on ImageNet. Not the same data, sizes, "
    "pairs or galleries: they stand beside these lines and are not to be compared digit by digit."
)
NO_NETWORK = (
    "No lines of the retrieval network (`retrieval*` in the folder of weights, trained by "
    "`bundle/configs/systems/retrieval.yaml`): mAP@R and precision@1 are of the features of the Siamese one alone, "
    "compared by its own last layer, which it was not trained to rank by."
)
_YEARS = {
    "under 1": "under_1",
    "1 to 2": "1_to_2",
    "2 to 5": "2_to_5",
    "5 to 10": "5_to_10",
    "10 or more": "10_or_more",
}
_VERIFIER: dict[str, Figure] = {
    "AUC (random negatives)": Figure("verification_auc.T1.snn.v1", ("random",)),
    "AUC (matched negatives)": Figure("verification_auc.T1.snn.v1", ("matched",)),
    "accuracy, two released images": Figure("linkability_accuracy.inner.snn.v1", ("balanced",)),
}
_NETWORK: dict[str, Figure] = {
    "mAP@R": Figure("map_at_r.released_in_real.retrieval.v1"),
    "precision@1": Figure("rank_1.released_in_real.retrieval.v1"),
}
_FEATURES: dict[str, Figure] = {
    "mAP@R, Siamese features": Figure("map_at_r.released_in_real.snn.v1"),
    "precision@1, Siamese features": Figure("rank_1.released_in_real.snn.v1"),
}
_ATTACKERS = {"snn": "the Siamese verifier", "worst": "the worst attacker"}


def reidentification_parts(systems: Mapping[str, System]) -> list[str]:
    """Paragraphs and tables; a sentence where no line has a figure of either network."""
    title = "## Patients found again, after Packhäuser et al."
    found = counted_table(systems, _VERIFIER | _NETWORK | _FEATURES)
    if found:
        lacking = not any(figure.of(system) for figure in _NETWORK.values() for system in systems.values())
        parts = [
            title,
            "Their two networks, trained on real images of other patients. AUC and accuracy are of the Siamese "
            "verifier, the attacker `snn`. AUC: a released image and another real image of the person (T1). Accuracy: "
            "on pairs of two released images, half of one person, at the threshold of the highest F1 on V2. mAP@R and "
            "precision@1 are of the retrieval network, the attacker `retrieval`, and beside it of the Siamese "
            "features: a released image in a gallery of real ones without its source. On `unchanged`, all of these "
            "compare real images.",
            *found,
            *([NO_NETWORK] if lacking else []),
            PUBLISHED,
        ]
    else:
        parts = [title, "No lines of the Siamese attacker `snn` or of the retrieval network yet."]
    for attacker, words in _ATTACKERS.items():
        over_time = counted_table(systems, _years(attacker))
        if over_time:
            parts += [f"AUC by years between the two images, T1, {words}, matched negatives:", *over_time]
        elif found and attacker == "snn":
            parts += ["No lines of the Siamese verifier by years between the two images."]
    return parts


def _years(attacker: str) -> dict[str, Figure]:
    """Columns of a table: AUC by the years between two images."""
    name = "verification_auc_years.T1.{}.{}.v1"
    return {years: Figure(name.format(attacker, part), ("matched",)) for years, part in _YEARS.items()}
