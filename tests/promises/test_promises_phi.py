"""Nothing that a header, a name or a folder says of a person is found in any byte that a run leaves."""

from __future__ import annotations

import base64
import io
import random
import string
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

from command import gmia
from promise import kept, size
from pydicom import Dataset, dcmread
from pydicom.datadict import DicomDictionary
from pydicom.sequence import Sequence
from toy_release import dicom_file

# Texts that a header may hold; binary ones, dates, times and numbers are planted by hand below.
TEXTS = {"LO", "SH", "PN", "ST", "LT", "UT", "UC", "UR", "AE"}
OURS = {"SpecificCharacterSet", "PhotometricInterpretation"}
rng = random.Random(4)


class Tokens:
    """Words that nobody else has."""

    def __init__(self) -> None:
        self.all: list[str] = []

    def new(self, length: int = 10, letters: str = string.ascii_uppercase) -> str:
        word = "".join(rng.choices(letters, k=length))
        self.all.append(word)
        return word


def _planted(number: int, tokens: Tokens) -> bytes:
    """A radiograph with a word in text elements, in nested, private and meta elements, overlay, icon, preamble and
    behind its end; six of them have every text element that there is."""
    dataset = dcmread(io.BytesIO(dicom_file(f"P{number}", 0)))
    tags = sorted(tag for tag, (vr, _, _, _, keyword) in DicomDictionary.items() if vr in TEXTS and keyword not in OURS)
    # Not all in one file: the limit of elements would refuse it.
    share = max(1, len(tags) // 6)
    start = number % 6 * share
    for tag in tags[start : start + share]:
        if tag >> 16 >= 0x0008:
            dataset.add_new(tag, DicomDictionary[tag][0], tokens.new())
    for keyword in (
        "PatientName",
        "PatientID",
        "AccessionNumber",
        "InstitutionName",
        "PatientComments",
        "ImageComments",
    ):
        setattr(dataset, keyword, tokens.new())
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"):
        setattr(dataset, keyword, f"1.2.{tokens.new(20, string.digits[1:])}")
    block = dataset.private_block(0x0019, tokens.new(), create=True)
    for i in range(40):
        block.add_new(i, "LO", tokens.new())
    inner = Dataset()
    inner.CodeMeaning = tokens.new()
    for _ in range(5):
        outer = Dataset()
        outer.PersonName = tokens.new()
        outer.ConceptNameCodeSequence = Sequence([inner])
        inner = outer
    dataset.RequestAttributesSequence = Sequence([inner])
    dataset.add_new(0x60000022, "LO", tokens.new())
    dataset.add_new(0x60003000, "OW", tokens.new(16).encode())
    icon = Dataset()
    icon.PixelData = tokens.new(16).encode()
    icon["PixelData"].VR = "OW"
    dataset.IconImageSequence = Sequence([icon])
    dataset.add_new(0xFFFCFFFC, "OB", tokens.new(12).encode())
    dataset.file_meta.SourceApplicationEntityTitle = tokens.new()
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    raw = buffer.getvalue()
    return tokens.new(24).encode().ljust(128, b"\0") + raw[128:]


def _png(tokens: Tokens) -> bytes:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("Patient", tokens.new())
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 40).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def _forms(token: str) -> Iterator[bytes]:
    """A word as it may stand somewhere: ten encodings."""
    raw = token.encode()
    yield from (raw, raw.lower(), raw[::-1], token.encode("utf-16-le"), token.encode("utf-16-be"))
    yield from (raw.hex().encode(), raw.hex().upper().encode(), urllib.parse.quote(token).encode())
    # Base64 of a word within a longer text: two of three alignments share these letters.
    for lead in (b"", b"a", b"ab"):
        yield base64.b64encode(lead + raw)[4:-4]
    yield "^".join((token[:5], token[5:])).encode()


def _bytes_of(folder: Path, but: tuple[Path, ...]) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        if any(path == b or b in path.parents for b in but):
            continue
        yield str(path.relative_to(folder)), path.name.encode() + b"\n" + (path.read_bytes() if path.is_file() else b"")


def test_no_word_of_a_person_is_left_in_any_byte(tmp_path):
    tokens, n = Tokens(), size(8, 200)
    source = tmp_path / "in"
    for i in range(n):
        folder = source / tokens.new() / tokens.new()
        folder.mkdir(parents=True)
        (folder / f"{tokens.new()}.dcm").write_bytes(_planted(i, tokens))
    (folder / f"{tokens.new()}.txt").write_text(tokens.new())
    (folder / f"{tokens.new()}.png").write_bytes(_png(tokens))
    (folder / f"{tokens.new()}.dcm").write_bytes(_planted(n, tokens)[:4000])
    (tmp_path / "policy.yaml").write_text("intake:\n  images_without_header: true\n")
    failing = "from toy_release import Redraw\ndef fail(self, images, known, handles, patients, seed):\n" \
        "    raise ValueError(repr((known, handles, patients)))\nRedraw.__call__ = fail"  # fmt: skip
    said = b""
    runs = [
        (("check", "in"), ""),
        (("anonymize", "in", "dry", "--dry-run"), ""),
        (("anonymize", "in", "failed", "--workers", "1"), failing),
        (("anonymize", "in", "out", "--workers", "1"), ""),
        (("anonymize", "in", "in2/out", "--workers", "1", "--policy", "policy.yaml"), ""),
        (("verify", "out"), ""),
        (("verify", "in"), ""),
        (("report", "out"), ""),
        (("anonymize", "in", "in/out"), ""),
        (("verify", "nowhere"), ""),
    ]
    (tmp_path / "in2").mkdir()
    for arguments, before in runs:
        code, output = gmia(*arguments, "--debug", cwd=tmp_path, before=before)
        assert code in (0, 1, 2, 3) and b"Traceback" not in output, (arguments, output[-500:])
        said += output
    forms = [(token, form) for token in tokens.all for form in _forms(token) if len(form) >= 6]
    found: list[object] = []
    written = [("output", said), *_bytes_of(tmp_path, (source,))]
    released = sum(name.endswith(".dcm") and "out/images" in name for name, _ in written)
    assert released >= n, "the run released something to look at"
    for name, raw in written:
        lower = raw.lower()
        # Half a million searches: first by the words themselves, then in their other forms.
        found += [(name, token) for token in tokens.all if token.lower().encode() in lower]
        found += [(name, token) for token, form in forms if form in raw]
    kept(
        "no word of a header, a file or a folder name is left in any byte",
        len(tokens.all),
        found[:20],
        f"{n} files, {len(runs)} commands with DEBUG logs, failing ones among them, ten encodings",
    )
