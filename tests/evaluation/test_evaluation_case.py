"""Releases read from a folder: whose image is whose, what is left out, and what is refused before images are read."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gmia_monai.anonymizers import Noise, Unchanged
from gmia_monai.data.manifest import read_manifest
from gmia_monai.errors import UsageError
from gmia_monai.evaluation import case as module
from gmia_monai.evaluation.case import Case, read_case
from gmia_monai.evaluation.transfer import labels_of_release

SIZE = 32
PATIENTS = {"s": "S", "a": "A", "v": "V2", "t": "T"}


def _table(path: Path, rows: Sequence[Sequence[str]]) -> Path:
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return path


def _png(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE), dtype=np.uint8)).save(path)


class Hospital:
    """Two patients a role with ``n`` images each, ``t0/view1.png`` …, and a released image for each handle."""

    def __init__(self, root: Path, n: int = 2, extra: Sequence[str] = ()) -> None:
        self.root = root
        self.keys = [f"{r}{p}/view{i}.png" for r in PATIENTS for p in range(2) for i in range(n)] + list(extra)
        rows = []
        for seed, key in enumerate(self.keys):
            _png(root / "real" / key, seed)
            rows.append([key, key.split("/")[0], "Mass|Edema" if seed % 2 else "Mass", PATIENTS[key[0]]])
        _table(root / "real" / "manifest.csv", [["image", "patient_id", "labels", "split"], *rows])
        self.cohort = read_manifest(root / "real" / "manifest.csv")

    def keys_of(self, name: str) -> list[str]:
        return [key for key in self.keys if key[0] == name]

    def release(self, links: Sequence[tuple[str, str]], absent: Sequence[str] = ()) -> None:
        for seed, handle in enumerate(sorted({handle for handle, _ in links} - set(absent))):
            _png(self.root / "release" / f"{handle}.png", 1000 + seed)
        _table(self.root / "release.links.csv", [("handle", "image"), *links])

    def one_to_one(self, names: str = "savt") -> list[tuple[str, str]]:
        return [(f"h_{key.replace('/', '_')[:-4]}", key) for key in self.keys if key[0] in names]

    def read(self, **more: object) -> Case:
        return read_case(self.cohort, self.root / "release", SIZE, **more)  # type: ignore[arg-type]


def _sources(found: Case) -> dict[str, list[tuple[str, ...]]]:
    """Keys of the sources of each released image, by purpose."""
    parts = {"own": found.knowledge.own, "choice": found.knowledge.choice, "judged": found.judged}
    parts |= {} if found.knowledge.members is None else {"members": found.knowledge.members}
    return {
        name: [tuple(part.real.cohort[i].key for i in source) for source in part.release.sources]
        for name, part in parts.items()
    }


# -- whose image is whose ----------------------------------------------------------------------------------------------
def test_a_file_name_of_another_role_attaches_to_nobody(tmp_path):
    hospital = Hospital(tmp_path, extra=["t0/view7.png", "v1/view7.png", "t1/view8.png"])
    links = [(h, k) for h, k in hospital.one_to_one() if k != "t0/view7.png"]
    hospital.release(links)
    found = _sources(hospital.read())
    assert sorted(found["judged"]) == [(k,) for _, k in sorted(links, key=lambda row: row[1]) if k[0] == "t"]
    assert ("t0/view7.png",) not in found["judged"] and ("v1/view7.png",) in found["choice"]


def test_a_file_name_counts_where_it_is_unique_among_images_and_links(tmp_path):
    hospital = Hospital(tmp_path, extra=["t0/own.png", "t1/rare.png", "t1/view9.png", "v0/view9.png"])
    links = [
        *hospital.one_to_one("av"),
        *[("one", "copy/own.png"), ("two", "x/rare.png"), ("three", "y/rare.png"), ("four", "view9.png")],
    ]
    hospital.release(links)
    found = hospital.read()
    assert _sources(found)["judged"] == [("t0/own.png",)]
    assert found.notes["unresolved"].startswith(f"3 of {len(links)} handles are left out")


def test_an_image_off_the_core_list_does_not_become_a_stranger(tmp_path):
    hospital = Hospital(tmp_path, n=6)
    hospital.release(hospital.one_to_one())
    found = hospital.read()
    core = [r.key for r in hospital.cohort.role("T").core()]
    assert len(core) == 8 and sorted(_sources(found)["judged"]) == [(key,) for key in sorted(core)]


def test_a_repeated_row_is_no_second_source(tmp_path):
    hospital = Hospital(tmp_path)
    hospital.release(hospital.one_to_one() * 2)
    assert hospital.read().judged.release.kind == "one_to_one"


def test_handles_may_have_dots(tmp_path):
    hospital = Hospital(tmp_path)
    hospital.release([(f"2.25.{i}", key) for i, key in enumerate(hospital.keys)])
    (tmp_path / "release" / "2.25.0.png").rename(tmp_path / "release" / "2.25.0.PNG")
    assert {len(part) for part in _sources(hospital.read()).values()} == {4}


def test_attackers_may_hold_the_system_behind_a_folder(tmp_path):
    hospital = Hospital(tmp_path)
    hospital.release(hospital.one_to_one())
    plain, held = hospital.read(), hospital.read(anonymizer=Noise())
    assert plain.knowledge.anonymize is None and plain.fingerprint != held.fingerprint
    assert held.knowledge.anonymize is not None
    pixels = held.judged.real.pixels
    again = [held.knowledge.anonymize(pixels, seed) for seed in (1, 1, 2)]
    assert again[0].shape == pixels.shape and np.array_equal(again[0], again[1])
    assert not np.array_equal(again[0], again[2])


def test_fresh_releases_of_a_system_without_chance_are_made_once(tmp_path, monkeypatch):
    hospital = Hospital(tmp_path)
    hospital.release(hospital.one_to_one())
    made = []

    class Slow(Unchanged):
        def anonymize_batch(self, images, seeds):
            made.append(len(images))
            return super().anonymize_batch(images, seeds)

    held = hospital.read(anonymizer=Slow(), units_dir=tmp_path / "units")
    pixels = held.judged.real.pixels
    for seed in (1, 2):
        assert np.abs(held.knowledge.anonymize(pixels, seed) - pixels).max() < 1 / 255
    assert made == [len(pixels)]


# -- several sources ---------------------------------------------------------------------------------------------------
def _pairs(hospital: Hospital, names: str) -> list[tuple[str, str]]:
    """Released images of two: image i of the first and of the second patient of a role."""
    rows = []
    for name in names:
        keys = hospital.keys_of(name)
        half = len(keys) // 2
        rows += [(f"{name}{i}", key) for i in range(half) for key in (keys[i], keys[half + i])]
    return rows


def test_no_released_image_is_lost_because_the_core_list_is_short(tmp_path):
    hospital = Hospital(tmp_path, n=6)
    hospital.release([*_pairs(hospital, "savt")])
    found = hospital.read()
    assert [len(part.release) for part in (found.knowledge.own, found.knowledge.choice, found.judged)] == [6, 6, 6]
    assert len(found.judged.real) == 12 and found.notes == {}
    assert [r.key for r in found.judged.real.cohort] == [r.key for r in hospital.cohort.role("T")]
    assert found.knowledge.members is not None and len(found.knowledge.members.release) == 6
    assert hospital.read(n_members=0).knowledge.members is None


def test_members_stay_a_sample(tmp_path):
    hospital = Hospital(tmp_path, n=3)
    rows = _pairs(hospital, "avt")
    # Two of each S patient's images make a released one.
    rows += [(f"s{p}", f"s{p}/view{i}.png") for p in range(2) for i in (0, 2)]
    hospital.release(rows)
    members = hospital.read(n_members=1).knowledge.members
    assert members is not None and len(members.release) == 1 and 2 <= len(members.real) <= 3
    everybody = hospital.read().knowledge.members
    assert everybody is not None and len(everybody.release) == 2


def test_images_made_from_several_roles_are_counted_and_too_many_refused(tmp_path):
    hospital = Hospital(tmp_path, n=6)
    rows = _pairs(hospital, "avt")
    hospital.release([(h, "v0/view0.png") if (h, k) == ("t0", "t1/view0.png") else (h, k) for h, k in rows])
    found = hospital.read()
    assert len(found.judged.release) == 5 and "1 of 6 of role T" in found.notes["mixed"]
    assert "1 of 7 of role V2" in found.notes["mixed"]
    (tmp_path / "more").mkdir()
    mixed = [(h, k.replace("t1", "v0") if h in ("t0", "t1", "t2", "t3") else k) for h, k in rows]
    hospital.release(mixed)
    with pytest.raises(UsageError, match="GM-U358 .*role T.*4 of 6"):
        hospital.read()


def test_a_few_images_of_several_sources_do_not_decide_the_attacks(tmp_path):
    hospital = Hospital(tmp_path, n=3)
    links = hospital.one_to_one()
    second = next(h for h, k in links if k == "t0/view1.png")
    hospital.release([*links, (second, "t0/view2.png")])
    found = hospital.read()
    assert found.judged.release.kind == "one_to_one" and len(found.judged.release) == 5
    assert ("t0/view1.png",) not in _sources(found)["judged"]
    assert "left out since most have one: 1 of 6 of role T" in found.notes["several_sources"]


def test_roles_of_different_kinds_are_refused(tmp_path):
    hospital = Hospital(tmp_path, n=6)
    hospital.release([*hospital.one_to_one("av"), *_pairs(hospital, "t")])
    with pytest.raises(UsageError, match="GM-U376 .*A one_to_one, V2 one_to_one, T k_to_one"):
        hospital.read()


# -- what is not there -------------------------------------------------------------------------------------------------
def test_absent_images_are_counted_by_role_and_members_may_lack(tmp_path):
    hospital = Hospital(tmp_path)
    links = hospital.one_to_one()
    gone = [h for h, k in links if k[0] == "s"] + [h for h, k in links if k[0] == "t"][:2]
    hospital.release(links, absent=gone)
    found = hospital.read()
    assert found.knowledge.members is None and len(found.judged.release) == 2
    assert "2 of 4 linked images of role T, 4 of 4 linked images of role S;" in found.notes["absent"]


def test_released_images_without_a_link_are_said(tmp_path):
    hospital = Hospital(tmp_path)
    links = hospital.one_to_one()
    hospital.release(links)
    assert "unlinked" not in hospital.read().notes
    _table(tmp_path / "release.links.csv", [("handle", "image"), *[row for row in links if row[1] != "t0/view1.png"]])
    found = hospital.read()
    assert len(found.judged.release) == 3
    assert found.notes["unlinked"].startswith("1 of 16 released images have no row in the links")


def test_a_role_that_is_judged_must_have_images(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "read_real", None)  # said before an image is read
    hospital = Hospital(tmp_path)
    links = hospital.one_to_one()
    hospital.release(links, absent=[h for h, k in links if k[0] == "t"])
    with pytest.raises(UsageError, match="GM-U322 the release holds no image of role T; got: none of 4 linked"):
        hospital.read()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\x89PNG\r\n\x1a\n\xff\xfe", "not text in UTF-8"),
        ("handle,image\n\xe4,b.png\n".encode("latin-1"), "not text in UTF-8"),
        (b"handle,image\nonly\n", "row 2 has no handle or no image"),
        (b"handle,image\n", "no rows"),
        (b"", "empty"),
        (b"handle;image\na;b\n", "lacks columns"),
    ],
)
def test_unusable_links_are_a_coded_error(tmp_path, content, told):
    hospital = Hospital(tmp_path)
    hospital.release(hospital.one_to_one())
    (tmp_path / "release.links.csv").write_bytes(content)
    with pytest.raises(UsageError, match=f"GM-U321 .*{told}"):
        hospital.read()


def test_what_is_wrong_is_said_before_an_image_is_read(tmp_path, monkeypatch):
    hospital = Hospital(tmp_path)
    hospital.release(hospital.one_to_one())
    other = _table(tmp_path / "other.csv", [("handle", "image"), ("x", "nobody.png")])
    (tmp_path / "empty").mkdir()

    def no_reading(*arguments: object, **more: object) -> None:
        raise AssertionError("a real image was read")

    monkeypatch.setattr(module, "read_real", no_reading)
    for released, more, code in (
        ("nowhere", {}, "GM-U320"),
        ("empty", {}, "GM-U320"),
        ("release", {"links": tmp_path / "none.csv"}, "GM-U321"),
        ("release", {"links": other}, "GM-U322"),
        ("release", {"labels": tmp_path / "none.csv"}, "GM-U371"),
        ("release", {"policy": "kind"}, "GM-U307"),
        ("release", {"roles": {"judged": "Q"}}, "GM-U031"),
    ):
        with pytest.raises(UsageError, match=code):
            read_case(hospital.cohort, tmp_path / released, SIZE, **more)


# -- labels ------------------------------------------------------------------------------------------------------------
def _generated(root: Path) -> Hospital:
    hospital = Hospital(root)
    hospital.release([(f"g{i}", "nobody") for i in range(4)])
    (root / "release.links.csv").unlink()
    return hospital


def test_labels_of_a_generated_release(tmp_path):
    hospital = _generated(tmp_path)
    rows = [("labels", "handle"), ("Mass|?Edema", "g0"), ("No Finding", "g2"), ("", "g3")]
    labels = _table(tmp_path / "labels.csv", rows)
    found = hospital.read(labels=labels)
    release = found.judged.release
    assert release.kind == "generated" and release.findings == ("Edema", "Mass")
    nan = np.nan
    expected = [[nan, 1], [nan, nan], [0, 0], [nan, nan]]
    np.testing.assert_array_equal(release.labels, expected)
    np.testing.assert_array_equal(labels_of_release(found.judged, ("Mass", "Edema")), np.array(expected)[:, ::-1])
    assert found.knowledge.members is not None and found.knowledge.members.release.labels is not None
    assert found.notes == {"labels": "1 of 4 released images have none"}
    plain = hospital.read()
    assert plain.judged.release.labels is None and labels_of_release(plain.judged, ("Mass",)) is None
    _table(labels, [*rows, ("Mass", "g1")])
    three = [(c.fingerprint, c.members) for c in (plain, found, hospital.read(labels=labels))]
    assert len({whole for whole, _ in three}) == len({members for _, members in three}) == 3


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([("handle", "labels"), ("g0", "Mass"), ("g9", "Mass")], "1 of 2 handles"),
        ([("handle", "labels"), ("g0", "Mass"), ("g0", "Edema")], "row 3 is there twice"),
        ([("handle", "labels"), ("", "Mass")], "row 2 is empty"),
        ([("handle", "labels"), ("g0", "Mas")], "expected: Edema, Mass"),
        ([("handle", "label"), ("g0", "Mass")], "lacks columns"),
    ],
)
def test_unusable_labels_are_a_coded_error(tmp_path, rows, told):
    hospital = _generated(tmp_path)
    with pytest.raises(UsageError, match=f"GM-U371 .*{told}"):
        hospital.read(labels=_table(tmp_path / "labels.csv", rows))
