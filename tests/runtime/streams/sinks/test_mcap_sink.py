"""Captions in MCAP files, opened by rosbags with the definitions that the file itself holds."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import ros_bags

from edgecap.runtime.errors import SinkError
from edgecap.runtime.messages.captions import caption_schema
from edgecap.runtime.streams.event import Event
from edgecap.runtime.streams.frames import Header
from edgecap.runtime.streams.sinks import SinkContext, SinkGone, open_sink
from edgecap.runtime.streams.sinks.mcap import CaptionBag, McapSink
from edgecap.runtime.streams.told import REPEAT, tell

for name in ("mcap", "mcap_ros2"):
    pytest.importorskip(name, reason="of the extra ros")
pytest.importorskip("rosbags", reason="bags are read by another library")
Make = Callable[..., Event]
STAMP = Header(1_772_323_200, 987_654_321, "camera_optical", 1_772_323_201_000_000_007)


def test_the_fields_of_an_event(tmp_path: Path, make_event: Make) -> None:
    path = tmp_path / "out.mcap"
    sink = open_sink(str(path), SinkContext(model="small"))
    sink.write(make_event("ein Bär", header=STAMP, truncated=True, confidence=math.nan))
    sink.write(tell(make_event("a man", 1, sure=False), sentence="Careful: a man."))
    sink.write(tell(make_event("a cat", 2), verdict=REPEAT, sentence="A cat."))
    assert not path.exists()  # only whole files have the name
    sink.close()
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.mcap"]
    held = ros_bags.read_bag(path)
    assert [(topic, moment) for topic, moment, _ in held] == [
        ("/edgecap/caption", 1772323201_000000000),
        ("/edgecap/caption_text", 1772323201_000000000),
        ("/edgecap/caption", STAMP.logged),
        ("/edgecap/caption_text", STAMP.logged),
        ("/edgecap/caption", 1772323202_000000000),
    ]
    caption, text = held[2][2], held[3][2]
    stamp = caption.header.stamp
    assert (stamp.sec, stamp.nanosec, caption.header.frame_id) == STAMP[:3]
    assert (caption.text, caption.sentence, caption.reason) == ("ein Bär", "ein Bär", "changed")
    assert (caption.sure, caption.truncated, caption.model) == (True, True, "small")
    assert caption.tokens.tolist() == [5, 6, 2]
    assert (caption.score, caption.source, caption.latency_ms) == (-0.5, "porch", 10.0)
    assert (caption.preprocess_ms, caption.encode_ms, caption.decode_ms) == (2.0, 3.0, 4.0)
    assert math.isnan(caption.confidence)
    assert text.data == "ein Bär"
    told, said = held[0][2], held[1][2]
    assert (told.header.stamp.sec, told.header.frame_id) == (1772323201, "")
    assert (told.text, told.sentence, told.sure) == ("a man", "Careful: a man.", False)
    assert said.data == "Careful: a man."


def test_several_cameras_in_one_file(tmp_path: Path, make_event: Make) -> None:
    bag = CaptionBag(tmp_path / "out.mcap")
    sinks = [McapSink(bag, topic=f"/cam{index}", owned=False) for index in range(4)]

    def work(sink: McapSink) -> None:
        for frame in range(50):
            sink.write(make_event(f"frame {frame}", frame))

    threads = [threading.Thread(target=work, args=(sink,)) for sink in sinks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for sink in sinks:
        sink.close()
    bag.close()
    bag.close()
    topics = [topic for topic, _, _ in ros_bags.read_bag(tmp_path / "out.mcap")]
    assert {topic: topics.count(topic) for topic in topics} == {
        f"/cam{index}/{kind}": 50 for index in range(4) for kind in ("caption", "caption_text")
    }


def test_nothing_said_makes_no_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    open_sink(f"mcap:{tmp_path / 'out.mcap'}?topic=porch").close()
    assert not list(tmp_path.iterdir())
    assert "there was no caption" in caplog.text


def test_a_full_disk_leaves_the_old_file_and_the_part(
    small_disk: Path, make_event: Make, caplog: pytest.LogCaptureFixture
) -> None:
    path = small_disk / "out.mcap"
    path.write_bytes(b"the old one")
    sink = open_sink(str(path))

    def fill() -> None:
        for frame in range(4000):
            sink.write(make_event(f"{frame} {hash(frame * 7919)}" * 40, frame))

    with pytest.raises(SinkGone):
        fill()
    with pytest.raises(SinkGone):
        sink.write(make_event("after"))
    sink.close()
    assert path.read_bytes() == b"the old one"
    assert (small_disk / ".out.part.mcap").stat().st_size > 0
    assert "No space left on device" in caplog.text


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("{0}/no/folder.mcap", "give a file in a folder that exists"),
        ("mcap:{0}", "cannot be written"),
        ("mcap:", "names no file"),
        ("mcap:{0}/a.mcap?topic=not a topic", "is no topic of ROS 2"),
        ("mcap:{0}/a.mcap?name=x", "is no option"),
    ],
)
def test_bad_places_and_topics(tmp_path: Path, address: str, said: str) -> None:
    with pytest.raises(SinkError, match=said):
        open_sink(address.format(tmp_path))
    assert not list(tmp_path.iterdir())


def test_the_definition_is_that_of_the_ros_package() -> None:
    assert caption_schema().startswith(ros_bags.CAPTION.read_text() + "=" * 80)
