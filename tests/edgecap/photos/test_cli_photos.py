"""``edgecap caption --format``, ``edgecap index`` and ``edgecap search``."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., tuple[int, str, str]]
Make = Callable[..., Path]


def test_index_and_search(edgecap_command: Command, make_photos: Make, tmp_path: Path) -> None:
    folder, database = make_photos(12), tmp_path / "photos.db"
    code, out, err = edgecap_command("index", folder, "--database", database, "--beams", "1")
    assert (code, err) == (0, "")
    assert out.startswith(f"{folder}: 12 photographs: 12 captioned in ")
    code, out, _ = edgecap_command("index", folder, "--database", database, "--beams", "1")
    assert (code, " 12 unchanged in " in out) == (0, True)
    code, out, _ = edgecap_command(
        "index", folder, "--database", database, "--beams", "1", "--json"
    )
    assert json.loads(out)["unchanged"] == 12
    _, words, _ = edgecap_command("caption", "--beams", "1", "--json", folder / "00" / "p003.png")
    text = json.loads(words)["text"]
    code, out, err = edgecap_command(
        "search", *text.split(), "--database", database, "--json", "--limit", "50"
    )
    assert (code, err) == (0, "")
    hits = [json.loads(line) for line in out.splitlines()]
    mine = str((folder / "00" / "p003.png").resolve())
    assert [hit["text"] for hit in hits if hit["path"] == mine] == [text]
    code, out, _ = edgecap_command("search", text, "--database", database, "--folder", tmp_path)
    assert f"{mine}: {text}" in out
    code, out, err = edgecap_command("search", "zebra", "--database", database)
    assert (code, out, err) == (0, "", "no caption has zebra\n")
    code, out, err = edgecap_command("search", "zebra", text, "--database", database)
    assert code == 0
    assert out
    assert err.startswith("no caption has all of: zebra, ")


def test_found_photographs_as_a_page(
    edgecap_command: Command, make_photos: Make, tmp_path: Path
) -> None:
    folder, database, page = make_photos(3), tmp_path / "photos.db", tmp_path / "found.html"
    edgecap_command("index", folder, "--database", database)
    first = edgecap_command("caption", folder / "00" / "p000.png")[1]
    words = first.partition(": ")[2].replace("(not sure)", "").split()
    code, out, _ = edgecap_command("search", *words, "--database", database, "--html", page)
    assert code == 0
    assert page.read_text().count("<img ") == len(out.splitlines()) > 0
    (folder / "00" / "p000.png").unlink()
    code, _, err = edgecap_command("search", *words, "--database", database, "--html", page)
    assert code == 2
    assert "p000.png does not exist" in err
    assert page.exists()


def test_index_tells_bad_pictures_once(
    edgecap_command: Command, make_photos: Make, tmp_path: Path
) -> None:
    folder, database = make_photos(2), tmp_path / "photos.db"
    (folder / "bad.jpg").write_text("hello")
    code, out, err = edgecap_command("index", folder, "--database", database)
    assert code == 2
    assert "2 captioned, 1 cannot be read in" in out
    assert err.count("\n") == 1
    assert err.startswith(f"edgecap: error: {folder.resolve()}/bad.jpg is no picture")
    code, out, err = edgecap_command("index", folder, "--database", database)
    assert (code, err) == (0, "")
    assert "2 unchanged, 1 cannot be read in" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["index", "none"], "none does not exist; give a folder"),
        (["index", __file__], "is no folder; give a folder"),
        (["index", ".", "--beams", "0"], "beams is 0"),
        (["index", ".", "--workers", "99"], "workers is 99"),
        (["search", "--database", "none.db", "dog"], "there is no index none.db yet"),
        (["search", "--database", __file__, "dog"], "is no index of photographs, or is damaged"),
        (["search", "--database", __file__, "!?"], "'!?' has no word to look for"),
        (["caption", ".", "--format", "html"], "a page needs a file"),
        (["caption", ".", "--in-place"], "need --format csv, jsonl, html or xmp"),
        (["caption", ".", "--json", "--format", "csv"], "give --format jsonl"),
        (["caption", ".", "--format", "xmp", "--language", "?"], "language is '?'"),
        (["caption", ".", "--format", "csv", "-o", "no/t.csv"], "no/t.csv cannot be written"),
    ],
)
def test_errors_are_one_line(
    edgecap_command: Command,
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGECAP_DATABASE", str(tmp_path / "photos.db"))
    (tmp_path / "x.png").touch()
    code, out, err = edgecap_command(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("edgecap: error: ")
    assert message in err
    assert err.count("\n") == 1


def test_a_table_on_standard_output(edgecap_command: Command, make_photos: Make) -> None:
    folder = make_photos(12)
    (folder / "bad.jpg").write_text("hello")
    code, out, err = edgecap_command("caption", folder, "--format", "csv", "--not-sure", "skip")
    assert code == 2
    assert err.count("\n") == 1
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["path"] for row in rows] == [
        f"{folder}/{n // 10:02}/p{n:03}.png" for n in range(12)
    ]
    for row in rows:
        assert bool(row["alt_text"]) == (row["sure"] == "yes")
    lines = edgecap_command("caption", folder)[1].splitlines()
    plain = [line.partition(": ")[2].removesuffix(" (not sure)") for line in lines]
    assert [row["caption"] for row in rows] == plain


def test_files_and_side_cars(edgecap_command: Command, make_photos: Make, tmp_path: Path) -> None:
    folder = make_photos(3)
    before = {path: path.read_bytes() for path in folder.rglob("*.png")}
    for kind in ("csv", "jsonl", "html"):
        out = tmp_path / f"out.{kind}"
        assert edgecap_command("caption", folder, "--format", kind, "-o", out)[0] == 0
        assert out.stat().st_size > 0
    assert edgecap_command("caption", folder, "--format", "xmp")[0] == 0
    assert len(list(folder.rglob("*.png.xmp"))) == 3
    code, _, err = edgecap_command("caption", folder, "--format", "xmp")
    assert code == 0
    assert err == "0 written, 3 kept as they were (--replace writes over them)\n"
    assert edgecap_command("caption", folder, "--format", "xmp", "--into-copies", tmp_path / "c")[
        0
    ] == 0  # fmt: skip
    assert len(list((tmp_path / "c" / "00").glob("*.png"))) == 3
    assert {path: path.read_bytes() for path in folder.rglob("*.png")} == before
    assert edgecap_command("caption", folder, "--format", "xmp", "--in-place")[0] == 0
    assert all(path.read_bytes() != data for path, data in before.items())


def test_an_interrupt_says_what_is_done(make_photos: Make, tiny_bundle: Path) -> None:
    code = """
import os, signal, sys
# Where the tests run in the background it is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
from edgecap.cli import main
from edgecap.photos import sidecar
real, calls = sidecar.SideCars.add, []
def add(self, described):
    calls.append(1)
    if len(calls) == 5:
        os.kill(os.getpid(), signal.SIGINT)
    return real(self, described)
sidecar.SideCars.add = add
main.run(sys.argv[1:])
"""
    folder = make_photos(20)
    words = ["caption", str(folder), "--format", "xmp", "--model", str(tiny_bundle)]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True,
        env={**os.environ, "EDGECAP_ENGINE": "onnxruntime"},
    )  # fmt: skip
    assert done.returncode == 130
    written = len(list(folder.rglob("*.xmp")))
    assert written == 4
    assert done.stderr == f"stopped: {written} written of 20\n"


def test_packages_that_are_missing(
    edgecap_command: Command, make_photos: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_photos(1)
    needs: dict[str, tuple[Any, ...]] = {
        "lxml": ("--format", "xmp"),
        "jinja2": ("--format", "html", "-o", "page.html"),
        "pyexiv2": ("--format", "xmp", "--in-place"),
    }
    for package, options in needs.items():
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            code, _, err = edgecap_command("caption", folder, *options)
        assert code == 2
        assert f"the package '{package}'" in err
        assert "pip install 'edgecap[photos" in err


def test_neither_index_nor_search_needs_more_than_the_base_install() -> None:
    code = (
        "import sys, edgecap.cli.index, edgecap.cli.search, edgecap.photos.index,"
        " edgecap.photos.query\n"
        "print({'lxml', 'jinja2', 'pyexiv2', 'PIL', 'torch', 'yaml', 'av'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
