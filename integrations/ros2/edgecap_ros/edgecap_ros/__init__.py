"""The ROS 2 node of EdgeCap. Everything but ``node`` and ``quality`` works without rclpy."""
