"""A node of ROS 2 that prints what it hears on a topic of std_msgs/String.

python jazzy_reader.py TOPIC COUNT
"""

import sys
import time

import rclpy
from std_msgs.msg import String

topic, count = sys.argv[1], int(sys.argv[2])
rclpy.init()
node = rclpy.create_node("listener")
heard: list[str] = []
node.create_subscription(String, topic, lambda message: heard.append(message.data), 10)
print("ready", flush=True)
deadline = time.monotonic() + 20
while len(heard) < count and time.monotonic() < deadline:
    rclpy.spin_once(node, timeout_sec=0.1)
print(node.get_topic_names_and_types())
for text in heard:
    print(text)
rclpy.shutdown()
