"""A node of ROS 2 that publishes one photograph again and again, until its input ends.

python jazzy_camera.py TOPIC raw|compressed
"""

import sys
import threading

import cv2
import numpy as np
import rclpy
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage, Image
from skimage import data

topic, transport = sys.argv[1:]
rclpy.init()
node = rclpy.create_node("camera")
kind = Image if transport == "raw" else CompressedImage
publisher = node.create_publisher(kind, topic, qos_profile_sensor_data)
photograph = np.ascontiguousarray(data.cat())
jpeg = cv2.imencode(".jpg", photograph[..., ::-1])[1].tobytes()
print("ready", flush=True)
ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
count = 0
while not ended.wait(0.1):
    message = kind()
    message.header.stamp.sec, message.header.stamp.nanosec = 1_700_000_000 + count, 123_456_789
    message.header.frame_id = f"frame_{count}"
    if transport == "raw":
        message.height, message.width = photograph.shape[:2]
        message.encoding, message.step = "rgb8", photograph.shape[1] * 3
        if count % 3 == 2:
            message.encoding = "32FC1"  # a camera that goes wrong now and then
        message.data = photograph.tobytes()
    else:
        message.format, message.data = "rgb8; jpeg compressed bgr8", jpeg
    publisher.publish(message)
    count += 1
rclpy.try_shutdown()
