"""Quality of service out of the node's options."""

from __future__ import annotations

from typing import Any

from edgecap_ros.parameters import NodeOptions


def input_quality(options: NodeOptions) -> Any:
    """A ``QoSProfile`` for the images."""
    return _profile(options.input_qos, options.input_depth, "volatile")


def output_quality(options: NodeOptions) -> Any:
    """A ``QoSProfile`` for the captions."""
    return _profile(options.output_qos, options.output_depth, options.output_durability)


def _profile(kind: str, depth: int, durability: str) -> Any:
    from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

    best_effort = kind == "SENSOR_DATA"
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=ReliabilityPolicy.BEST_EFFORT if best_effort else ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL
        if durability == "transient_local"
        else DurabilityPolicy.VOLATILE,
    )
