"""Bags written by rosbags are read back, whole, cut off at any byte, and damaged."""

from __future__ import annotations

import builtins
import itertools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ros_bags

from edgecap.runtime.errors import EdgeCapError, MissingExtraError, SourceError
from edgecap.runtime.streams import open_source
from edgecap.runtime.streams.frames import Frame, Header

for name in ("mcap", "mcap_ros2"):
    pytest.importorskip(name, reason="of the extra ros")
pytest.importorskip("rosbags", reason="bags are made by another library")
STEP = 40_000_000  # nanoseconds between messages
STORE = ros_bags.typestore()


def picture(index: int) -> Any:
    """uint8 [24, 32, 3], another one for each index."""
    return np.random.default_rng(index).integers(0, 256, (24, 32, 3), np.uint8)


def messages(topic: str = "/camera/image_raw", count: int = 6) -> list[tuple[str, int, Any]]:
    return [
        (
            topic,
            ros_bags.START + index * STEP + 1000,
            ros_bags.image(
                STORE, picture(index), stamp=ros_bags.START + index * STEP, frame_id=f"cam{index}"
            ),
        )
        for index in range(count)
    ]


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ros_bags.write_bag(tmp_path_factory.mktemp("bag") / "drive", messages())


def frames(address: Path | str, **options: Any) -> list[Frame]:
    with open_source(address, realtime=False, **options) as source:
        return list(source)


def chunked(path: Path, count: int, *, chunk_size: int = 1, compression: str = "ZSTD") -> list[int]:
    """The same images by the mcap library itself, a chunk each; the byte at which each ends."""
    from mcap.reader import make_reader
    from mcap.writer import CompressionType, Writer

    schema_text, _ = STORE.generate_msgdef("sensor_msgs/msg/Image", ros_version=2)
    with path.open("wb") as out:
        writer = Writer(out, chunk_size=chunk_size, compression=CompressionType[compression])
        writer.start("ros2", "test")
        schema = writer.register_schema("sensor_msgs/msg/Image", "ros2msg", schema_text.encode())
        channel = writer.register_channel("/camera/image_raw", "cdr", schema)
        for _, moment, message in messages(count=count):
            data = bytes(STORE.serialize_cdr(message, message.__msgtype__))
            writer.add_message(channel, moment, data, moment)
        writer.finish()
    with path.open("rb") as stream:
        summary = make_reader(stream).get_summary()
    assert summary is not None
    return [index.chunk_start_offset + index.chunk_length for index in summary.chunk_indexes]


@pytest.mark.parametrize("form", ["file", "folder", "address", "topic"])
def test_frames_are_the_messages_to_the_nanosecond(bag: Path, form: str) -> None:
    addresses = {
        "file": bag,
        "folder": bag.parent,
        "address": f"mcap://{bag}",
        "topic": f"mcap://{bag.parent}?topic=camera/image_raw",
    }
    got = frames(addresses[form])
    assert [frame.header for frame in got] == [
        Header(*divmod(ros_bags.START + i * STEP, 10**9), f"cam{i}",
               ros_bags.START + i * STEP + 1000) for i in range(6)
    ]  # fmt: skip
    assert all(np.array_equal(frame.image, picture(i)) for i, frame in enumerate(got))
    assert [frame.pts for frame in got] == pytest.approx([0.04 * i for i in range(6)])


def test_looped_and_at_another_rate(bag: Path) -> None:
    with open_source(bag, realtime=False, loop=True) as source:
        times = [frame.pts or 0.0 for frame, _ in zip(source, range(13), strict=False)]
    assert times == sorted(times)
    assert len(set(times)) == 13
    assert [frame.pts for frame in frames(bag, rate=10)] == pytest.approx(
        [i / 10 for i in range(6)]
    )


def test_played_at_its_own_pace(bag: Path) -> None:
    with open_source(bag) as source:
        assert source.live
        got = list(source)
    apart = [b.monotonic - a.monotonic for a, b in itertools.pairwise(got)]
    assert sum(apart) >= 0.19  # five intervals of 40 ms; never early


@pytest.mark.parametrize("compression", ["ZSTD", "LZ4", "NONE"])
def test_a_bag_cut_off_anywhere_gives_what_stands_before(tmp_path: Path, compression: str) -> None:
    whole, cut = tmp_path / "whole.mcap", tmp_path / "cut.mcap"
    ends = chunked(whole, 6, compression=compression)
    data = whole.read_bytes()
    draw = random.Random(compression)
    places = {
        ends[0] + 1,
        ends[2],
        ends[2] - 1,
        *(draw.randrange(10, len(data)) for _ in range(25)),
    }
    for place in sorted(places):
        cut.write_bytes(data[:place])
        before = sum(end <= place for end in ends)
        told: list[tuple[str, str]] = []
        if not before:
            with pytest.raises(SourceError, match=r"no topic|no picture"):
                frames(cut)
            continue
        with open_source(cut, realtime=False) as source:
            source.listener = lambda *said, told=told: told.append(said)  # type: ignore[misc]
            got = list(source)
        assert [frame.header.frame_id for frame in got if frame.header] == [
            f"cam{index}" for index in range(before)
        ]
        ((kind, text),) = told
        assert kind == "cut"
        assert f"of {place}; {before} messages of /camera/image_raw stand before that" in text


def test_any_bytes_changed_or_taken_out_end_in_frames_or_one_line(tmp_path: Path) -> None:
    whole, other = tmp_path / "whole.mcap", tmp_path / "other.mcap"
    chunked(whole, 5, chunk_size=6000)
    data = whole.read_bytes()
    draw = random.Random(3)
    refused = 0
    for _ in range(120):
        changed = bytearray(data)
        for _ in range(draw.choice((1, 1, 4, 40))):
            place = draw.randrange(len(changed))
            if draw.random() < 0.7:
                changed[place] = draw.randrange(256)
            else:
                del changed[place : place + draw.randrange(1, 50)]
        other.write_bytes(changed)
        said, got = "", None
        try:
            got = frames(other)
        except EdgeCapError as error:
            said = str(error)
        if got is None:
            refused += 1
            assert len(said.splitlines()) == 1, said
        else:
            assert len(got) <= 5
    assert 0 < refused < 120


def test_a_damaged_part_costs_that_part_alone(tmp_path: Path) -> None:
    path = tmp_path / "damaged.mcap"
    ends = chunked(path, 6)
    data = bytearray(path.read_bytes())
    data[ends[2] - 1000] ^= 255  # within the third chunk
    path.write_bytes(data)
    told: list[str] = []
    with open_source(path, realtime=False) as source:
        source.listener = lambda kind, text: told.append(text)
        got = list(source)
    assert [frame.header.frame_id for frame in got if frame.header] == [
        f"cam{index}" for index in (0, 1, 3, 4, 5)
    ]
    assert told == [f"{source.name}: 1 damaged parts were left out"]


def test_messages_without_a_picture_are_left_out_and_told_once(tmp_path: Path) -> None:
    held = messages(count=4)
    held[1][2].encoding, held[3][2].encoding = "32FC1", "32FC1"
    held[2][2].step = 97
    bag = ros_bags.write_bag(tmp_path / "bag", held)
    told: list[str] = []
    with open_source(bag, realtime=False) as source:
        source.listener = lambda kind, text: told.append(text)
        assert len(list(source)) == 1
        assert dict(source.lost) == {"unreadable": 3}
    assert len(told) == 2
    assert "encoding is '32FC1'" in told[0]
    assert "step of 97" in told[1]
    bag = ros_bags.write_bag(tmp_path / "none", [held[1]])
    with pytest.raises(
        SourceError, match="holds no picture that can be read: the image's encoding"
    ):
        frames(bag)


def test_topics_are_named_where_there_is_a_choice(tmp_path: Path) -> None:
    text = STORE.types["std_msgs/msg/String"](data="no image")
    only_text = ros_bags.write_bag(tmp_path / "text", [("/chatter", ros_bags.START, text)])
    with pytest.raises(SourceError, match=r"no topic of .*Image.*it holds std_msgs/msg/String"):
        open_source(only_text)
    two = ros_bags.write_bag(
        tmp_path / "two",
        [*messages("/left"), *messages("/right"), ("/chatter", ros_bags.START, text)],
    )
    with pytest.raises(SourceError, match="2 topics with images: /left, /right; name one: mcap://"):
        open_source(two)
    with pytest.raises(SourceError, match=r"no topic /middle; topics with images: /left, /right"):
        open_source(f"mcap://{two}?topic=/middle")
    with pytest.raises(SourceError, match=r"/chatter of .* carries std_msgs/msg/String"):
        open_source(f"mcap://{two}?topic=/chatter")
    with pytest.raises(SourceError, match="no address of a bag"):
        open_source(f"mcap://{two}?subject=/left")
    assert len(frames(f"mcap://{two}?topic=/right")) == 6


def test_a_folder_whose_recorder_was_killed(tmp_path: Path) -> None:
    whole = tmp_path / "whole.mcap"
    chunked(whole, 2)
    folder = tmp_path / "killed"
    folder.mkdir()
    for number in (0, 2, 10):
        (folder / f"killed_{number}.mcap").write_bytes(whole.read_bytes())
    (folder / "killed_10.mcap").write_bytes(whole.read_bytes()[:-3])  # the last one is not whole
    told: list[str] = []
    with open_source(folder, realtime=False) as source:
        source.listener = lambda kind, text: told.append(text)
        assert len(list(source)) == 6
    assert len(told) == 1
    assert "killed_10.mcap breaks off" in told[0]


def _sqlite(folder: Path) -> Path:
    from rosbags.rosbag2 import StoragePlugin, Writer

    with Writer(folder, version=9, storage_plugin=StoragePlugin.SQLITE3) as writer:
        ((topic, moment, message), *_) = messages(count=1)
        connection = writer.add_connection(topic, message.__msgtype__, typestore=STORE)
        writer.write(connection, moment, STORE.serialize_cdr(message, message.__msgtype__))
    return folder


def _without_its_file(folder: Path) -> Path:
    ros_bags.write_bag(folder, messages(count=1)).unlink()
    return folder


def _packed(folder: Path) -> Path:
    from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

    writer = Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP)
    writer.set_compression(CompressionMode.MESSAGE, CompressionFormat.ZSTD)
    with writer:
        ((topic, moment, message), *_) = messages(count=1)
        connection = writer.add_connection(topic, message.__msgtype__, typestore=STORE)
        writer.write(connection, moment, STORE.serialize_cdr(message, message.__msgtype__))
    return folder


def _file(name: str, content: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        folder.mkdir()
        (folder / name).write_bytes(content)
        return folder / name if name != "metadata.yaml" else folder

    return make


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_sqlite, "rosbags-convert"),
        (_without_its_file, "lacks bag.mcap"),
        (_packed, "ros2 bag convert"),
        (_file("a.mcap", b""), "is empty"),
        (_file("a.mcap", b"no bag at all, only text"), "is no MCAP file"),
        (_file("a.mcap", b"\x89MCAP0\r\n"), "holds no topic at all"),
        (_file("a.db3", b"SQLite format 3"), "rosbags-convert"),
        (_file("metadata.yaml", b"rosbag2_bagfile_information: [1"), "not that of a bag"),
        (_file("metadata.yaml", b"of photographs"), "holds no pictures"),
    ],
)
def test_what_is_no_bag_is_one_line(
    tmp_path: Path, make: Callable[[Path], Path], said: str
) -> None:
    with pytest.raises(SourceError, match=said) as caught:
        open_source(make(tmp_path / "bag"))
    assert len(str(caught.value).splitlines()) == 1


def test_without_the_packages_the_message_names_them(
    bag: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def absent(name: str, *rest: Any) -> Any:
        if name.startswith("mcap"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(MissingExtraError, match=r"pip install 'edgecap\[ros\]'"):
        open_source(bag)
