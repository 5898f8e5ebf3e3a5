"""What is found in a folder, and what must not lead out of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecap.photos import LibraryError
from edgecap.photos.walk import find, gather, inside


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names(folder: Path, **options: bool) -> list[str]:
    return [photograph.relative for photograph in find(folder, **options).photographs]


def test_pictures_by_their_names(tmp_path: Path) -> None:
    touch(
        tmp_path / "b.JPG", tmp_path / "a" / "z.webp", tmp_path / "a" / "deep" / "x.tiff",
        tmp_path / "film.mp4", tmp_path / ".hidden.jpg", tmp_path / ".thumbs" / "t.jpg",
    )  # fmt: skip
    os.mkfifo(tmp_path / "pipe.jpg")
    found = find(tmp_path)
    assert [p.relative for p in found.photographs] == ["b.JPG", "a/z.webp", "a/deep/x.tiff"]
    assert (found.other, found.links, found.unreadable) == (2, 0, {})
    assert found.photographs[0].path == tmp_path.resolve() / "b.JPG"


def test_links_are_left_out_or_followed_once(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "album"
    touch(folder / "own.jpg", outside / "secret.jpg")
    (folder / "loop").symlink_to(folder)
    (folder / "out").symlink_to(outside)
    (folder / "again").symlink_to(outside)
    (folder / "link.jpg").symlink_to(outside / "secret.jpg")
    (folder / "self.jpg").symlink_to(folder / "self.jpg")
    assert names(folder) == ["own.jpg"]
    assert find(folder).links == 5
    found = find(folder, follow_links=True)
    assert [p.relative for p in found.photographs] == ["link.jpg", "own.jpg"]
    assert list(found.unreadable) == [str(folder.resolve() / "self.jpg")]


def test_a_folder_that_is_a_link_itself(tmp_path: Path) -> None:
    touch(tmp_path / "real" / "a.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert find(tmp_path / "link").photographs == find(tmp_path / "real").photographs


@pytest.mark.parametrize("name", ["none", "file.jpg", "nul\0"])
def test_what_is_no_folder(tmp_path: Path, name: str) -> None:
    touch(tmp_path / "file.jpg")
    with pytest.raises(LibraryError, match="folder"):
        find(tmp_path / name)


def test_a_folder_without_read_permission(unprivileged: Path) -> None:
    touch(unprivileged / "a.jpg", unprivileged / "locked" / "b.jpg")
    (unprivileged / "locked").chmod(0)
    found = find(unprivileged)
    assert [photograph.relative for photograph in found.photographs] == ["a.jpg"]
    [(path, why)] = found.unreadable.items()
    assert path == str(unprivileged.resolve() / "locked")
    assert why == "the folder cannot be read: Permission denied"
    with pytest.raises(LibraryError, match="cannot be read: Permission denied"):
        find(unprivileged / "locked")
    (unprivileged / "locked").chmod(0o700)


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/caf\xe9.jpg", "wb"):
        pass
    found = find(tmp_path)
    assert found.photographs == []
    [why] = found.unreadable.values()
    assert why == "its name is not in UTF-8; rename it"
    "".join(found.unreadable).encode()


def test_folders_deeper_than_a_path_may_be_long(tmp_path: Path) -> None:
    name = "d" * 100
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(60):
        os.mkdir(name, dir_fd=here)
        deeper = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
    os.close(here)
    touch(tmp_path / "z.jpg")
    found = find(tmp_path)
    assert [photograph.relative for photograph in found.photographs] == ["z.jpg"]
    [why] = found.unreadable.values()
    assert why.endswith("File name too long")


def test_gather(tmp_path: Path) -> None:
    touch(tmp_path / "album" / "x" / "a.jpg", tmp_path / "one.jpg")
    album, one = str(tmp_path / "album"), str(tmp_path / "one.jpg")
    assert [p.relative for p in gather([album])[0]] == ["x/a.jpg"]
    assert [p.relative for p in gather([album, one])[0]] == ["album/x/a.jpg", "one.jpg"]
    given = [p.relative for p in gather([album + "/", one], as_given=True)[0]]
    assert given == [f"{album}/x/a.jpg", one]
    (tmp_path / "empty").mkdir()
    photographs, problems = gather([str(tmp_path / "empty"), "none.jpg"])
    assert [photograph.path for photograph in photographs] == [Path("none.jpg")]
    assert "holds no pictures" in "".join(problems.values())
    photographs, problems = gather([os.fsdecode(b"caf\xe9.jpg"), "caf\xe9.jpg"])
    assert [photograph.relative for photograph in photographs] == ["caf\xe9.jpg"]
    assert list(problems.values()) == ["its name is not in UTF-8; rename it"]


@given(st.text(st.sampled_from("ab./\\~"), max_size=12))
def test_nothing_leads_out(tmp_path_factory: pytest.TempPathFactory, relative: str) -> None:
    root = tmp_path_factory.getbasetemp() / "root"
    root.mkdir(exist_ok=True)
    if not (root / "a").is_symlink():
        (root / "a").symlink_to(root.parent)
        (root / "b").mkdir()
    try:
        target = inside(root, relative)
    except LibraryError:
        return
    assert Path(os.path.realpath(target.parent)).is_relative_to(os.path.realpath(root))
