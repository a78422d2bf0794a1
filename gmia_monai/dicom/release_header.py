"""Release header: a new data set, made from an allow-list of parsed facts, never an old one stripped.

What is not written here cannot be in a release: no private element, overlay, icon, signature, free text or preamble of
the source. IODs: Computed Radiography (PS3.3 A.2), Digital X-Ray for presentation (A.26), Secondary Capture (A.8.1).
De-identification: PS3.15 Basic Profile (113100) with, where a policy says so, Retain Patient Characteristics (113108)
and Retain Longitudinal Temporal Information With Modified Dates (113107).

Clean Recognizable Visual Features (113102) is not claimed: it speaks of faces, not of what identifies in a radiograph.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydicom import Dataset, Sequence
from pydicom.dataset import FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import UID, ExplicitVRLittleEndian

from gmia_monai.dicom.dates import shift_date, shift_days
from gmia_monai.dicom.pseudonyms import handle, uid
from gmia_monai.dicom.source_header import SOP_CLASSES, SourceHeader

__all__ = ["OLDEST_YEARS", "Derivation", "HeaderRules", "ReleaseNames", "release_dataset", "release_names"]

OLDEST_YEARS = 90  # ages above 89 are told as one
_CODES = {
    "basic": codes.DCM.BasicApplicationConfidentialityProfile,
    "characteristics": codes.DCM.RetainPatientCharacteristicsOption,
    "dates": codes.DCM.RetainLongitudinalTemporalInformationModifiedDatesOption,
    "pixels": codes.DCM.CleanPixelDataOption,
}
_VIEWS = {
    "PA": codes.cid4010.PosteroAnterior,
    "AP": codes.cid4010.AnteroPosterior,
    "LL": codes.cid4010.LeftLateral,
    "RL": codes.cid4010.RightLateral,
}
_DATES = ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate")


@dataclass(frozen=True)
class HeaderRules:
    """What a policy says of headers.

    Attributes:
        characteristics: keep sex and age.
        shift_dates: keep dates, shifted; else there are none.
        max_shift_days: largest shift.
    """

    characteristics: bool = True
    shift_dates: bool = True
    max_shift_days: int = 365


@dataclass(frozen=True)
class Derivation:
    """What was done to the pixels, in words and hashes for the new header.

    Attributes:
        description: of the method.
        model_sha256: of the weights that redrew the image.
        version: of this package.
        text_checked: whether the new pixels were searched for text, and none was found.
        from_side, to_sides: side of the model's image, rows and columns of the written one.
    """

    description: str
    model_sha256: str
    version: str
    text_checked: bool
    from_side: int
    to_sides: tuple[int, int]


@dataclass(frozen=True)
class ReleaseNames:
    """Pseudonyms of one instance within a project."""

    patient: str
    study: str
    series: str
    instance: str
    accession: str
    file: str


def release_names(key: bytes, source: SourceHeader, derivation: str) -> ReleaseNames:
    """Keyed hashes in the place of identifiers; ``derivation`` sets series and instance apart from those of another
    policy or model, as a derived image has to be.

    Args:
        key: of the project: within it the same identifiers give the same names, in another one unrelated ones.
        source: identifiers.
        derivation: hash of policy and model.
    """
    return ReleaseNames(
        patient=handle(key, f"patient {source.patient}"),
        study=uid(key, f"study {source.study}"),
        series=uid(key, f"series {source.series} {derivation}"),
        instance=uid(key, f"instance {source.instance} {derivation}"),
        accession=handle(key, f"accession {source.accession}") if source.accession else "",
        file=handle(key, f"file {source.instance} {derivation}", 32),
    )


def release_dataset(
    key: bytes, source: SourceHeader, names: ReleaseNames, rules: HeaderRules, derivation: Derivation
) -> Dataset:
    """The header of a released image, without its pixels.

    Args:
        key: of the project.
        source: facts that are kept.
        names: from :func:`release_names`.
        rules: of the policy.
        derivation: what was done to the pixels.
    """
    dataset = Dataset()
    _identity(dataset, source, names)
    _patient(dataset, source, rules)
    _time(dataset, key, source, rules)
    _image(dataset, source)
    _what_was_done(dataset, source, rules, derivation)
    {"CR": _computed, "DX": _digital, "SC": _captured}[source.kind](dataset, source)
    return dataset


def _identity(dataset: Dataset, source: SourceHeader, names: ReleaseNames) -> None:
    sop_class = next(uid_ for uid_, kind in SOP_CLASSES.items() if kind == source.kind)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = UID(sop_class)
    dataset.file_meta.MediaStorageSOPInstanceUID = UID(names.instance)
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = names.instance
    dataset.StudyInstanceUID = names.study
    dataset.SeriesInstanceUID = names.series
    dataset.PatientName = dataset.PatientID = names.patient
    dataset.AccessionNumber = names.accession
    dataset.Modality = "OT" if source.kind == "SC" else source.kind
    for keyword in ("StudyID", "ReferringPhysicianName", "PatientBirthDate", "Manufacturer"):
        setattr(dataset, keyword, "")
    dataset.SeriesNumber = str(source.series_number) if source.series_number else ""
    dataset.InstanceNumber = str(source.instance_number) if source.instance_number else ""


def _patient(dataset: Dataset, source: SourceHeader, rules: HeaderRules) -> None:
    dataset.PatientSex = source.sex if rules.characteristics else ""
    if rules.characteristics and source.age_years is not None:
        dataset.PatientAge = f"{min(source.age_years, OLDEST_YEARS):03d}Y"


def _time(dataset: Dataset, key: bytes, source: SourceHeader, rules: HeaderRules) -> None:
    days = shift_days(key, source.patient, rules.max_shift_days)
    for keyword in _DATES:
        shifted = shift_date(source.dates.get(keyword, ""), days) if rules.shift_dates else ""
        if shifted or keyword == "StudyDate":
            setattr(dataset, keyword, shifted)
    dataset.StudyTime = ""
    modified = rules.shift_dates and bool(source.dates)
    dataset.LongitudinalTemporalInformationModified = "MODIFIED" if modified else "REMOVED"


def _image(dataset: Dataset, source: SourceHeader) -> None:
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.PatientOrientation = list(source.orientation) if source.orientation else ""
    if source.body_part == "CHEST":
        dataset.BodyPartExamined = "CHEST"


def _what_was_done(dataset: Dataset, source: SourceHeader, rules: HeaderRules, done: Derivation) -> None:
    rows, cols = done.to_sides
    dataset.DerivationDescription = (
        f"{done.description}; redrawn at {done.from_side} x {done.from_side} pixels and enlarged to {rows} x {cols}: "
        f"it has the detail of {done.from_side} pixels"
    )[:1024]
    dataset.LossyImageCompression = "00"
    dataset.BurnedInAnnotation = "NO" if done.text_checked else "YES"
    dataset.PatientIdentityRemoved = "YES"
    claimed = ["basic"]
    claimed += ["characteristics"] if rules.characteristics else []
    claimed += ["dates"] if rules.shift_dates else []
    claimed += ["pixels"] if done.text_checked else []
    dataset.DeidentificationMethod = ["PS3.15 Basic Profile", f"gmia_monai {done.version}"]
    dataset.DeidentificationMethodCodeSequence = Sequence([_item(_CODES[name]) for name in claimed])
    equipment = Dataset()
    equipment.PurposeOfReferenceCodeSequence = Sequence([_item(codes.DCM.ModifyingEquipment)])
    equipment.Manufacturer = "gmia_monai"
    equipment.SoftwareVersions = done.version
    equipment.ContributionDescription = f"model sha256 {done.model_sha256}"
    dataset.ContributingEquipmentSequence = Sequence([equipment])


def _computed(dataset: Dataset, source: SourceHeader) -> None:
    dataset.ViewPosition = source.view if source.view != "other" else ""
    dataset.KVP = ""
    if source.spacing_mm is not None:
        dataset.ImagerPixelSpacing = [f"{mm:.4g}" for mm in source.spacing_mm]


def _digital(dataset: Dataset, source: SourceHeader) -> None:
    dataset.ImageType = ["DERIVED", "SECONDARY", ""]
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.ViewPosition = source.view if source.view != "other" else ""
    dataset.ImageLaterality = "U"
    dataset.AnatomicRegionSequence = Sequence([_item(codes.SCT.Chest)])
    dataset.AcquisitionContextSequence = Sequence([])
    dataset.ViewCodeSequence = Sequence([_item(_VIEWS[source.view])] if source.view in _VIEWS else [])
    dataset.DetectorType = ""
    dataset.ImagerPixelSpacing = [f"{mm:.4g}" for mm in source.spacing_mm or ()]
    dataset.PixelIntensityRelationship = "LOG"
    dataset.PixelIntensityRelationshipSign = 1
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = "0", "1", "US"


def _captured(dataset: Dataset, source: SourceHeader) -> None:
    dataset.ConversionType = "WSD"


def _item(code: Code) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item
