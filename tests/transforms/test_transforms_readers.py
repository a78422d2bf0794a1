"""Readers: one array whatever the format, and one coded error for whatever is wrong with a file."""

from __future__ import annotations

import time
import zlib

import nibabel
import numpy as np
import pydicom
import pytest
from monai.data import PydicomReader
from PIL import Image, PngImagePlugin

from gmia_monai.dicom.intensity import dicom_to_unit
from gmia_monai.dicom.intensity_tags import IntensityTags
from gmia_monai.errors import InputError
from gmia_monai.transforms.readers import file_kind, read_radiograph

RNG = np.random.default_rng(1)


def asymmetric(dtype=np.uint8, top: int = 255) -> np.ndarray:
    """40 rows by 56 columns, no symmetry, full range."""
    rows, cols = np.mgrid[:40, :56]
    image = (rows * 3 + cols) / (39 * 3 + 55) * 0.8
    image[2:9, 40:50] = 1.0
    return np.rint(image * top).astype(dtype)


def save_dicom(path, pixels, bits=None, **tags):
    bits = bits or (8 if pixels.dtype == np.uint8 else 16)
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = pydicom.uid.SecondaryCaptureImageStorage, "2.25.3"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.Modality = "2.25.1", "2.25.2", "OT"
    dataset.set_pixel_data(np.ascontiguousarray(pixels), "MONOCHROME2", bits, generate_instance_uid=False)
    dataset.WindowCenter, dataset.WindowWidth = str(2 ** (bits - 1)), str(2**bits)
    dataset.save_as(path, enforce_file_format=True)
    dataset = pydicom.dcmread(path)
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path)
    return path


def save_nifti(path, array):
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), path)
    return path


def save_rle(path, damaged: bool):
    """A 16-bit image in RLE segments of literal runs; damaged, the last run repeats a byte past the segment's end."""

    def literal(data: bytes) -> bytes:
        return b"".join(bytes([len(data[i : i + 128]) - 1]) + data[i : i + 128] for i in range(0, len(data), 128))

    save_dicom(path, asymmetric(np.uint16, 65535))
    planes = [RNG.integers(0, 255, 40 * 56).astype(np.uint8).tobytes() for _ in range(2)]
    segments = [literal(planes[0]), literal(planes[1][:-10]) + b"\x81\x01" if damaged else literal(planes[1])]
    header = [2, 64, 64 + len(segments[0])] + [0] * 13
    frame = np.array(header, "<u4").tobytes() + b"".join(segments)
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.RLELossless
    dataset.PixelData = pydicom.encaps.encapsulate([frame + bytes(len(frame) % 2)])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path)


def code_of(path) -> str:
    with pytest.raises(InputError) as caught:
        read_radiograph(path)
    assert caught.value.__cause__ is None
    return caught.value.code


def test_same_array_from_every_format(tmp_path):
    pixels = asymmetric()
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(np.repeat(pixels[..., None], 3, axis=2)).save(tmp_path / "rgb.png")
    Image.fromarray(np.dstack([pixels] * 3 + [np.full_like(pixels, 255)])).save(tmp_path / "rgba.png")
    Image.fromarray(pixels).convert("P").save(tmp_path / "palette.png")
    Image.fromarray(asymmetric(np.uint16, 255) * 257).save(tmp_path / "a16.png")
    save_dicom(tmp_path / "a.dcm", pixels)
    save_dicom(tmp_path / "nosuffix", pixels)
    save_dicom(tmp_path / "mono1.dcm", 255 - pixels, PhotometricInterpretation="MONOCHROME1")
    save_nifti(tmp_path / "a.nii", pixels.T)
    save_nifti(tmp_path / "a.nii.gz", pixels.T[..., None])
    names = ["a.png", "rgb.png", "rgba.png", "palette.png", "a16.png", "a.dcm", "nosuffix", "mono1.dcm", "a.nii"]
    for name in [*names, "a.nii.gz"]:
        image, frame = read_radiograph(tmp_path / name)
        assert image.dtype == np.float32 and (frame.rows, frame.cols) == image.shape == (40, 56)
        np.testing.assert_allclose(image, pixels / 255, atol=1e-6, err_msg=name)


def test_jpeg_is_row_major(tmp_path):
    pixels = asymmetric()
    Image.fromarray(pixels).save(tmp_path / "a.JPG", quality=95)
    image, frame = read_radiograph(tmp_path / "a.JPG")
    assert frame.kind == "jpeg" and frame.bits == 8
    assert np.abs(image - pixels / 255).mean() < 0.02


def test_frame_says_what_the_input_was(tmp_path):
    save_dicom(tmp_path / "a.dcm", asymmetric(np.uint16, 4095), bits=12, PhotometricInterpretation="MONOCHROME1")
    frame = read_radiograph(tmp_path / "a.dcm")[1]
    assert (frame.kind, frame.bits, frame.photometric, frame.dtype) == ("dicom", 12, "MONOCHROME1", "uint16")
    save_nifti(tmp_path / "a.nii", asymmetric(np.int16, 900).T - 100)
    image, frame = read_radiograph(tmp_path / "a.nii")
    assert (frame.kind, frame.bits, frame.dtype, frame.low, frame.high) == ("nifti", 16, "int16", -100.0, 800.0)
    assert (image.min(), image.max()) == (0.0, 1.0)


def test_floating_nifti_in_the_unit_range_is_taken_as_it_is(tmp_path):
    inside = (0.2 + 0.5 * RNG.random((56, 40))).astype(np.float32)
    np.testing.assert_array_equal(read_radiograph(save_nifti(tmp_path / "a.nii", inside))[0], inside.T)
    image, frame = read_radiograph(save_nifti(tmp_path / "b.nii", inside * 1000))
    assert (image.min(), image.max(), frame.bits) == (0.0, 1.0, 32)


def test_dicom_equals_pydicom_and_monai_metadata_routes(tmp_path):
    """Direct pydicom, our reader, and MONAI's reader with its JSON metadata end in one array."""
    tags = {"RescaleSlope": "2", "RescaleIntercept": "-50", "WindowCenter": "3000", "WindowWidth": "4000"}
    tags["PhotometricInterpretation"] = "MONOCHROME1"
    path = save_dicom(tmp_path / "a.dcm", asymmetric(np.uint16, 4095), bits=12, **tags)
    ours = read_radiograph(path)[0]
    dataset = pydicom.dcmread(path)
    np.testing.assert_array_equal(ours, dicom_to_unit(dataset.pixel_array, IntensityTags.from_dataset(dataset)))
    reader = PydicomReader(swap_ij=False, prune_metadata=False)
    with pytest.warns(UserWarning):
        values, meta = reader.get_data(reader.read(path))
    np.testing.assert_allclose(dicom_to_unit(values, IntensityTags.from_json(meta), rescaled=True), ours, atol=1e-6)


def test_identifiers_do_not_reach_frame_warnings_or_logs(tmp_path, recwarn, caplog):
    path = save_dicom(tmp_path / "a.dcm", asymmetric(), PatientName="DOE^JANE", StudyInstanceUID="1.2.03.DOE")
    recwarn.clear()
    caplog.clear()
    frame = read_radiograph(path)[1]
    assert "DOE" not in f"{frame}{caplog.text}" and not [w for w in recwarn if "DOE" in str(w.message)]


def bad_files(folder) -> dict[str, str]:
    """Every kind of bad file with the code that it must give."""
    grey = asymmetric()
    colour = RNG.integers(0, 255, (40, 56, 3)).astype(np.uint8)
    Image.fromarray(RNG.integers(0, 255, (200, 200)).astype(np.uint8)).save(folder / "whole.png")
    data = (folder / "whole.png").read_bytes()
    (folder / "truncated.png").write_bytes(data[: len(data) // 2])
    Image.fromarray(RNG.integers(0, 255, (200, 200)).astype(np.uint8)).save(folder / "whole.jpg")
    data = (folder / "whole.jpg").read_bytes()
    (folder / "truncated.jpg").write_bytes(data[: len(data) // 2])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.jpg").write_text("not an image")
    (folder / "notes.txt").write_text("not an image")
    (folder / "nosuffix").write_bytes(bytes(200))
    (folder / "empty.dcm").write_bytes(b"")
    Image.fromarray(grey).save(folder / "really_gif.gif")
    (folder / "gif.png").write_bytes((folder / "really_gif.gif").read_bytes())
    Image.fromarray(colour).save(folder / "colour.png")
    Image.fromarray(colour).save(folder / "colour.jpg")
    Image.fromarray(colour).convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(np.dstack([grey] * 3 + [grey])).save(folder / "transparent.png")
    Image.fromarray(grey > 100).save(folder / "bilevel.png")
    frames = [Image.fromarray(grey), Image.fromarray(grey[::-1].copy())]
    frames[0].save(folder / "animated.png", save_all=True, append_images=frames[1:])
    Image.fromarray(grey[:31]).save(folder / "small.png")
    Image.fromarray(np.full((40, 40), 7, np.uint8)).save(folder / "constant.png")
    whole = save_dicom(folder / "whole.dcm", RNG.integers(0, 255, (200, 200)).astype(np.uint8)).read_bytes()
    (folder / "truncated.dcm").write_bytes(whole[: len(whole) // 2])
    (folder / "header_only.dcm").write_bytes(whole[:200])
    save_dicom(folder / "constant.dcm", np.full((40, 40), 7, np.uint8))
    save_dicom(folder / "frames.dcm", grey, NumberOfFrames=2)
    save_dicom(folder / "colour.dcm", grey, PhotometricInterpretation="RGB", SamplesPerPixel=3)
    save_dicom(folder / "large.dcm", grey, Rows=65535, Columns=65535)
    save_dicom(folder / "window.dcm", grey, WindowWidth="0")
    save_rle(folder / "panic.dcm", damaged=True)
    dataset = pydicom.dcmread(folder / "whole.dcm")
    del dataset.PixelData
    dataset.save_as(folder / "nopixels.dcm")
    floats = RNG.random((56, 40)).astype(np.float32)
    save_nifti(folder / "volume.nii.gz", RNG.random((40, 40, 3)).astype(np.float32))
    save_nifti(folder / "nan.nii.gz", np.where(floats > 0.9, np.nan, floats).astype(np.float32))
    save_nifti(folder / "inf.nii", np.where(floats > 0.9, np.inf, floats).astype(np.float32))
    save_nifti(folder / "constant.nii", np.full((40, 40), 3.5, np.float32))
    save_nifti(folder / "complex.nii", floats.astype(np.complex64))
    save_nifti(folder / "colour.nii", np.zeros((40, 40), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")]))
    save_nifti(folder / "line.nii", np.arange(50, dtype=np.float32))
    data = save_nifti(folder / "whole.nii", floats).read_bytes()
    (folder / "truncated.nii").write_bytes(data[: len(data) // 2])
    return {
        "absent.png": "GM-D001",
        "": "GM-D001",
        "notes.txt": "GM-D002",
        "nosuffix": "GM-D002",
        "really_gif.gif": "GM-D002",
        **{f"truncated.{s}": "GM-D003" for s in ("png", "jpg", "dcm", "nii")},
        **{name: "GM-D003" for name in ("empty.png", "text.jpg", "empty.dcm", "gif.png", "panic.dcm")},
        **{name: "GM-D004" for name in ("colour.png", "colour.jpg", "cmyk.jpg", "transparent.png", "colour.dcm")},
        **{name: "GM-D004" for name in ("complex.nii", "colour.nii")},
        **{name: "GM-D005" for name in ("animated.png", "frames.dcm", "volume.nii.gz", "line.nii")},
        "small.png": "GM-D006",
        **{f"constant.{s}": "GM-D007" for s in ("png", "dcm", "nii")},
        "nan.nii.gz": "GM-D008",
        "inf.nii": "GM-D008",
        "nopixels.dcm": "GM-D009",
        "large.dcm": "GM-D010",
        "bilevel.png": "GM-D011",
        "window.dcm": "GM-D012",
    }


def test_every_bad_file_has_its_code(tmp_path):
    expected = bad_files(tmp_path)
    assert {name: code_of(tmp_path / name) for name in expected} == expected
    assert code_of(tmp_path / "header_only.dcm") in ("GM-D003", "GM-D009")


def test_panic_of_a_rust_decoder_is_an_input_error_only_where_the_file_is_damaged(tmp_path):
    save_rle(tmp_path / "whole.dcm", damaged=False)
    save_rle(tmp_path / "panic.dcm", damaged=True)
    assert read_radiograph(tmp_path / "whole.dcm")[0].shape == (40, 56)
    assert code_of(tmp_path / "panic.dcm") == "GM-D003"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError])
def test_what_is_not_the_files_fault_passes_through(tmp_path, monkeypatch, error):
    Image.fromarray(asymmetric()).save(tmp_path / "a.png")

    def stop(*args):
        raise error

    monkeypatch.setattr("gmia_monai.transforms.readers.PILReader.get_data", stop)
    with pytest.raises(error):
        read_radiograph(tmp_path / "a.png")


def test_decompression_bomb_is_refused_by_its_header(tmp_path):
    Image.fromarray(asymmetric()).save(tmp_path / "a.png")
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[16:24] = (60000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(data)
    assert code_of(tmp_path / "a.png") == "GM-D010"


def test_text_chunks_of_a_png_are_not_kept(tmp_path):
    info = PngImagePlugin.PngInfo()
    info.add_text("Patient", "DOE")
    Image.fromarray(asymmetric()).save(tmp_path / "a.png", pnginfo=info)
    assert "DOE" not in repr(read_radiograph(tmp_path / "a.png")[1])


@pytest.mark.parametrize("cut", [0.2, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("name", ["whole.png", "whole.jpg", "whole.dcm", "whole.nii"])
def test_cut_files_never_read_as_images(tmp_path, name, cut):
    bad_files(tmp_path)
    data = (tmp_path / name).read_bytes()
    path = tmp_path / f"cut_{name}"
    path.write_bytes(data[: int(len(data) * cut)])
    assert code_of(path) in ("GM-D003", "GM-D009")


def test_file_kind_prefers_the_suffix_and_falls_back_to_the_magic(tmp_path):
    for name, kind in [("a.PNG", "png"), ("a.nii.gz", "nifti"), ("1.2.840.5", "dicom")]:
        (tmp_path / name).write_bytes(bytes(128) + b"DICM")
        assert file_kind(tmp_path / name) == kind


def test_real_chest_radiographs_in_dicom(cxr_dir):
    folder = cxr_dir / "dicom" / "cxr"
    assert code_of(folder / "0_ORIGINAL_no_pixels.dcm") == "GM-D009"
    for name in ("0_ORIGINAL_compressed", "RG1_J2KI", "dicom_00000001_000", "gdcm-CR-MONO1-10-chest"):
        image, frame = read_radiograph(folder / f"{name}.dcm")
        dataset = pydicom.dcmread(folder / f"{name}.dcm")
        direct = dicom_to_unit(dataset.pixel_array, IntensityTags.from_dataset(dataset))
        np.testing.assert_array_equal(image, direct)
        assert image.shape == (dataset.Rows, dataset.Columns) and frame.bits == dataset.BitsStored
        assert image.std() > 0.1
        # In the MONOCHROME2 sense the chest is brighter than the air beside the neck, whatever the file's own sense.
        rows, cols = image.shape
        middle = image[int(rows * 0.6) : int(rows * 0.9), int(cols * 0.45) : int(cols * 0.6)]
        assert middle.mean() > image.mean(), name


def test_dicom_copy_of_a_png_reads_as_the_png(cxr_dir):
    png = read_radiograph(cxr_dir / "originals" / "00000001_000.png")[0]
    dicom = read_radiograph(cxr_dir / "dicom" / "cxr" / "dicom_00000001_000.dcm")[0]
    np.testing.assert_array_equal(png, dicom)


@pytest.mark.slow
def test_every_corner_file_reads_or_is_refused(cxr_dir, recwarn):
    read, refused = 0, 0
    for path in sorted((cxr_dir / "dicom").glob("*/*.dcm")):
        try:
            image, _ = read_radiograph(path)
        except InputError as error:
            refused += 1
            assert path.stem not in str(error)
        else:
            read += 1
            assert 0 <= image.min() < image.max() <= 1 and image.dtype == np.float32
    assert read + refused == 95 and read >= 38


def test_one_damaged_byte_does_not_cost_a_minute(cxr_dir, tmp_path):
    data = bytearray((cxr_dir / "dicom" / "corner" / "burned_in_no.dcm").read_bytes())
    start = data.index(b"\xff\x4f\xff\x51")
    data[start + 13] = 0x96
    (tmp_path / "a.dcm").write_bytes(data)
    began = time.monotonic()
    with pytest.raises(InputError, match="GM-D003"):
        read_radiograph(tmp_path / "a.dcm")
    assert time.monotonic() - began < 2
