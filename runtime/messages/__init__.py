"""ROS 2 messages without ROS: pictures out of them, captions into them, bags of them."""
