"""The caption node under ROS 2 Jazzy: rclpy, Fast DDS, messages built by ROS's generators."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ros_peers

from edgecap.models import bundled

HERE = Path(__file__).parent
if "default" not in bundled():
    pytest.skip("this checkout has no default model", allow_module_level=True)
pytestmark = pytest.mark.slow


@pytest.fixture
def domain() -> int:
    return ros_peers.own_domain()


@pytest.fixture
def camera(domain: int, request: pytest.FixtureRequest) -> Iterator[str]:
    """Topic of a camera of ROS 2."""
    transport = getattr(request, "param", "raw")
    topic = f"/front{os.getpid()}/image"
    words = [ros_peers.jazzy(), str(HERE / "jazzy_camera.py")]
    process = subprocess.Popen(
        [*words, topic if transport == "raw" else f"{topic}/compressed", transport],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ros_peers.surroundings(domain),
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    yield topic
    process.communicate(timeout=20)


def node(domain: int, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [ros_peers.jazzy(), "-m", "edgecap_ros.node", "--ros-args", *words],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**ros_peers.surroundings(domain), "PYTHONFAULTHANDLER": "1"},
    )  # fmt: skip


def end(process: subprocess.Popen[str]) -> str:
    process.terminate()
    try:
        out, _ = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)  # faulthandler tells where each thread is
        out, _ = process.communicate()
        raise AssertionError(f"the node does not end:\n{out}") from None
    return out


@pytest.mark.parametrize("camera", ["raw", "compressed"], indirect=True)
def test_a_user_of_the_node(domain: int, camera: str, request: pytest.FixtureRequest) -> None:
    transport = request.node.callspec.params["camera"]
    space = camera.rpartition("/")[0]
    config = ros_peers.ROOT / "integrations/ros2/edgecap_ros/config/caption.yaml"
    process = node(
        domain, "--params-file", str(config), "-r", f"__ns:={space}", "-p", "max_age:=0.5",
        "-p", f"image_transport:={transport}", "-p", "output_durability:=transient_local",
        "-p", "diagnostics_period:=0.2",
    )  # fmt: skip
    judge = ros_peers.Peer(ros_peers.jazzy(), HERE / "jazzy_judge.py", domain, space)
    try:
        lines = judge.lines(100.0)
    finally:
        judge.end()
        said = end(process)
        print(said)  # shown where the test fails
    seen = json.loads(lines[-1])
    second, nanosecond = seen["stamp"]
    assert nanosecond == 123_456_789
    assert seen["frame_id"] == f"frame_{second - 1_700_000_000}"
    assert "cat" in seen["text"].split()
    assert seen["said"] in (seen["text"], f"{seen['text']} (not sure)")
    assert seen["model"] == "default"
    assert seen["reason"] in ("first", "refresh")  # the judge may have come a caption late
    assert seen["source"] == (camera if transport == "raw" else f"{camera}/compressed")
    assert seen["asked"] == [True, "", "asked", seen["text"]]
    asked_second, asked_nanosecond, asked_frame = seen["asked stamp"]
    assert asked_nanosecond == 123_456_789
    assert asked_frame == f"frame_{asked_second - 1_700_000_000}"
    assert asked_second > second
    assert seen["refused"] == [False, "timeout is -1 s; give 0 to 3600"]
    assert seen["late"]
    name, level, values = seen["diagnostics"]
    assert (name, level) == ("edgecap: captions", 0)
    assert int(values["captions"]) >= 1
    assert seen["states"] == [
        "active", "inactive", "unconfigured", "inactive", "active", "finalized",
    ]  # fmt: skip
    assert seen["inactive"] == [False, "the node is not active; activate it first"]
    assert seen["again"]
    if transport == "raw":  # every third image has a wrong encoding
        assert int(values["images unreadable"]) >= 1
        assert len(re.findall("encoding is '32FC1'", said)) >= 1


def test_bad_parameters_are_told_and_the_node_lives_on(domain: int) -> None:
    space = f"/bad{os.getpid()}"
    process = node(domain, "-r", f"__ns:={space}", "-p", "image_transport:=theora")
    assert process.stdout is not None
    line = process.stdout.readline()
    assert "image_transport is 'theora'; give one of raw, compressed" in line
    time.sleep(0.5)
    assert process.poll() is None
    assert "Traceback" not in end(process)


def test_the_ros2_source_reads_a_camera_of_ros(domain: int, camera: str) -> None:
    words = [ros_peers.jazzy(), "-m", "edgecap", "stream", f"ros2:/{camera}"]
    done = subprocess.run(
        [*words, "--max-captions", "2", "--gate", "none", "--duration", "60"],
        capture_output=True, text=True, env=ros_peers.surroundings(domain),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines() if "text" in json.loads(line)]
    said = [event for event in events if "notice" not in event]
    assert len(said) == 2
    for event in said:
        header = event["header"]
        assert header["nanosec"] == 123_456_789
        assert header["frame_id"] == f"frame_{header['sec'] - 1_700_000_000}"


def test_without_ros_the_message_names_what_to_do() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edgecap", "stream", "ros2://camera/image_raw", "--no-wait"],
        capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode != 2 or "rclpy" not in done.stderr:
        pytest.skip("this Python has rclpy")
    assert "source /opt/ros" in done.stderr
    assert len(done.stderr.splitlines()) == 1
