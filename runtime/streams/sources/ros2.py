"""``ros2://TOPIC``: pictures of a ROS 2 topic, through the rclpy and cv_bridge of ROS itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from edgecap.runtime.errors import SourceError
from edgecap.runtime.streams.frames import Frame, NewestSlot
from edgecap.runtime.streams.options import SourceOptions
from edgecap.runtime.streams.sources.base import Picture
from edgecap.runtime.streams.sources.camera import AbsentError, Camera, Capture

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
OLDEST = 60.0  # seconds; a stamp older than this is of another clock


class Ros2Camera(Camera):
    """A topic of ``sensor_msgs/Image`` or ``CompressedImage``; only the newest message is kept."""

    def __init__(self, topic: str, options: SourceOptions) -> None:
        if not topic.strip("/"):
            raise SourceError("ros2:// names no topic; give ros2://camera/image_raw")
        self._topic, self._options = "/" + topic.lstrip("/"), options
        super().__init__(f"ros2:/{self._topic}", options, patience=options.read_timeout)

    def _open(self) -> Capture:
        try:
            import rclpy  # noqa: F401
            from cv_bridge import CvBridge  # noqa: F401
        except ImportError as error:
            raise SourceError(
                f"{self.name} needs ROS 2's Python ({error.name or error} is not there): source "
                "/opt/ros/DISTRO/setup.bash and use a Python of the same version"
            ) from None
        return Ros2Capture(self._topic, self.name, self._options)


class Ros2Capture:
    """A node of its own with one best-effort subscription; see ``Capture``."""

    ended = False

    def __init__(self, topic: str, name: str, options: SourceOptions) -> None:
        import rclpy
        from cv_bridge import CvBridge
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.qos import qos_profile_sensor_data

        self._timeout = options.read_timeout
        self._bridge = CvBridge()
        self._slot = NewestSlot()
        self._context = rclpy.Context()
        rclpy.init(context=self._context)
        self._node = rclpy.create_node("edgecap_stream", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        try:
            kind, take = self._kind(topic, name, options.open_timeout)
            self._node.create_subscription(kind, topic, take, qos_profile_sensor_data)
        except BaseException:
            self.release()
            raise

    def read(self) -> Picture | None:
        """Spin until a message comes."""
        deadline = time.monotonic() + self._timeout
        while time.monotonic() < deadline:
            self._executor.spin_once(timeout_sec=0.2)
            frame = self._slot.take(0.0)
            if frame is not None:
                return Picture(frame.image, captured=frame.monotonic)
        return None

    def release(self) -> None:
        """End the node."""
        import rclpy

        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.shutdown(context=self._context)

    def _kind(self, topic: str, name: str, timeout: float) -> tuple[Any, Callable[[Any], None]]:
        from sensor_msgs.msg import CompressedImage, Image

        deadline = time.monotonic() + timeout
        kinds: list[str] = []
        while not kinds and time.monotonic() < deadline:
            self._executor.spin_once(timeout_sec=0.1)
            kinds = dict(self._node.get_topic_names_and_types()).get(topic, [])
        if IMAGE in kinds:
            return Image, lambda message: self._keep(
                message, self._bridge.imgmsg_to_cv2(message, "bgr8")
            )
        if COMPRESSED in kinds:
            return CompressedImage, lambda message: self._keep(
                message, self._bridge.compressed_imgmsg_to_cv2(message, "bgr8")
            )
        if kinds:
            raise SourceError(f"{name} carries {', '.join(kinds)}; give a topic of {IMAGE}")
        raise AbsentError(f"{name}: nobody publishes this topic")

    def _keep(self, message: Any, image: Any) -> None:
        now, wall = time.monotonic(), time.time()
        stamp = message.header.stamp
        age = wall - (stamp.sec + stamp.nanosec / 1e9)
        captured = now - age if 0.0 <= age < OLDEST else now
        self._slot.put(Frame(np.asarray(image, np.uint8), 0, wall, captured, None, "ros2"))
