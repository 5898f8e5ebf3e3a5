"""What a user of the caption node does, in ROS 2's own words; says what it saw as JSON.

python jazzy_judge.py NAMESPACE
"""

import json
import sys
import time
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from edgecap_msgs.msg import Caption
from edgecap_msgs.srv import Describe
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import String

space = sys.argv[1]
rclpy.init()
node = rclpy.create_node("judge")
captions: list[Any] = []
texts: list[str] = []
diagnostics: list[Any] = []
late: list[str] = []
node.create_subscription(Caption, f"{space}/edgecap/caption", captions.append, 10)
node.create_subscription(
    String, f"{space}/edgecap/caption_text", lambda said: texts.append(said.data), 10
)
node.create_subscription(
    DiagnosticArray,
    "/diagnostics",
    lambda array: diagnostics.extend(s for s in array.status if s.hardware_id.startswith(space)),
    10,
)
print("ready", flush=True)


def spin_until(found: Any, timeout: float = 30.0) -> bool:
    deadline = time.monotonic() + timeout
    while not found() and time.monotonic() < deadline:
        rclpy.spin_once(node, timeout_sec=0.05)
    return bool(found())


def call(kind: Any, name: str, request: Any) -> Any:
    client = node.create_client(kind, f"{space}/edgecap/{name}")
    assert client.wait_for_service(20.0), name
    future = client.call_async(request)
    assert spin_until(future.done), name
    return future.result()


def state() -> str:
    return str(call(GetState, "get_state", GetState.Request()).current_state.label)


def change(number: int) -> bool:
    request = ChangeState.Request()
    request.transition.id = number
    return bool(call(ChangeState, "change_state", request).success)


seen: dict[str, Any] = {}
assert spin_until(lambda: captions and texts), "no caption came"
first = captions[0]
seen["stamp"] = [first.header.stamp.sec, first.header.stamp.nanosec]
seen["frame_id"], seen["text"], seen["model"] = first.header.frame_id, first.text, first.model
seen["reason"], seen["source"], seen["said"] = first.reason, first.source, texts[0]
asked = call(Describe, "describe", Describe.Request(timeout=10.0))
seen["asked"] = [asked.success, asked.message, asked.caption.reason, asked.caption.text]
stamp = asked.caption.header.stamp
seen["asked stamp"] = [stamp.sec, stamp.nanosec, asked.caption.header.frame_id]
refused = call(Describe, "describe", Describe.Request(timeout=-1.0))
seen["refused"] = [refused.success, refused.message]
node.create_subscription(
    String,
    f"{space}/edgecap/caption_text",
    lambda said: late.append(said.data),
    QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL),
)
seen["late"] = spin_until(lambda: late, 15.0)


def settled(status: Any) -> bool:
    values = {pair.key: pair.value for pair in status.values}
    return int(values["captions"]) >= 1 and int(values["images"]) >= 12


assert spin_until(lambda: any(map(settled, diagnostics))), diagnostics[-1:]
last = next(filter(settled, diagnostics))
seen["diagnostics"] = [last.name, last.level[0], {pair.key: pair.value for pair in last.values}]
seen["states"] = [state()]
for number in (4, 2, 1, 3):  # deactivate, clean up, configure, activate
    assert change(number), number
    seen["states"].append(state())
    if number == 4:
        inactive = call(Describe, "describe", Describe.Request())
        seen["inactive"] = [inactive.success, inactive.message]
before = len(captions)
seen["again"] = spin_until(lambda: len(captions) > before)
assert change(7)  # shut down
seen["states"].append(state())
print(json.dumps(seen))
rclpy.shutdown()
