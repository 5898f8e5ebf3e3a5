"""``ros2://TOPIC``: pictures of a ROS 2 topic, through the rclpy of ROS itself."""

from __future__ import annotations

import time
from typing import Any

from edgecap.runtime.errors import ImageError, SourceError
from edgecap.runtime.messages.bags import COMPRESSED, IMAGE
from edgecap.runtime.messages.images import header_of, picture_of
from edgecap.runtime.streams.options import SourceOptions
from edgecap.runtime.streams.sources.base import Picture
from edgecap.runtime.streams.sources.camera import AbsentError, Camera, Capture

OLDEST = 60.0  # seconds; a stamp older than this is of another clock


class Ros2Camera(Camera):
    """A topic of ``sensor_msgs/Image`` or ``CompressedImage``; only the newest message is kept.

    Each frame carries its message's header. A message that holds no picture that can be read is
    left out and counted as ``unreadable``; the first of each reason is told.
    """

    def __init__(self, topic: str, options: SourceOptions) -> None:
        if not topic.strip("/"):
            raise SourceError("ros2:// names no topic; give ros2://camera/image_raw")
        self._topic, self._options = "/" + topic.lstrip("/"), options
        self._reasons: set[str] = set()
        super().__init__(f"ros2:/{self._topic}", options, patience=options.read_timeout)

    def leave_out(self, reason: str) -> None:
        """Count a message that holds no picture."""
        self.lost["unreadable"] += 1
        if reason not in self._reasons:
            self._reasons.add(reason)
            self.say("unreadable", f"{self.name}: a message is left out: {reason}")

    def _open(self) -> Capture:
        try:
            import rclpy  # noqa: F401
            import sensor_msgs.msg  # noqa: F401
        except ImportError as error:
            raise SourceError(
                f"{self.name} needs ROS 2's Python ({error.name or error} is not there): source "
                "/opt/ros/DISTRO/setup.bash and use a Python of the same version"
            ) from None
        return Ros2Capture(self, self._topic, self._options)


class Ros2Capture:
    """A node of its own with one best-effort subscription; see ``Capture``."""

    ended = False

    def __init__(self, camera: Ros2Camera, topic: str, options: SourceOptions) -> None:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.qos import qos_profile_sensor_data

        self._camera, self._timeout = camera, options.read_timeout
        self._newest: Any = None
        self._context = rclpy.Context()
        rclpy.init(context=self._context)
        self._node = rclpy.create_node("edgecap_stream", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        try:
            kind = self._kind(topic, camera.name, options.open_timeout)
            self._node.create_subscription(kind, topic, self._keep, qos_profile_sensor_data)
        except BaseException:
            self.release()
            raise

    def read(self) -> Picture | None:
        """Spin until a message with a picture comes."""
        deadline = time.monotonic() + self._timeout
        while time.monotonic() < deadline:
            self._executor.spin_once(timeout_sec=0.2)
            message, self._newest = self._newest, None
            if message is None:
                continue
            try:
                image, header = picture_of(message), header_of(message)
            except ImageError as error:
                self._camera.leave_out(str(error))
                continue
            now = time.monotonic()
            age = time.time() - (header.sec + header.nanosec / 1e9)
            captured = now - age if 0.0 <= age < OLDEST else now
            return Picture(image, captured=captured, header=header)
        return None

    def release(self) -> None:
        """End the node."""
        import rclpy

        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.shutdown(context=self._context)

    def _kind(self, topic: str, name: str, timeout: float) -> Any:
        from sensor_msgs.msg import CompressedImage, Image

        deadline = time.monotonic() + timeout
        kinds: list[str] = []
        while not kinds and time.monotonic() < deadline:
            self._executor.spin_once(timeout_sec=0.1)
            kinds = dict(self._node.get_topic_names_and_types()).get(topic, [])
        if IMAGE in kinds:
            return Image
        if COMPRESSED in kinds:
            return CompressedImage
        if kinds:
            raise SourceError(f"{name} carries {', '.join(kinds)}; give a topic of {IMAGE}")
        raise AbsentError(f"{name}: nobody publishes this topic")

    def _keep(self, message: Any) -> None:
        self._newest = message
