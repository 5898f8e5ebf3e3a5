"""Searching: which captions are found, in what order, and that no text breaks the query."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecap.photos import Answer, LibraryError, search
from edgecap.photos.database import Database, default_path
from edgecap.photos.schema import SCHEMA, Row

CAPTIONS = {
    "/a/1.jpg": ("a dog runs on the beach", 0.9),
    "/a/2.jpg": ("two dogs are playing on a beach", 0.8),
    "/a/b/3.jpg": ("a dog runs on the beach", 0.95),
    "/ab/4.jpg": ("a man on a beach", 0.3),
    "/ab/5.jpg": ("a café at night", 0.7),
    "/ab/6.jpg": ("a dog in the snow with another dog and a third dog", 0.6),
}


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("search") / "photos.db"
    with Database(path, write=True) as opened:
        maker = opened.maker("sha", "name", 1, 1)
        rows = [
            Row(name, 1, 1, os.urandom(16), maker, text, sure, sure > 0.5, None, 0.0)
            for name, (text, sure) in CAPTIONS.items()
        ]
        failed = Row("/a/bad.jpg", 1, 1, None, maker, "", None, None, "cut short", 0.0)
        opened.put([*rows, failed])
    return path


def paths(answer: Answer) -> list[str]:
    return [hit.path for hit in answer.hits]


def test_all_words_are_found_in_any_form(database: Path) -> None:
    answer = search("Dogs on the BEACH!", database=database)
    assert answer.matched == "all"
    assert answer.words == ("dogs", "beach")
    # The same text: the more confident first. A longer text ranks lower.
    assert paths(answer) == ["/a/b/3.jpg", "/a/1.jpg", "/a/2.jpg"]
    assert answer.hits[0].score > answer.hits[2].score > 0
    assert paths(search("cafe", database=database)) == ["/ab/5.jpg"]
    assert paths(search("CAFÉS", database=database)) == ["/ab/5.jpg"]


def test_some_words_where_none_has_all(database: Path) -> None:
    answer = search("zebra on a beach", database=database)
    assert answer.matched == "any"
    assert set(paths(answer)) == {name for name, (text, _) in CAPTIONS.items() if "beach" in text}
    assert search("zebra", database=database) == Answer((), "all", ("zebra",))
    assert search("zebra giraffe", database=database).hits == ()


def test_common_words_count_where_there_are_no_others(database: Path) -> None:
    assert len(search("on a", database=database).hits) == 4
    assert search("the", database=database).words == ("the",)


def test_limit_and_folder(database: Path) -> None:
    assert len(search("dog", database=database, limit=2).hits) == 2
    assert len(search("dog", database=database, limit=4).hits) == 4
    assert set(paths(search("dog", database=database, folder="/a"))) == {
        "/a/1.jpg", "/a/2.jpg", "/a/b/3.jpg",
    }  # fmt: skip
    assert paths(search("dog", database=database, folder="/ab/")) == ["/ab/6.jpg"]
    assert paths(search("dog", database=database, folder="/")) != []
    assert search("dog", database=database, folder="/a/1.jpg").hits == ()
    with pytest.raises(LibraryError, match="limit is 0; give a whole number"):
        search("dog", database=database, limit=0)


def test_not_sure_is_told(database: Path) -> None:
    [hit] = [hit for hit in search("man", database=database).hits]
    assert str(hit) == "/ab/4.jpg: a man on a beach (not sure)"
    assert hit.to_dict()["sure"] is False


@settings(max_examples=150, deadline=None)
@given(
    st.text(max_size=30) | st.text(st.sampled_from("dog \"'*():^-+{}ANDORNOTEAR\0"), max_size=30)
)
def test_no_text_breaks_the_query(database: Path, text: str) -> None:
    if any(letter.isalnum() for letter in text):
        assert len(search(text, database=database).words) >= 1
    else:
        with pytest.raises(LibraryError, match="has no word to look for"):
            search(text, database=database)


def test_what_is_found_is_what_a_stemmer_of_others_finds(database: Path) -> None:
    stemmer = pytest.importorskip("snowballstemmer").stemmer("porter")
    for query in ("dog", "dogs", "runs", "running", "playing", "plays", "nights", "third"):
        [stem] = stemmer.stemWords([query])
        expected = {
            name
            for name, (text, _) in CAPTIONS.items()
            if stem in stemmer.stemWords(text.replace("é", "e").split())
        }
        assert set(paths(search(query, database=database))) == expected, query


def test_too_many_words(database: Path) -> None:
    with pytest.raises(LibraryError, match="65 words were given; at most 64"):
        search(" ".join(f"w{number}" for number in range(65)), database=database)


def test_replaced_and_removed_rows_leave_no_text(tmp_path: Path) -> None:
    with Database(tmp_path / "p.db", write=True) as opened:
        maker = opened.maker("sha", "name", 1, 1)
        row = Row("/x.jpg", 1, 1, b"1", maker, "a red car", 0.9, True, None, 0.0)
        opened.put([row, row._replace(path="/y.jpg")])
        opened.put([row._replace(text="a blue bus")])
        assert paths(search("car", database=opened)) == ["/y.jpg"]
        opened.remove(["/y.jpg"])
        assert search("car", database=opened).hits == ()
        assert paths(search("bus", database=opened)) == ["/x.jpg"]
        opened.put([row._replace(text="", failure="cut short", confidence=None, sure=None)])
        assert search("bus", database=opened).hits == ()
        assert opened.count() == 0
    connection = sqlite3.connect(tmp_path / "p.db")
    assert connection.execute("SELECT count(*) FROM texts").fetchone() == (0,)


def test_the_place_of_the_users_index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("EDGECAP_DATABASE", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_path() == tmp_path / "edgecap" / "photos.db"
    with pytest.raises(LibraryError, match=r"no index .*photos\.db yet; make one: edgecap index F"):
        search("dog")
    monkeypatch.setenv("EDGECAP_DATABASE", str(tmp_path / "mine.db"))
    assert default_path() == tmp_path / "mine.db"
    monkeypatch.delenv("EDGECAP_DATABASE")
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", "/home/ada")
    assert default_path() == Path("/home/ada/.local/share/edgecap/photos.db")


def _newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    with closing(sqlite3.connect(path)) as connection:  # nothing waits beside the file
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _other(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE mine (x)")


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2 // 4096 * 4096)


def _torn(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096:] = os.urandom(len(data) - 4096)
    path.write_bytes(data)


BAD: dict[str, Any] = {
    "newer": (_newer, "has version 2, made by a newer EdgeCap; this one reads version 1"),
    "other": (_other, "is a database of another kind"),
    "text": (lambda path: path.write_text("hello\n"), "is no index of photographs, or is damaged"),
    "noise": (lambda path: path.write_bytes(b"\1" * 9000), "is no index of photographs, or is dam"),
    "cut": (_cut, "is no index of photographs, or is damaged"),
    "torn": (_torn, "is no index of photographs, or is damaged"),
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("write", [False, True])
def test_what_is_no_index(database: Path, tmp_path: Path, kind: str, write: bool) -> None:
    path = tmp_path / "bad.db"
    shutil.copy(database, path)
    spoil, message = BAD[kind]
    spoil(path)
    before = path.read_bytes()
    use = (lambda: Database(path, write=True)) if write else lambda: search("dog", database=path)
    with pytest.raises(LibraryError, match=message):
        use()
    assert path.read_bytes() == before


def test_a_file_that_was_only_begun(tmp_path: Path) -> None:
    path = tmp_path / "empty.db"
    path.touch()
    with pytest.raises(LibraryError, match="is empty; fill it"):
        search("dog", database=path)
    with Database(path, write=True) as opened:
        assert opened.count() == 0
    assert search("dog", database=path).hits == ()


@pytest.mark.parametrize("place", ["folder", "folder/file/photos.db"])
def test_a_place_where_no_index_can_be(tmp_path: Path, place: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").touch()
    with pytest.raises(LibraryError, match="cannot be opened"):
        Database(tmp_path / place, write=True)


def test_a_place_that_may_not_be_written(unprivileged: Path, database: Path) -> None:
    folder = unprivileged / "folder"
    folder.mkdir(mode=0o500)
    with pytest.raises(LibraryError, match="cannot be opened: Permission denied"):
        Database(folder / "photos.db", write=True)
    folder.chmod(0o700)


def test_a_search_while_it_is_written(database: Path, tmp_path: Path) -> None:
    path = tmp_path / "photos.db"
    shutil.copy(database, path)
    with Database(path, write=True) as opened:
        maker = opened.maker("sha", "name", 1, 1)
        opened._file.execute("BEGIN IMMEDIATE")
        row = Row("/new.jpg", 1, 1, b"1", maker, "a new dog", 0.9, True, None, 0.0)
        opened._file.execute("DELETE FROM photographs")
        assert len(search("dog", database=path).hits) == 4
        opened._file.execute("ROLLBACK")
        opened.put([row])
        assert len(search("dog", database=path).hits) == 5
