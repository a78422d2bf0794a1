"""The synthetic cohort: same bytes, a readable manifest, patients that differ, findings where they belong."""

from __future__ import annotations

import csv
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pydicom
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from gmia_monai.data.phantom import COLUMNS, FINDINGS, Acquisition, Identity, generate_cohort, phantom_image
from gmia_monai.errors import UsageError

SIZE = 64


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return generate_cohort(tmp_path_factory.mktemp("cohort"), n_patients=6, images_per_patient=3, size=SIZE)


@pytest.fixture(scope="module")
def rows(cohort):
    with cohort.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def pixels(path) -> np.ndarray:
    """Image in [0, 1], MONOCHROME2, by Pillow and pydicom alone."""
    if path.suffix == ".png":
        image = Image.open(path)
        return np.asarray(image, dtype=np.float64) / (255 if image.mode == "L" else 65535)
    data = pydicom.dcmread(path)
    values = data.pixel_array / (2**data.BitsStored - 1)
    return 1 - values if data.PhotometricInterpretation == "MONOCHROME1" else values


def test_same_seed_same_bytes_other_seed_other_images(cohort, tmp_path):
    again = generate_cohort(tmp_path / "again", n_patients=6, images_per_patient=3, size=SIZE)
    names = sorted(path.relative_to(cohort.parent) for path in cohort.parent.rglob("*.*"))
    assert len(names) == 19
    for name in names:
        assert (cohort.parent / name).read_bytes() == (again.parent / name).read_bytes(), name
    other = generate_cohort(tmp_path / "other", n_patients=1, images_per_patient=1, size=SIZE, seed=1)
    first, second = (sorted((p.parent / "images").iterdir())[0] for p in (cohort, other))
    assert np.abs(pixels(first) - pixels(second)).mean() > 0.03


def test_manifest(cohort, rows):
    assert tuple(rows[0]) == COLUMNS == ("image", "patient_id", "study_id", "view", "sex", "age", "labels", "split")
    assert len({row["image"] for row in rows}) == len(rows) == 18
    assert all((cohort.parent / row["image"]).is_file() for row in rows)
    assert len({row["study_id"] for row in rows}) == 18
    assert {row["view"] for row in rows} == {"PA", "AP"} and {row["sex"] for row in rows} == {"F", "M"}
    assert set("|".join(row["labels"] for row in rows).split("|")) == {*FINDINGS, "No Finding"}
    assert all(18 <= int(row["age"]) < 100 for row in rows)
    splits: dict[str, set[str]] = {}
    for row in rows:
        splits.setdefault(row["patient_id"], set()).add(row["split"])
    assert len(splits) == 6 and all(len(names) == 1 for names in splits.values())
    assert set.union(*splits.values()) == {"train", "val", "test"}


def test_formats_and_shapes(cohort, rows):
    kinds, shapes = set(), set()
    for row in rows:
        path = cohort.parent / row["image"]
        shapes.add(pixels(path).shape)
        if path.suffix == ".png":
            kinds.add(Image.open(path).mode.split(";")[0])
        else:
            data = pydicom.dcmread(path)
            assert data.BitsStored == 12 and data.pixel_array.max() < 4096
            kinds.add((data.Modality, data.PhotometricInterpretation))
    assert kinds == {"L", "I", ("DX", "MONOCHROME2"), ("CR", "MONOCHROME1")}
    assert shapes == {(SIZE, SIZE), (SIZE * 9 // 8, SIZE)}


def test_only_the_asked_format(tmp_path):
    generate_cohort(tmp_path, n_patients=2, images_per_patient=2, size=SIZE, formats=("dicom",))
    assert {path.suffix for path in (tmp_path / "images").iterdir()} == {".dcm"}


def test_monochrome1_is_stored_inverted(cohort, rows):
    seen = set()
    for row in rows:
        if not row["image"].endswith(".dcm"):
            continue
        data = pydicom.dcmread(cohort.parent / row["image"])
        stored = data.pixel_array / 4095
        # Corner beside the neck is air; the middle of the bottom is belly and spine.
        air, belly = stored[:4, :6].mean(), stored[-8:, SIZE // 2 - 4 : SIZE // 2 + 4].mean()
        assert (air > belly + 0.3) == (data.PhotometricInterpretation == "MONOCHROME1")
        assert data.PresentationLUTShape == ("INVERSE" if air > belly else "IDENTITY")
        seen.add(data.PhotometricInterpretation)
    assert seen == {"MONOCHROME1", "MONOCHROME2"}


def test_headers_hold_something_to_leak(cohort, rows):
    names, births, uids = {}, {}, set()
    for row in rows:
        if row["image"].endswith(".dcm"):
            data = pydicom.dcmread(cohort.parent / row["image"])
            assert str(data.PatientID) == row["patient_id"] and data.PatientAge == f"{int(row['age']):03d}Y"
            assert int(data.StudyDate[:4]) - int(data.PatientBirthDate[:4]) == int(row["age"])
            names.setdefault(row["patient_id"], set()).add(str(data.PatientName))
            births.setdefault(row["patient_id"], set()).add(data.PatientBirthDate)
            uids |= {data.SOPInstanceUID, data.StudyInstanceUID, data.SeriesInstanceUID}
            assert all(len(uid) <= 64 and pydicom.uid.UID(uid).is_valid for uid in uids)
    assert all(len(values) == 1 for values in (*names.values(), *births.values()))
    assert len(set.union(*names.values())) == len(names)
    assert len(uids) == 3 * sum(row["image"].endswith(".dcm") for row in rows)


def test_images_of_one_patient_are_more_alike():
    identities = [Identity.from_seed(seed) for seed in range(8)]
    images = np.stack(
        [
            phantom_image(one, Acquisition.from_seed(100 * p + k), SIZE)
            for p, one in enumerate(identities)
            for k in range(3)
        ]
    )
    flat = np.stack([gaussian_filter(image, 1.0).ravel() for image in images])
    similarity = np.corrcoef(flat)
    patient = np.repeat(np.arange(8), 3)
    same = (patient[:, None] == patient) & ~np.eye(24, dtype=bool)
    other = patient[:, None] != patient
    assert similarity[same].mean() > similarity[other].mean() + 0.05
    assert similarity[same].max() < 0.9999
    # Nearest neighbour finds the patient far more often than the 2 in 23 of chance.
    np.fill_diagonal(similarity, -1)
    assert (patient[similarity.argmax(1)] == patient).mean() > 0.7


@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize("finding", FINDINGS)
def test_finding_changes_its_own_region(finding, side):
    identity = Identity.from_seed(3)
    healthy = Acquisition(seed=5, side=side, noise=0.0)
    change = phantom_image(identity, replace(healthy, findings=(finding,)), 128).astype(np.float64)
    change -= phantom_image(identity, healthy, 128)
    size = np.abs(change)
    assert size.max() > 0.05 and size.mean() > 5e-4
    y, x = np.meshgrid(np.linspace(-1, 1, 128), np.linspace(-1, 1, 128), indexing="ij")
    weight = size / size.sum()
    centre_x, centre_y = (weight * x).sum(), (weight * y).sum()
    assert weight[np.abs(x) > 0.95].sum() < 0.05, "outside the chest"
    if finding == "Cardiomegaly":
        assert 0.0 < centre_x < 0.5 and centre_y > 0.0 and change.mean() > 0
        return
    assert weight[x * side > 0].sum() > 0.95, "on the wrong side"
    if finding == "Effusion":
        assert centre_y > 0.15 and change.mean() > 0
    elif finding == "Pneumothorax":
        assert abs(centre_x) > 0.5 and change.mean() < 0
    else:
        assert 0.1 < abs(centre_x) < 0.75 and -0.5 < centre_y < 0.5 and change.mean() > 0


def test_side_of_the_heart_and_dark_lungs():
    for seed in range(5):
        image = phantom_image(Identity.from_seed(seed), Acquisition(), 128)
        heart_row = image[76:84]
        assert heart_row[:, 76:92].mean() > heart_row[:, 36:52].mean() + 0.03  # the apex points to the right
        lung, belly, air = image[40:60, 28:44].mean(), image[110:, 50:78].mean(), image[:4, :4].mean()
        assert air < 0.2 < lung < 0.55 < 0.7 < belly


def test_size_range_and_type():
    identity, visit = Identity.from_seed(0), Acquisition.from_seed(0)
    for size, shape in ((32, (32, 32)), (64, (64, 64)), ((72, 64), (72, 64)), ((300, 257), (300, 257))):
        image = phantom_image(identity, visit, size)
        assert image.shape == shape and image.dtype == np.float32
        assert image.min() >= 0 and image.max() <= 1 and image.std() > 0.1
    large, small = phantom_image(identity, visit, 128), phantom_image(identity, visit, 64)
    assert np.abs(large.reshape(64, 2, 64, 2).mean((1, 3)) - small).mean() < 0.02


def test_wrong_arguments(tmp_path):
    for arguments, code in (
        ({"n_patients": 0}, "GM-U101"),
        ({"size": 16}, "GM-U101"),
        ({"formats": ("bmp",)}, "GM-U102"),
    ):
        with pytest.raises(UsageError, match=code):
            generate_cohort(tmp_path / "none", **arguments)
    assert not (tmp_path / "none").exists()


def test_grey_statistics_resemble_real_radiographs(cxr_dir):
    paths = sorted((cxr_dir / "nih128").glob("*.jpg"))[::100]
    real = np.stack([np.asarray(Image.open(path).convert("L")) for path in paths]) / 255.0
    drawn = np.stack([phantom_image(Identity.from_seed(s), Acquisition.from_seed(s), 128) for s in range(24)])
    assert abs(real.mean() - drawn.mean()) < 0.06
    assert abs(real.std((1, 2)).mean() - drawn.std((1, 2)).mean()) < 0.05
    # The average chest: dark lungs, bright belly, in the same places.
    average = [gaussian_filter(images.mean(0), 3).ravel() for images in (real, drawn)]
    assert np.corrcoef(average)[0, 1] > 0.8


def test_import_needs_neither_torch_nor_monai():
    code = "import sys, gmia_monai.data.phantom; sys.exit(any(m in sys.modules for m in ('torch', 'monai')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
