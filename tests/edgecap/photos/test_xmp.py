"""Alternative texts in XMP, read by ExifTool; what else a file holds stays."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree
from PIL import Image

from edgecap.photos import LibraryError, xmp
from edgecap.photos.alt_text import Described
from edgecap.photos.embedded import Embedded
from edgecap.photos.sidecar import SideCars
from edgecap.runtime.caption import Caption, Timings

TEXT = "A dog & a <cat> on “the beach”."
TAG = "XMP-iptcCore:AltTextAccessibility"
Reader = Callable[[Path], dict[str, Any]]


def described(path: Path, relative: str | None = None, text: str = TEXT) -> Described:
    caption = Caption("a dog", (), 0.0, 0.9, True, Timings())
    return Described(path, relative or path.name, caption, text)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "in" / "photo.jpg"
    path.parent.mkdir()
    exif = Image.Exif()
    exif[0x010F] = "Camera maker"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    Image.fromarray(pixels).save(path, exif=exif)
    return path


@pytest.mark.parametrize(("naming", "name"), [("full", "photo.jpg.xmp"), ("stem", "photo.xmp")])
def test_a_side_car_that_exiftool_reads(
    photo: Path, exiftool: Reader, naming: Any, name: str
) -> None:
    before = photo.read_bytes()
    writer = SideCars(None, naming=naming, language="en-GB")
    writer.add(described(photo))
    found = exiftool(photo.with_name(name))
    assert found[TAG] == {"_default": TEXT, "en-GB": TEXT} or found[TAG] == TEXT
    assert found.get(f"{TAG}-en-GB", TEXT) == TEXT
    assert (writer.written, writer.kept) == (1, 0)
    assert photo.read_bytes() == before
    assert sorted(path.name for path in photo.parent.iterdir()) == ["photo.jpg", name]


def test_what_a_side_car_held_stays(photo: Path, exiftool: Reader) -> None:
    car = photo.with_name("photo.jpg.xmp")
    subprocess.run(
        [
            "exiftool", "-q", "-o", str(car), "-XMP-dc:Title=Grüße", "-XMP-xmp:Rating=4",
            "-XMP-dc:Subject=sea", "-XMP-dc:Subject=dog", "-XMP-lr:HierarchicalSubject=a|b",
            "-XMP-mwg-rs:RegionInfo={RegionList=[{Name=Ada,Type=Face}]}", str(photo),
        ],
        check=True,
    )  # fmt: skip
    before = exiftool(car)
    assert before["XMP-mwg-rs:RegionInfo"]["RegionList"][0]["Name"] == "Ada"
    SideCars(None).add(described(photo))
    after = exiftool(car)
    assert TAG in after
    mine = [name for name in after if name.startswith((TAG, "System:", "ExifTool:"))]
    changed = {n for n in after if n not in mine and after[n] != before.get(n)}
    assert changed == set()
    assert {n for n in before if not n.startswith(("System:", "ExifTool:"))} <= set(after)


def test_an_alternative_text_of_a_person_stays(photo: Path, exiftool: Reader) -> None:
    car = photo.with_name("photo.jpg.xmp")
    command = ["exiftool", "-q", "-o", str(car), f"-{TAG}-de=Von Hand", str(photo)]
    subprocess.run(command, check=True)
    before = car.read_bytes()
    writer = SideCars(None)
    writer.add(described(photo))
    assert car.read_bytes() == before
    assert (writer.written, writer.kept) == (0, 1)
    SideCars(None, replace=True).add(described(photo))
    tree = etree.parse(car)
    items = tree.findall(f".//{xmp.ALT_TEXT}/{{{xmp.RDF}}}Alt/{{{xmp.RDF}}}li")
    texts = {item.get(xmp.LANGUAGE): item.text for item in items}
    assert texts == {"x-default": TEXT, "de": "Von Hand", "en": TEXT}
    assert items[0].get(xmp.LANGUAGE) == "x-default"


def test_twice_is_once(photo: Path) -> None:
    SideCars(None).add(described(photo))
    first = photo.with_name("photo.jpg.xmp").read_bytes()
    writer = SideCars(None)
    writer.add(described(photo, text="Something else."))
    assert photo.with_name("photo.jpg.xmp").read_bytes() == first
    assert writer.kept == 1
    SideCars(None, replace=True).add(described(photo, text="Something else."))
    again = photo.with_name("photo.jpg.xmp").read_bytes()
    assert b"Something else." in again
    assert again.count(b"rdf:li ") == first.count(b"rdf:li ")


def test_two_pictures_that_share_a_side_car(photo: Path) -> None:
    writer = SideCars(None, naming="stem")
    writer.add(described(photo))
    with pytest.raises(LibraryError, match=r"would share the side-car photo\.xmp"):
        writer.add(described(photo.with_suffix(".png")))


def test_side_cars_in_another_folder(photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    writer = SideCars(out)
    writer.add(described(photo, "day 1/photo.jpg"))
    assert (out / "day 1" / "photo.jpg.xmp").is_file()
    assert list(photo.parent.iterdir()) == [photo]
    (out / "leads out").symlink_to(tmp_path)
    for relative in ("../photo.jpg", "leads out/photo.jpg", "/etc/photo.jpg"):
        with pytest.raises(LibraryError, match="leads out of"):
            writer.add(described(photo, relative))


@pytest.mark.parametrize(
    "held",
    [
        b"hello",
        b"<html><body/></html>",
        b"<?xml version='1.0'?><!DOCTYPE x [<!ENTITY a SYSTEM 'file:///etc/passwd'>]>"
        b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF xmlns:rdf="
        b"'http://www.w3.org/1999/02/22-rdf-syntax-ns#'>&a;</rdf:RDF></x:xmpmeta>",
        b"<!DOCTYPE l [<!ENTITY a 'aaaaaaaaaa'>" + b"".join(
            b"<!ENTITY %c '%s'>" % (98 + i, (b"&%c;" % (97 + i)) * 10) for i in range(9)
        ) + b"]><l>&j;</l>",
    ],
    ids=["text", "html", "external entity", "entity bomb"],
)  # fmt: skip
def test_a_side_car_that_is_none_is_left(photo: Path, held: bytes) -> None:
    car = photo.with_name("photo.jpg.xmp")
    car.write_bytes(held)
    with pytest.raises(LibraryError, match=r"photo\.jpg\.xmp (is no XML|holds no rdf|has a doc)"):
        SideCars(None).add(described(photo))
    assert car.read_bytes() == held


@given(st.binary(max_size=200))
def test_any_bytes_for_a_side_car(data: bytes) -> None:
    whole = xmp._EMPTY
    for packet in (data, whole[: len(data) * 2], whole.replace(b"about", data[:6])):
        try:
            made = xmp.with_alt_text(packet, TEXT, language="en", replace=True, name="x.xmp")
        except LibraryError:
            continue
        assert made is not None
        assert TEXT in "".join(etree.fromstring(made).itertext())


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_a_copy_with_the_text_in_it(
    photo: Path, tmp_path: Path, exiftool: Reader, suffix: str
) -> None:
    source = photo.with_suffix(suffix)
    if suffix != ".jpg":
        Image.open(photo).save(source, exif=Image.open(photo).getexif())
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    writer = Embedded(tmp_path / "copies", originals=(photo.parent,))
    writer.add(described(source, f"deep/{source.name}"))
    copy = tmp_path / "copies" / "deep" / source.name
    found = exiftool(copy)
    assert TEXT in str(found[TAG])
    assert found["IFD0:Make"] == "Camera maker"
    assert np.array_equal(np.asarray(Image.open(copy)), np.asarray(Image.open(source)))
    assert hashlib.sha256(source.read_bytes()).hexdigest() == digest
    assert copy.stat().st_mtime_ns == source.stat().st_mtime_ns
    again = Embedded(tmp_path / "copies", originals=(photo.parent,))
    again.add(described(source, f"deep/{source.name}"))
    assert (again.written, again.kept) == (0, 1)


def test_in_place_keeps_all_else(photo: Path, exiftool: Reader) -> None:
    subprocess.run(
        ["exiftool", "-q", "-overwrite_original", "-XMP-dc:Title=Titel", "-IPTC:City=Kiel",
         f"-{TAG}-de=Von Hand", str(photo)],
        check=True,
    )  # fmt: skip
    photo.chmod(0o640)
    before = photo.read_bytes()
    writer = Embedded(None)
    writer.add(described(photo))
    assert photo.read_bytes() == before  # a person's text is there
    assert writer.kept == 1
    pixels = np.asarray(Image.open(photo))
    Embedded(None, replace=True).add(described(photo))
    after = exiftool(photo)
    assert after["XMP-dc:Title"] == "Titel"
    assert after["IPTC:City"] == "Kiel"
    assert after["IFD0:Make"] == "Camera maker"
    assert after[f"{TAG}-de"] == "Von Hand"
    assert TEXT in str(after[TAG])
    assert np.array_equal(np.asarray(Image.open(photo)), pixels)
    assert photo.stat().st_mode & 0o777 == 0o640
    assert list(photo.parent.iterdir()) == [photo]


def test_copies_that_are_refused(photo: Path, tmp_path: Path) -> None:
    for folder in (photo.parent, photo.parent / "copies", tmp_path / "x" / ".." / "in"):
        with pytest.raises(LibraryError, match="would lie among the originals"):
            Embedded(folder, originals=(photo.parent,))
    writer = Embedded(tmp_path / "copies", originals=(photo.parent,))
    gif = photo.with_suffix(".gif")
    Image.open(photo).convert("P").save(gif)
    with pytest.raises(LibraryError, match=r"a \.gif file, into which no XMP can be written"):
        writer.add(described(gif))
    broken = photo.with_name("broken.jpg")
    broken.write_bytes(b"\xff\xd8" + b"x" * 100)
    with pytest.raises(LibraryError, match="no XMP can be written into"):
        writer.add(described(broken))
    assert not (tmp_path / "copies").exists()


def test_a_copy_is_never_the_original(photo: Path, tmp_path: Path) -> None:
    before = photo.read_bytes()
    writer = Embedded(photo.parent, replace=True)
    with pytest.raises(LibraryError, match="itself; give another folder"):
        writer.add(described(photo))
    (tmp_path / "copies").mkdir()
    (tmp_path / "copies" / "photo.jpg").symlink_to(photo)
    with pytest.raises(LibraryError, match="itself; give another folder"):
        Embedded(tmp_path / "copies", replace=True).add(described(photo))
    assert photo.read_bytes() == before


def test_in_place_through_a_link(photo: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.jpg"
    link.symlink_to(photo)
    before = photo.read_bytes()
    Embedded(None).add(described(link))
    assert link.is_symlink()
    assert photo.read_bytes() != before


def test_a_full_disk_leaves_nothing_half_written(photo: Path, small_disk: Path) -> None:
    shutil.copy(photo, small_disk / "photo.jpg")
    SideCars(None).add(described(small_disk / "photo.jpg"))
    whole = (small_disk / "photo.jpg.xmp").read_bytes()
    with pytest.raises(OSError, match="No space left"):
        (small_disk / "filler").write_bytes(b"x" * 10**7)
    with pytest.raises(LibraryError, match="cannot be written: No space left on device"):
        SideCars(None, replace=True).add(described(small_disk / "photo.jpg", text="B" * 200))
    assert (small_disk / "photo.jpg.xmp").read_bytes() == whole
    names = {path.name for path in small_disk.iterdir()}
    assert names == {"filler", "photo.jpg", "photo.jpg.xmp"}
