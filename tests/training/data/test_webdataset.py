from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecap.runtime.errors import DataError
from edgecap.training.data import dataset_splits, load_pixels, open_dataset
from edgecap.training.data.shards import ShardOptions, ShardPosition, ShardStream
from edgecap.training.data.webdataset import expand, find_shards


def write_shard(path: Path, members: list[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def members(numbers: range) -> list[tuple[str, bytes]]:
    return [
        member
        for n in numbers
        for member in ((f"{n:04}.jpg", b"picture %d" % n), (f"{n:04}.txt", b"Caption %d here" % n))
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten shards of 7 samples; the pictures are not decoded."""
    for shard in range(10):
        write_shard(tmp_path / f"train-{shard:06}.tar", members(range(7 * shard, 7 * shard + 7)))
    return tmp_path


def ids(stream: ShardStream) -> list[str]:
    return [image.id for image in stream]


def test_it_reads_what_the_webdataset_package_writes_and_as_it_reads(
    tmp_path: Path, write_picture
) -> None:
    webdataset = pytest.importorskip("webdataset")
    path = tmp_path / "train-000000.tar"
    pixels = [write_picture(tmp_path / f"{n}.png", n) for n in range(5)]
    with webdataset.TarWriter(str(path)) as writer:
        for n in range(5):
            writer.write(
                {
                    "__key__": f"part/{n:05}",
                    "png": (tmp_path / f"{n}.png").read_bytes(),
                    "json": {"captions": [f"Picture {n}", "One more"], "width": 32},
                }
            )
    theirs = list(webdataset.WebDataset(str(path), shardshuffle=False))
    ours = list(ShardStream(ShardOptions((str(path),), shuffle=False)))
    assert [image.id for image in ours] == [f"{sample['__key__']}.png" for sample in theirs]
    for image, sample in zip(ours, theirs, strict=True):
        assert image.data == sample["png"]
        assert list(image.captions) == json.loads(sample["json"])["captions"]
    indexed = open_dataset(f"webdataset:{tmp_path}", "train", strict=True)
    for n, (image, streamed) in enumerate(zip(indexed, ours, strict=True)):
        assert (load_pixels(image) == pixels[n]).all()
        assert (load_pixels(streamed) == pixels[n]).all()
        assert image == streamed  # the bytes aside


def test_nothing_is_unpacked(folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    assert len(open_dataset(f"webdataset:{folder}", "train")) == 70
    assert len(ids(ShardStream(ShardOptions(find_shards(folder))))) == 70
    assert sorted(folder.rglob("*")) == before


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 40), st.integers(0, 3), st.booleans())
def test_every_sample_comes_once_an_epoch_over_all_ranks_and_workers(
    tmp_path_factory: pytest.TempPathFactory,
    world: int,
    workers: int,
    buffer: int,
    seed: int,
    shuffle: bool,
) -> None:
    shards = shards_once(tmp_path_factory)
    streams = [
        ShardStream(ShardOptions(shards, seed, buffer, shuffle, rank, world, worker, workers))
        for rank in range(world)
        for worker in range(workers)
    ]
    for _ in range(2):  # two epochs
        found = Counter(key for stream in streams for key in ids(stream))
        assert found == Counter(f"{n:04}.jpg" for n in range(70))
    assert {stream.position for stream in streams} == {ShardPosition(epoch=2)}


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), st.integers(0, 75), st.integers(0, 2), st.booleans())
def test_a_stream_goes_on_where_its_position_says(
    tmp_path_factory: pytest.TempPathFactory, buffer: int, stop: int, seed: int, shuffle: bool
) -> None:
    options = ShardOptions(
        shards_once(tmp_path_factory), seed, buffer, shuffle, rank=1, world=2, workers=2
    )
    whole = [*(first := ShardStream(options)), *first, *first]
    stream, taken = ShardStream(options), []
    while len(taken) < stop:
        for image in stream:
            taken.append(image)
            if len(taken) == stop:
                break
        if len(taken) >= len(whole):
            break
    # Only what survives a file of plain numbers goes on.
    kept = ShardPosition(**json.loads(json.dumps(vars(stream.position))))
    later = ShardStream(options, kept)
    rest = [image for _ in range(3) for image in later]
    assert [*taken, *rest][: len(whole)] == whole


def shards_once(factory: pytest.TempPathFactory) -> tuple[str, ...]:
    folder = factory.getbasetemp() / "shards_once"
    if not folder.is_dir():
        for shard in range(10):
            numbers = range(7 * shard, 7 * shard + 7)
            write_shard(folder / f"train-{shard:06}.tar", members(numbers))
    return find_shards(folder)


def test_epochs_and_seeds_differ_and_repeat(folder: Path) -> None:
    shards = find_shards(folder)
    stream = ShardStream(ShardOptions(shards, seed=1, buffer=20))
    first, second = ids(stream), ids(stream)
    assert first != second
    assert sorted(first) == sorted(second)
    assert ids(ShardStream(ShardOptions(shards, seed=1, buffer=20))) == first
    assert ids(ShardStream(ShardOptions(shards, seed=2, buffer=20))) != first
    alone = ShardStream(ShardOptions(shards[:1]))  # one shard: only its samples change places
    assert (first := ids(alone)) != (second := ids(alone))
    assert sorted(first) == sorted(second)
    in_order = ids(ShardStream(ShardOptions(shards, shuffle=False)))
    assert in_order == sorted(in_order)


def test_all_ways_to_write_captions(tmp_path: Path) -> None:
    shard = write_shard(
        tmp_path / "00000.tar",
        [
            ("__info__.json", b"{}"), ("./a/1.jpg", b"1"), ("./a/1.txt", b"One line\nAnd two\n"),
            ("._hidden.jpg", b"x"), ("2.x.png", b"no"), ("3.JPEG", b"3"),
            ("3.json", b'{"caption": "From json", "url": "x"}'), ("3.txt", b"From txt"),
            ("4.jpg", b"4"), ("4.cls", b"7"), ("5.txt", b"No picture"),
        ],
    )  # fmt: skip
    data = open_dataset(f"webdataset:{tmp_path}", "all")
    assert data.references == {"a/1.jpg": ["One line", "And two"], "3.jpeg": ["From json"]}
    assert data.problems.missing_files == ("5",)
    assert data.problems.without_captions == ("4.jpg",)
    stream = ShardStream(ShardOptions((str(shard),)))
    assert len(ids(stream)) == 2
    assert stream.skipped == 2


@pytest.mark.parametrize("name", ["../evil.jpg", "/etc/evil.jpg", "a/../../evil.jpg", "..\\e.jpg"])
def test_names_that_climb_out_are_refused(tmp_path: Path, name: str) -> None:
    write_shard(tmp_path / "train-0.tar", [(name, b"x")])
    with pytest.raises(DataError, match="leads out of a folder; refused"):
        open_dataset(f"webdataset:{tmp_path}", "train")
    with pytest.raises(DataError, match="refused"):
        ids(ShardStream(ShardOptions(find_shards(tmp_path))))


def test_links_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "train-0.tar", "w") as tar:
        info = tarfile.TarInfo("1.jpg")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(info)
    with pytest.raises(DataError, match="no plain file; refused"):
        open_dataset(f"webdataset:{tmp_path}", "train")


@pytest.mark.parametrize("size", range(0, 4096, 256))
def test_a_shard_that_ends_early_is_noticed(folder: Path, size: int) -> None:
    path = folder / "train-000009.tar"
    data = path.read_bytes()
    end = data.rstrip(b"\0")
    assert len(end) > 4096
    path.write_bytes(data[:size])
    with pytest.raises(DataError, match=r"train-000009\.tar.*copy it again") as caught:
        open_dataset(f"webdataset:{path}", "train")
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="copy it again"):
        ids(ShardStream(ShardOptions((str(path),))))


def test_a_damaged_header_is_not_taken_for_the_end(folder: Path) -> None:
    path = folder / "train-000009.tar"
    data = bytearray(path.read_bytes())
    data[2048:2060] = b"x" * 12  # the header of the third member
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match="damaged at byte 2048"):
        open_dataset(f"webdataset:{folder}", "train")


def test_damaged_captions_files(tmp_path: Path) -> None:
    for content in (b"{", b'{"caption": 3}', b"[]"):
        write_shard(tmp_path / "t-0.tar", [("1.json", content)])
        with pytest.raises(DataError, match=r"'1\.json' in .* is damaged"):
            open_dataset(f"webdataset:{tmp_path}", "all")
    write_shard(tmp_path / "t-0.tar", [("1.txt", b"\xff")])
    with pytest.raises(DataError, match=r"'1\.txt' in .* is damaged"):
        open_dataset(f"webdataset:{tmp_path}", "all")


@pytest.mark.parametrize(
    "pattern",
    ["a.tar", "s-{000000..000011}.tar", "s-{8..11}.tar", "{train,val}-{00..02}.tar", "{3..1}.tar",
     "s-{08..9}.tar", "{a,b}{0..1}{x,y}.tar", "s-{98..101}.tar"],
)  # fmt: skip
def test_patterns_expand_as_in_bash(pattern: str) -> None:
    done = subprocess.run(
        ["bash", "-c", f"printf '%s\\n' {pattern}"], capture_output=True, text=True
    )
    assert expand(pattern) == done.stdout.split()


def test_splits_by_name_folder_and_pattern(tmp_path: Path) -> None:
    for name in ("train-000000", "train-000001", "val-000000", "test/000000"):
        write_shard(tmp_path / f"{name}.tar", members(range(2)))
    assert dataset_splits(f"webdataset:{tmp_path}") == ["train", "val", "test"]
    assert len(open_dataset(f"webdataset:{tmp_path}", "train")) == 4
    assert len(open_dataset(f"webdataset:{tmp_path}", "test")) == 2
    pattern = f"webdataset:{tmp_path}/train-{{000000..000001}}.tar"
    assert len(open_dataset(pattern, "all")) == len(open_dataset(pattern, "train")) == 4
    with pytest.raises(DataError, match=r"unknown split 'val'.* train, all"):
        open_dataset(pattern, "val")
    with pytest.raises(DataError, match=r"no shard '.*000002\.tar' \(1 of 3 are missing\)"):
        open_dataset(pattern.replace("1}", "2}"), "all")


def test_addresses_are_opened_by_fsspec(folder: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    with fsspec.open("memory://set/a.tar", "wb") as file:
        file.write((folder / "train-000003.tar").read_bytes())
    assert len(ids(ShardStream(ShardOptions(("memory://set/a.tar",))))) == 7
    for wrong in ("memory://set/b.tar", "nothing://set/b.tar"):
        with pytest.raises(DataError, match="cannot read the shard"):
            ids(ShardStream(ShardOptions((wrong,))))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": 2, "world": 2}, "rank 2 of 2"),
        ({"worker": -1}, "worker -1 of 1"),
        ({"buffer": 0}, "buffer is 0"),
        ({"seed": -1}, "seed -1"),
        ({"world": 3}, "2 shards are too few for 3 ranks"),
    ],
)
def test_bad_options(changes: dict[str, int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        ShardOptions(("a.tar", "b.tar"), **changes)
    with pytest.raises(DataError, match="negative"):
        ShardPosition(shard=-1)
