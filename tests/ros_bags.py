"""Bags of ROS 2 written and read by the library rosbags, which is none of this project's."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
CLIPS = ROOT.parent / "shared" / "data" / "video_clips"
CAPTION = ROOT / "integrations/ros2/edgecap_msgs/msg/Caption.msg"
START = 1_772_323_200_123_456_789  # nanoseconds; no float holds it


def typestore() -> Any:
    """The messages of ROS 2 Humble and ``edgecap_msgs``, as classes of rosbags."""
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    store = get_typestore(Stores.ROS2_HUMBLE)
    store.register(get_types_from_msg(CAPTION.read_text(), "edgecap_msgs/msg/Caption"))
    return store


def header(store: Any, stamp: int, frame_id: str) -> Any:
    sec, nanosec = divmod(stamp, 1_000_000_000)
    time = store.types["builtin_interfaces/msg/Time"](sec=sec, nanosec=nanosec)
    return store.types["std_msgs/msg/Header"](stamp=time, frame_id=frame_id)


def image(
    store: Any, pixels: Any, encoding: str = "bgr8", stamp: int = START, frame_id: str = "camera",
    **changes: Any,
) -> Any:  # fmt: skip
    """``sensor_msgs/Image`` of uint8 [H, W, ...]."""
    pixels = np.ascontiguousarray(pixels)
    fields: dict[str, Any] = {
        "height": pixels.shape[0],
        "width": pixels.shape[1],
        "encoding": encoding,
        "is_bigendian": 0,
        "step": pixels[0].nbytes,
        "data": pixels.reshape(-1).view(np.uint8),
    }
    return store.types["sensor_msgs/msg/Image"](
        header=header(store, stamp, frame_id), **(fields | changes)
    )


def compressed(
    store: Any, data: bytes, stamp: int = START, frame_id: str = "camera", form: str = "jpeg"
) -> Any:
    """``sensor_msgs/CompressedImage`` of the bytes of a picture file."""
    return store.types["sensor_msgs/msg/CompressedImage"](
        header=header(store, stamp, frame_id), format=form, data=np.frombuffer(data, np.uint8)
    )


def write_bag(
    folder: Path,
    messages: Iterable[tuple[str, int, Any]],
    before: Callable[[Any], None] | None = None,
) -> Path:
    """A bag as ``ros2 bag record -s mcap`` makes it, of (topic, moment, message); its MCAP file."""
    from rosbags.rosbag2 import StoragePlugin, Writer

    store = typestore()
    connections: dict[str, Any] = {}
    with Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        if before is not None:
            before(writer)
        for topic, moment, message in messages:
            if topic not in connections:
                connections[topic] = writer.add_connection(
                    topic, message.__msgtype__, typestore=store
                )
            data = store.serialize_cdr(message, message.__msgtype__)
            writer.write(connections[topic], moment, data)
    (file,) = folder.glob("*.mcap")
    return file


def read_bag(path: Path) -> list[tuple[str, int, Any]]:
    """(topic, moment, message) of an MCAP file, by rosbags and the definitions in the file."""
    from rosbags.highlevel import AnyReader

    with AnyReader([path]) as reader:
        return [
            (connection.topic, moment, reader.deserialize(data, connection.msgtype))
            for connection, moment, data in reader.messages()
        ]


def clip_frames(name: str, count: int, every: int = 10, width: int = 320) -> list[Any]:
    """uint8 BGR frames of one of the video clips beside the checkout."""
    import cv2

    capture = cv2.VideoCapture(str(CLIPS / name))
    frames = []
    while len(frames) < count and capture.isOpened():
        taken, frame = capture.read()
        if not taken:
            break
        frames.append(cv2.resize(frame, (width, width * frame.shape[0] // frame.shape[1])))
        for _ in range(every - 1):
            capture.grab()
    capture.release()
    return frames
