"""Why an instance is held: the code that ledger and report give, and what a person reads.

Held: the image may be fit for release, but a check did not pass, or could not be made. What can never be released is
rejected with the code of the :class:`gmia_monai.errors.InputError` that said so.
"""

from __future__ import annotations

from types import MappingProxyType

__all__ = ["BY_ATTACK", "BY_PERSON", "HELD", "HELD_BY_CHECK", "REJECTED", "reason"]

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
        "GM-H207": "the anonymization took too long",
        "GM-H301": "held by a person",
    }
)

BY_ATTACK, BY_PERSON = "GM-H206", "GM-H301"

# What the errors of these codes say, without what each of them found.
REJECTED = MappingProxyType(
    {
        "GM-D001": "the file cannot be opened or read",
        "GM-D002": "a format that is not read",
        "GM-D003": "the file cannot be decoded: damaged, cut off, or not what it says",
        "GM-D004": "the image is not monochrome",
        "GM-D005": "several frames or slices",
        "GM-D006": "the image is too small",
        "GM-D007": "the image is constant",
        "GM-D008": "values that are not finite",
        "GM-D009": "no image in the DICOM object",
        "GM-D010": "the image is too large",
        "GM-D011": "bit depth out of range",
        "GM-D012": "grey levels that the header does not describe in a way that can be used",
        "GM-D020": "not a radiograph",
        "GM-D021": "the header names no patient, study, series or instance",
        "GM-D022": "the header lacks the pixel spacing that its class has to have",
        "GM-D023": "the file grows beyond all measure when it is unpacked",
        "GM-D024": "the header has too many elements, or is nested too deeply",
        "GM-D025": "not a plain file: a link, a pipe, a device",
        "GM-D026": "the file is too large",
        "GM-D027": "decoding took too much time or memory, or ended the decoder",
        "GM-D028": "the file changed while it was read",
        "GM-D030": "the file says nothing of its image, and the policy takes no such files",
        "GM-D031": "a kind of image that the policy does not take",
        "GM-D032": "another body part than the chest, or none that is named",
        "GM-D033": "a view that the policy does not take, or none that is named",
        "GM-D034": "a patient younger than the policy takes, or of unknown age",
        "GM-D035": "a copy of another file of the input",
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


def reason(code: str) -> str:
    """What a code of an end means, for people."""
    return HELD.get(code) or REJECTED.get(code) or "no known reason"
