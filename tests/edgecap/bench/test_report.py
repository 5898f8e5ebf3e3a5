"""The page of a record: whole, safe, without outside files."""

from __future__ import annotations

import base64
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import pytest
from bench_records import make_record, make_run
from msgspec.structs import replace

from edgecap.bench.record import Equality
from edgecap.bench.report import write_page

for package in ("jinja2", "matplotlib"):
    pytest.importorskip(package)


class Page(HTMLParser):
    """Collects cells of tables, addresses and text."""

    def __init__(self) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self._tag = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._tag = tag
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._tag == "td" and data.strip():
            self.cells.append(data.strip())


def read(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text())
    return page


def test_a_page_holds_figures_charts_and_nothing_from_outside(tmp_path: Path) -> None:
    run = make_run(count=5000)
    record = make_record(run, make_run(2.0, beams=1, count=150))
    write_page(tmp_path / "page.html", record)
    page = read(tmp_path / "page.html")
    row = page.cells.index("total")
    total = run.stages["total"]
    assert total.p99 is not None
    assert page.cells[row + 1] == f"{total.p50:.2f}"
    assert page.cells[row + 3] == f"{total.p99:.2f}"
    assert "not measured" in page.text
    assert "p99 is of 150 samples" in page.text
    assert len(page.addresses) == 3
    for address in page.addresses:
        kind, _, data = address.partition(",")
        assert kind == "data:image/svg+xml;base64"
        assert ElementTree.fromstring(base64.b64decode(data)).tag.endswith("svg")


def test_names_cannot_break_out_of_a_page(tmp_path: Path) -> None:
    record = make_record(make_run(count=20))
    evil = "<script>alert(1)</script>"
    record = replace(record, model=replace(record.model, name=evil))
    write_page(tmp_path / "page.html", record)
    assert "<script" not in (tmp_path / "page.html").read_text()
    assert evil in read(tmp_path / "page.html").text


def test_an_engine_that_says_something_else_gets_no_times(tmp_path: Path) -> None:
    equality = Equality("the reference", 10, 3, 8)
    record = make_record(make_run(count=0, equality=equality, ended="unequal"))
    write_page(tmp_path / "page.html", record)
    page = read(tmp_path / "page.html")
    assert "3 of 10 captions" in page.text
    assert page.cells == []
    assert page.addresses == []
