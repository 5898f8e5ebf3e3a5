"""Alternative texts, and the tables, lines and pages they are written to."""

from __future__ import annotations

import base64
import csv
import io
import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import html
from PIL import Image

from edgecap.photos import LibraryError
from edgecap.photos.ahead import ahead
from edgecap.photos.alt_text import Described, alt_text, write_all
from edgecap.photos.csv_file import CsvFile
from edgecap.photos.errors import OutputError
from edgecap.photos.html_page import HtmlPage
from edgecap.photos.jsonl_file import JsonLines
from edgecap.photos.walk import Photograph
from edgecap.photos.writers import WriteOptions
from edgecap.runtime.caption import Caption, Timings
from edgecap.runtime.errors import ImageError


def caption(text: str, sure: bool = True) -> Caption:
    return Caption(text, (), -0.5, 0.75 if sure else 0.2, sure, Timings())


def described(path: Path, relative: str, text: str = "a dog", alt: str = "A dog.") -> Described:
    return Described(path, relative, caption(text), alt)


def test_alt_texts() -> None:
    assert alt_text(caption("a photo of a dog on a")) == "A dog."
    assert alt_text(caption("a dog", sure=False)) == "Not sure, maybe a dog."
    assert alt_text(caption("a dog", sure=False), "skip") == ""
    assert alt_text(caption("a dog", sure=False), "keep") == "A dog."
    assert alt_text(caption("")) == ""
    long = alt_text(caption("dog " * 100))
    assert 240 < len(long) <= 250
    assert long.endswith(" dog.")
    assert alt_text(caption("d" * 300)) == ""


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_cell_comes_back_and_none_is_a_formula(
    tmp_path_factory: pytest.TempPathFactory, name: str, text: str
) -> None:
    try:
        (name + text).encode()
    except UnicodeEncodeError:
        return
    path = tmp_path_factory.getbasetemp() / "table.csv"
    writer = CsvFile(path)
    writer.add(described(Path("x"), name, text, text))
    writer.close(True)
    rows = list(csv.reader(io.StringIO(path.read_bytes().decode(), newline="")))
    assert rows[0] == ["path", "alt_text", "caption", "confidence", "sure"]
    assert len(rows) == 2
    for cell, given_cell in zip(rows[1], (name, text, text), strict=False):
        assert cell in (given_cell, f"'{given_cell}")
        assert not cell.strip(" ").startswith(("=", "+", "-", "@", "\t", "\r"))
    assert rows[1][3:] == ["0.7500", "yes"]


def test_formulas_are_told_apart(tmp_path: Path) -> None:
    writer = CsvFile(tmp_path / "t.csv")
    writer.add(described(Path("x"), "=HYPERLINK(1).jpg", "a+b", " =1"))
    writer.close(True)
    assert (tmp_path / "t.csv").read_text().splitlines()[1] == (
        "'=HYPERLINK(1).jpg,' =1,a+b,0.7500,yes"
    )


def test_lines_of_json(tmp_path: Path) -> None:
    writer = JsonLines(tmp_path / "t.jsonl")
    writer.add(described(Path("x"), 'a"b\n.jpg', "a café"))
    writer.close(True)
    [line] = (tmp_path / "t.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line) == {
        "path": 'a"b\n.jpg', "alt_text": "A dog.", "caption": "a café", "confidence": 0.75,
        "sure": True, "score": -0.5,
    }  # fmt: skip


def test_a_page(tmp_path: Path) -> None:
    photo = tmp_path / "in" / 'a #1 "b"<script>.png'
    photo.parent.mkdir()
    Image.new("RGB", (800, 400), "navy").save(photo)
    page = tmp_path / "out" / "page.html"
    page.parent.mkdir()
    writer = HtmlPage(page, language="en-GB")
    writer.add(described(photo, photo.name, alt='A "dog" & <b>.'))
    writer.add(Described(photo, photo.name, caption("x", sure=False), ""))
    writer.close(True)
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text
    tree = html.fromstring(text)
    assert tree.get("lang") == "en-GB"
    first, second = tree.findall(".//img")
    assert first.get("alt") == 'A "dog" & <b>.'
    assert second.get("alt") == ""
    kind, _, data = first.get("src").partition(",")
    assert kind == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (320, 160)
    link = tree.find(".//a")
    assert (page.parent / unquote(link.get("href"))).resolve() == photo.resolve()
    assert link.text == photo.name
    assert tree.findtext(".//p") == "2 photographs."
    assert "not sure" in tree.findall(".//figcaption")[1].text_content()
    sources = [element.get("src") for element in tree.iterfind(".//*[@src]")]
    assert all(source.startswith("data:") for source in sources)


def test_a_run_that_is_left_makes_no_file(tmp_path: Path) -> None:
    photograph = Photograph(Path("x.jpg"), "x.jpg", 0, 0)
    for name, kind in (("t.csv", CsvFile), ("t.jsonl", JsonLines), ("t.html", HtmlPage)):
        (tmp_path / name).write_text("the last run's")
        writer: Any = kind(tmp_path / name)
        if name != "t.html":
            running = write_all([(photograph, caption("a dog"))] * 9, writer)
            assert next(running) == (photograph, None)
            running.close()
        else:
            writer.close(False)
        assert (tmp_path / name).read_text() == "the last run's"
    assert len(list(tmp_path.iterdir())) == 3


def test_a_full_disk_ends_the_table(small_disk: Path) -> None:
    path = small_disk / "t.jsonl"
    path.write_text("the last run's")
    photograph = Photograph(Path("x.jpg"), "x" * 200, 0, 0)
    writer = JsonLines(path)
    rows = ((photograph, caption("a dog")) for _ in range(100_000))
    with pytest.raises(OutputError, match="cannot be written: No space left on device"):
        list(write_all(rows, writer))
    assert path.read_text() == "the last run's"
    assert [entry.name for entry in small_disk.iterdir()] == ["t.jsonl"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "html"}, "a page needs a file"),
        ({"format": "csv", "in_place": True}, "give --format xmp"),
        ({"format": "xmp", "in_place": True, "into_copies": Path("x")}, "give one of -o"),
        ({"format": "csv", "out": Path("/")}, "is a folder; give the csv file"),
        ({"format": "xmp", "out": Path(__file__)}, "is a file; give a folder"),
        ({"format": "xmp", "language": "en us"}, "language is 'en us'; give a tag"),
        ({"format": "pdf"}, "format is 'pdf'; give one of csv, jsonl, html, xmp"),
        ({"format": "xmp", "sidecar_name": "x"}, "sidecar_name is 'x'; give one of full, stem"),
    ],
)
def test_options_that_contradict(options: dict[str, Any], message: str) -> None:
    with pytest.raises(LibraryError, match=message):
        WriteOptions(**options)


def test_reading_ahead_keeps_order_and_bounds() -> None:
    begun: list[int] = []

    def read(number: int) -> int:
        begun.append(number)
        if number == 5:
            raise ImageError("bad")
        return number * 2

    jobs = iter(range(1000))
    results = ahead(jobs, read, workers=4, most=10)
    for expected in range(20):
        number, result = next(results)
        assert number == expected
        assert isinstance(result, ImageError) if number == 5 else result == number * 2
    results.close()
    assert len(begun) <= 30
    assert next(jobs) <= 30


def test_a_fault_while_reading_ends_the_whole() -> None:
    def read(number: int) -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(ahead([1, 2], read))
