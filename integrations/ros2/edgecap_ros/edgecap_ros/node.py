"""The lifecycle node: images in, ``~/caption``, ``~/caption_text``, ``~/describe`` out."""

from __future__ import annotations

from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from edgecap_msgs.msg import Caption
from edgecap_msgs.srv import Describe
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.lifecycle import LifecycleNode, State, TransitionCallbackReturn
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from edgecap.runtime.errors import EdgeCapError
from edgecap.runtime.messages.captions import caption_of, fill, sentence_of
from edgecap.runtime.streams.event import Event
from edgecap.runtime.streams.told import REPEAT, as_told
from edgecap_ros.captioning import Captioning
from edgecap_ros.parameters import PARAMETERS, node_options
from edgecap_ros.quality import input_quality, output_quality


class CaptionNode(LifecycleNode):
    """Configured: the model is loaded. Active: images are subscribed to and captioned."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__("edgecap", **arguments)
        for name, (default, text) in PARAMETERS.items():
            self.declare_parameter(name, default, ParameterDescriptor(description=text))
        self._captioning: Captioning | None = None
        self._images: Any = None
        self._made: list[tuple[Any, Any]] = []  # what on_configure made, and what destroys it

    def on_configure(self, state: State) -> TransitionCallbackReturn:
        """Check the parameters, load the model, make topics and service."""
        try:
            self._options = node_options(
                {name: self.get_parameter(name).value for name in PARAMETERS}
            )
            self._topic = self.resolve_topic_name(self._options.topic)
            self._captioning = Captioning(
                self._options, self._topic, self._publish, self.get_logger().warning
            )
        except EdgeCapError as error:
            self.get_logger().error(str(error))
            return TransitionCallbackReturn.FAILURE
        quality = output_quality(self._options)
        self._captions = self.create_lifecycle_publisher(Caption, "~/caption", quality)
        self._texts = self.create_lifecycle_publisher(String, "~/caption_text", quality)
        # A group of its own: an answer waits for images, which must go on coming meanwhile.
        service = self.create_service(
            Describe, "~/describe", self._describe, callback_group=MutuallyExclusiveCallbackGroup()
        )
        self._made = [
            (self._captions, self.destroy_publisher),
            (self._texts, self.destroy_publisher),
            (service, self.destroy_service),
        ]
        if self._options.diagnostics_period > 0.0:
            self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
            timer = self.create_timer(
                self._options.diagnostics_period,
                self._diagnose,
                callback_group=MutuallyExclusiveCallbackGroup(),
            )
            self._made += [
                (timer, self.destroy_timer),
                (self._diagnostics, self.destroy_publisher),
            ]
        self.get_logger().info(f"the model {self._captioning.model} is loaded")
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: State) -> TransitionCallbackReturn:
        """Subscribe to the images and caption them."""
        assert self._captioning is not None
        result = super().on_activate(state)
        if result != TransitionCallbackReturn.SUCCESS:
            return result
        self._captioning.start()
        kind = CompressedImage if self._options.image_transport == "compressed" else Image
        self._images = self.create_subscription(
            kind,
            self._options.topic,
            self._captioning.put,
            input_quality(self._options),
            callback_group=MutuallyExclusiveCallbackGroup(),
        )
        return TransitionCallbackReturn.SUCCESS

    def on_deactivate(self, state: State) -> TransitionCallbackReturn:
        """End the subscription and the stream; the model stays loaded."""
        self._end_stream()
        return super().on_deactivate(state)

    def on_cleanup(self, state: State) -> TransitionCallbackReturn:
        """Let the model, the topics and the service go."""
        self._end_stream()
        self._captioning = None
        for thing, destroy in self._made:
            destroy(thing)
        self._made = []
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: State) -> TransitionCallbackReturn:
        """As ``on_cleanup``."""
        return self.on_cleanup(state)

    def on_error(self, state: State) -> TransitionCallbackReturn:
        """Go back to the beginning: the node can be configured again."""
        return self.on_cleanup(state)

    def end(self) -> None:
        """Free everything, in whatever state the node is."""
        self._end_stream()
        self.destroy_node()

    def _end_stream(self) -> None:
        if self._images is not None:
            self.destroy_subscription(self._images)
            self._images = None
        if self._captioning is not None:
            self._captioning.stop()

    def _publish(self, event: Event) -> None:
        """Called in the stream's thread; publishers of an inactive node send nothing."""
        model = "" if self._captioning is None else self._captioning.model
        self._captions.publish(fill(Caption(), caption_of(event, model)))
        text = sentence_of(event)
        if text and as_told(event).verdict != REPEAT:
            self._texts.publish(String(data=text))

    def _describe(self, request: Any, response: Any) -> Any:
        captioning = self._captioning
        if captioning is None:
            response.message = "the node is not configured"
            return response
        answer = captioning.describe(float(request.timeout))
        if isinstance(answer, str):
            response.message = answer
        else:
            response.success = True
            fill(response.caption, caption_of(answer, captioning.model))
        return response

    def _diagnose(self) -> None:
        if self._captioning is None:
            return
        status = self._captioning.status()
        message = DiagnosticArray()
        message.header.stamp = self.get_clock().now().to_msg()
        message.status = [
            DiagnosticStatus(
                level=bytes([status.level]),
                name=f"{self.get_name()}: captions",
                message=status.message,
                hardware_id=self._topic,
                values=[KeyValue(key=key, value=value) for key, value in status.values.items()],
            )
        ]
        self._diagnostics.publish(message)


def main() -> None:
    """Run the node until it is shut down."""
    rclpy.init()
    node = CaptionNode()
    executor = MultiThreadedExecutor(num_threads=4)
    executor.add_node(node)
    try:
        wanted = node.get_parameter("autostart").value
        # A failed configuration has been told of; the node waits for another try.
        if wanted and node.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            node.trigger_activate()
        while rclpy.ok():  # spin() can sleep through a shutdown
            executor.spin_once(timeout_sec=0.5)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.end()
        executor.shutdown(timeout_sec=5.0)  # a callback that hangs must not keep the process
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
