"""Captions over DDS, read by a participant without EdgeCap and by a node of ROS 2."""

from __future__ import annotations

import builtins
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ros_peers

from edgecap.runtime.errors import MissingExtraError, SinkError
from edgecap.runtime.streams.event import Event
from edgecap.runtime.streams.sinks import open_sink
from edgecap.runtime.streams.sinks.dds import Dds, DdsOptions
from edgecap.runtime.streams.told import REPEAT, tell

pytest.importorskip("cyclonedds", reason="of the extra ros")
PEERS = Path(__file__).parent / "peers"
Make = Callable[..., Event]


@pytest.fixture
def domain(monkeypatch: pytest.MonkeyPatch) -> int:
    """A domain on the loopback alone."""
    number = ros_peers.own_domain()
    monkeypatch.setenv("CYCLONEDDS_URI", ros_peers.LOOPBACK)
    monkeypatch.setenv("ROS_DOMAIN_ID", str(number))
    return number


def wait_for_reader(sink: Any) -> None:
    ros_peers.wait_for(sink._writer.get_matched_subscriptions)


def test_another_participant_reads_strings_under_the_names_of_ros(
    domain: int, make_event: Make
) -> None:
    sink = open_sink("dds://edgecap/caption_text")
    reader = ros_peers.Peer(
        None, PEERS / "cyclone_reader.py", domain, "rt/edgecap/caption_text", "4", "volatile"
    )
    try:
        wait_for_reader(sink)
        sink.write(make_event("ein Bär läuft durch Gras"))
        sink.write(make_event("a dog", sure=False))
        sink.write(tell(make_event("a cat"), verdict=REPEAT, sentence="A cat."))  # not said again
        sink.write(tell(make_event("a man"), sentence="Careful: a man."))
        sink.write(tell(make_event("a wall"), sentence=""))  # the profile stays silent
        sink.write(make_event("the end"))
        names, *texts = reader.lines()
    finally:
        reader.end()
        sink.close()
    assert names == "['std_msgs::msg::dds_::String_']"
    assert texts == ["ein Bär läuft durch Gras", "a dog (not sure)", "Careful: a man.", "the end"]


def test_late_readers_get_the_last_captions_where_that_was_asked(
    domain: int, make_event: Make
) -> None:
    sink = open_sink("dds:porch/json?durability=transient_local&depth=2&content=json")
    for frame in range(5):
        sink.write(make_event(f"caption {frame}", frame))
    words = ("rt/porch/json", "2", "transient_local")
    reader = ros_peers.Peer(None, PEERS / "cyclone_reader.py", domain, *words)
    try:
        _, *texts = reader.lines()
    finally:
        reader.end()
        sink.close()
    assert [json.loads(text)["text"] for text in texts] == ["caption 3", "caption 4"]


@pytest.mark.slow
def test_a_node_of_ros_2_hears_them(domain: int, make_event: Make) -> None:
    python = ros_peers.jazzy()
    sink = open_sink("dds://edgecap/caption_text")
    node = ros_peers.Peer(python, PEERS / "jazzy_reader.py", domain, "/edgecap/caption_text", "2")
    try:
        wait_for_reader(sink)
        sink.write(make_event("ein Bär läuft durch Gras"))
        sink.write(make_event("a dog runs"))
        names, *texts = node.lines()
    finally:
        node.end()
        sink.close()
    assert "('/edgecap/caption_text', ['std_msgs/msg/String'])" in names
    assert texts == ["ein Bär läuft durch Gras", "a dog runs"]


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("dds://9lives", "'//9lives' is no topic of ROS 2"),
        ("dds://a/b?domain=233", "domain is 233; give a whole number from 0 to 232"),
        ("dds://a/b?domain=x", "domain is 'x'"),
        ("dds://a/b?reliability=perhaps", "give one of reliable, best_effort"),
        ("dds://a/b?durability=long", "give one of volatile, transient_local"),
        ("dds://a/b?content=xml", "give one of text, json"),
        ("dds://a/b?depth=0", "depth is 0"),
        ("dds://a/b?qos=1", "'qos' is no option"),
    ],
)
def test_bad_addresses_are_one_line(address: str, said: str) -> None:
    with pytest.raises(SinkError) as caught:
        open_sink(address)
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_the_domain_comes_from_the_environment_of_ros(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", "42")
    assert DdsOptions().domain == 42
    assert DdsOptions(domain=7).domain == 7
    monkeypatch.setenv("ROS_DOMAIN_ID", "many")
    with pytest.raises(SinkError, match="ROS_DOMAIN_ID is 'many'"):
        DdsOptions()
    monkeypatch.delenv("ROS_DOMAIN_ID")
    assert DdsOptions().domain == 0
    assert "ROS_DOMAIN_ID" not in os.environ


def test_without_the_package_the_message_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def absent(name: str, *rest: Any) -> Any:
        if name.startswith("cyclonedds"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(MissingExtraError, match=r"pip install 'edgecap\[ros\]'"):
        Dds(DdsOptions(domain=1))
