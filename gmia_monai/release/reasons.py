"""Why an instance is held: the code that ledger and report give, and what a person reads.

Held: the image may be fit for release, but a check did not pass, or could not be made. What can never be released is
rejected with the code of the :class:`gmia_monai.errors.InputError` that said so.
"""

from __future__ import annotations

from types import MappingProxyType

__all__ = ["HELD", "HELD_BY_CHECK"]

HELD = MappingProxyType(
    {
        "GM-H001": "the view is not known",
        "GM-H002": "the age is not known",
        "GM-H003": "the body part is not known",
        "GM-H004": "the view is not among those that are taken",
        "GM-H005": "the patient is younger than the policy takes",
        "GM-H006": "unlike the images that the models know",
        "GM-H007": "text in the image",
        "GM-H008": "another file has the same identifier and other content",
        "GM-H101": "still too near to an image of the patient",
        "GM-H102": "further from an image of the patient than strangers are, which can be found as well",
        "GM-H103": "the diagnosis changed more than the policy allows",
        "GM-H104": "too little contrast: an empty image",
        "GM-H105": "enlarged more than the policy allows",
        "GM-H106": "text in the new image",
        "GM-H107": "the new header holds what it should not, or lacks what it should have",
        "GM-H108": "a copy of an image that the models learned from",
        "GM-H109": "the written file does not read back to the same pixels",
        "GM-H201": "a check gave no number",
        "GM-H202": "a check that the gate does not know",
        "GM-H203": "a check took too long",
        "GM-H204": "a check ended with an error",
        "GM-H205": "the anonymization ended with an error",
        "GM-H206": "the attack on the whole release did not pass, or cannot tell",
        "GM-H301": "held by a person",
    }
)

# Code where the score of a check is below, and where it is above what it has to be.
HELD_BY_CHECK = MappingProxyType(
    {
        "identity": ("GM-H102", "GM-H101"),
        "utility_drift": ("GM-H201", "GM-H103"),
        "contrast": ("GM-H104", "GM-H201"),
        "upscale": ("GM-H201", "GM-H105"),
        "text": ("GM-H201", "GM-H106"),
        "header": ("GM-H201", "GM-H107"),
        "copy": ("GM-H201", "GM-H108"),
        "pixels": ("GM-H201", "GM-H109"),
    }
)
