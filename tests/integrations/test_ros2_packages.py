"""The ROS packages' files by ROS's own readers, and the node's logic without ROS."""

from __future__ import annotations

import ast
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ros_bags

from edgecap.models import bundled
from edgecap.runtime.errors import EdgeCapError, OptionsError
from edgecap.runtime.messages.captions import caption_of, fill
from edgecap.runtime.streams.event import Event

ROS = ros_bags.ROOT / "integrations/ros2"
MSGS, NODE = ROS / "edgecap_msgs", ROS / "edgecap_ros"
pytest.importorskip("rosbags", reason="messages are those of another library")
STORE = ros_bags.typestore()


@pytest.fixture(autouse=True)
def node_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(NODE))


@pytest.mark.parametrize(("folder", "kind"), [(MSGS, "ament_cmake"), (NODE, "ament_python")])
def test_package_xml(folder: Path, kind: str) -> None:
    packages = pytest.importorskip("catkin_pkg.package", reason="ROS's reader of package.xml")
    package = packages.parse_package(str(folder / "package.xml"))
    package.validate()
    assert package.name == folder.name
    assert package.package_format == 3
    assert package.get_build_type() == kind
    if kind == "ament_cmake":
        assert [group.name for group in package.member_of_groups] == ["rosidl_interface_packages"]
        assert "std_msgs" in {need.name for need in package.build_depends}


def test_what_the_node_imports_is_declared() -> None:
    packages = pytest.importorskip("catkin_pkg.package", reason="ROS's reader of package.xml")
    declared = {
        need.name for need in packages.parse_package(str(NODE / "package.xml")).exec_depends
    }
    imported = set()
    for path in [*NODE.glob("edgecap_ros/*.py"), *NODE.glob("launch/*.py")]:
        for part in ast.walk(ast.parse(path.read_text())):
            if isinstance(part, ast.ImportFrom):
                imported.add(str(part.module).partition(".")[0])
            elif isinstance(part, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in part.names}
    ours = {"edgecap", "edgecap_ros", *sys.stdlib_module_names}
    # These two come with rclpy and launch_ros.
    assert imported - ours - {"rcl_interfaces", "ament_index_python"} <= declared
    assert declared <= imported


def test_the_messages_by_the_parser_of_ros() -> None:
    parser = pytest.importorskip("mcap_ros2._vendor.rosidl_adapter.parser")
    fields = parser.parse_message_file("edgecap_msgs", str(ros_bags.CAPTION)).fields
    held = [field.name for field in fields]
    service = parser.parse_service_file("edgecap_msgs", str(MSGS / "srv/Describe.srv"))
    assert [str(field.type) for field in service.response.fields] == [
        "bool", "string", "edgecap_msgs/Caption",
    ]  # fmt: skip
    assert set(held) == set(STORE.types["edgecap_msgs/msg/Caption"].__dataclass_fields__) - {
        "__msgtype__"
    }


def test_the_node_package_installs_what_ros_looks_for(tmp_path: Path) -> None:
    copy = tmp_path / "edgecap_ros"
    done = subprocess.run(["cp", "-r", str(NODE), str(copy)], check=True)
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation",
               "--no-index", "--root", str(tmp_path / "root"), str(copy)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    if "setuptools" in done.stderr and done.returncode:
        pytest.skip("no setuptools here")
    assert done.returncode == 0, done.stderr
    files = {path.name for path in (tmp_path / "root").rglob("*") if path.is_file()}
    assert {"package.xml", "caption.launch.py", "caption.yaml", "node.py"} <= files
    (marker,) = (tmp_path / "root").rglob("resource_index/packages/edgecap_ros")
    assert marker.read_bytes() == b""
    # colcon puts it where setup.cfg says; pip, which knows no setup.cfg, into bin.
    (script,) = (path for path in (tmp_path / "root").rglob("caption") if path.is_file())
    assert "edgecap_ros.node" in script.read_text()


def test_parameters_are_one_list() -> None:
    import yaml
    from edgecap_ros.parameters import PARAMETERS, NodeOptions, node_options

    defaults = {name: default for name, (default, _) in PARAMETERS.items()}
    assert node_options(defaults) == NodeOptions()
    assert defaults == {name: getattr(NodeOptions(), name) for name in defaults}
    held = yaml.safe_load((NODE / "config/caption.yaml").read_text())["/**"]["ros__parameters"]
    # The launch file gives these two.
    assert held == {n: v for n, v in defaults.items() if n not in ("profile", "image_transport")}
    readme = (NODE / "README.md").read_text()
    for name, (default, _) in PARAMETERS.items():
        shown = str(default).lower() if isinstance(default, bool) else str(default) or '""'
        assert f"| `{name}` | `{shown}` |" in readme, name


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"image_transport": "theora"}, "image_transport is 'theora'; give one of raw"),
        ({"input_qos": "best"}, "input_qos is 'best'; give one of SENSOR_DATA, DEFAULT"),
        ({"output_durability": "x"}, "give one of volatile, transient_local"),
        ({"output_depth": 0}, "output_depth is 0; give 1 to 10000"),
        ({"deadline_ms": float("nan")}, "deadline_ms is nan; give 0 or more"),
        ({"describe_timeout": 0.0}, "describe_timeout is 0.0"),
    ],
)
def test_bad_parameters(given: dict[str, Any], said: str) -> None:
    from edgecap_ros.parameters import node_options

    with pytest.raises(OptionsError, match=said):
        node_options(given)


@pytest.fixture
def photograph() -> Any:
    data = pytest.importorskip("skimage.data", reason="scikit-image's photographs are needed")
    if "default" not in bundled():
        pytest.skip("this checkout has no default model")
    return data.cat()


@pytest.fixture
def start(photograph: Any) -> Iterator[Callable[..., Any]]:
    from edgecap_ros.captioning import Captioning
    from edgecap_ros.parameters import NodeOptions

    running: list[Any] = []

    def make(**options: Any) -> tuple[Any, list[Event], list[str]]:
        events: list[Event] = []
        told: list[str] = []
        captioning = Captioning(NodeOptions(**options), "/image", events.append, told.append)
        running.append(captioning)
        return captioning, events, told

    yield make
    for captioning in running:
        captioning.stop()


def until(found: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_messages_become_captions_with_their_headers(start: Any, photograph: Any) -> None:
    captioning, events, told = start(beams=1)
    assert captioning.status().message == "inactive"
    captioning.start()
    assert captioning.status()[:2] == (1, "no image has come on /image")
    captioning.put(ros_bags.image(STORE, photograph, "rgb8", ros_bags.START, "optical"))
    until(lambda: events)
    assert "cat" in events[0].text
    blank = STORE.types["edgecap_msgs/msg/Caption"](
        ros_bags.header(STORE, 0, ""), *[""] * 2, 0.0, 0.0, False, "", False, None, "", "",
        *[0.0] * 4,
    )  # fmt: skip
    message = fill(blank, caption_of(events[0], captioning.model))
    message.tokens = np.array(message.tokens, np.int32)  # rclpy takes lists, rosbags arrays
    raw = STORE.serialize_cdr(message, message.__msgtype__)
    back = STORE.deserialize_cdr(raw, message.__msgtype__)
    assert back.header.stamp.sec * 10**9 + back.header.stamp.nanosec == ros_bags.START
    assert (back.header.frame_id, back.text, back.model) == ("optical", events[0].text, "default")
    assert captioning.status()[:2] == (0, "captioning")
    assert not told


def test_unreadable_images_are_told_once_and_in_diagnostics(start: Any, photograph: Any) -> None:
    captioning, events, told = start()
    captioning.start()
    source = captioning._source
    for count in range(1, 4):
        captioning.put(ros_bags.image(STORE, photograph, "32FC1"))
        until(lambda count=count: source.lost["unreadable"] == count)
    assert captioning.status()[:2] == (1, "no image on /image can be read")
    assert len(told) == 1
    assert "encoding is '32FC1'" in told[0]
    captioning.put(ros_bags.image(STORE, photograph, "rgb8"))
    until(lambda: events)


def test_describing(start: Any, photograph: Any) -> None:
    captioning, events, _ = start(beams=1, describe_timeout=0.2)
    assert captioning.describe() == "the node is not active; activate it first"
    captioning.start()
    assert captioning.describe() == "no image on /image was captioned within 0.2 s"
    assert captioning.describe(-1.0) == "timeout is -1 s; give 0 to 3600"
    message = ros_bags.image(STORE, photograph, "rgb8")
    captioning.put(message)
    until(lambda: events)
    answers: list[Any] = []
    asking = threading.Thread(target=lambda: answers.append(captioning.describe(60.0)))
    asking.start()
    while asking.is_alive():  # an unchanged scene, which nobody would be told of
        captioning.put(message)
        asking.join(0.05)
    (answer,) = answers
    assert isinstance(answer, Event)
    assert answer.reason == "asked"
    captioning.stop()
    assert captioning.describe() == "the node is not active; activate it first"
    captioning.start()  # and once more
    captioning.put(message)
    until(lambda: events[-1].reason == "first")


def test_a_bad_model_or_profile_is_refused(start: Any) -> None:
    for options in ({"model": "/no/such.edgecap"}, {"profile": "underwater"}, {"gate": "open"}):
        with pytest.raises(EdgeCapError):
            start(**options)
