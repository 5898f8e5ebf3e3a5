"""Where a Jetson's own hardware decodes and converts, in the words of GStreamer."""

from __future__ import annotations

from pathlib import Path

from edgecap.runtime.streams.options import SourceOptions
from edgecap.runtime.streams.sources.gstreamer import elements_found

RELEASE = Path("/etc/nv_tegra_release")
HARDWARE = ("nvv4l2decoder", "nvvidconv")
# NV12 in the hardware's memory to what ``videoconvert`` makes BGR of
TO_MEMORY = "nvvidconv ! video/x-raw,format=BGRx"


def on_jetson() -> bool:
    """Whether this machine is a Jetson."""
    return RELEASE.exists()


def choose_decoder(wanted: str) -> tuple[bool, str | None]:
    """Whether to decode in hardware, and what to tell the user of it (None: nothing new).

    wanted : ``SourceOptions.decoder``; auto asks for GStreamer's elements on a Jetson only
    """
    if wanted == "software" or (wanted == "auto" and not on_jetson()):
        return False, None
    found = elements_found(HARDWARE)
    if isinstance(found, str):
        return False, f"video is decoded in software: no GStreamer here ({found})"
    missing = [name for name in HARDWARE if name not in found]
    if missing:
        return False, f"video is decoded in software: GStreamer has no {' and no '.join(missing)}"
    return True, "video is decoded by nvv4l2decoder"


def csi_pipeline(sensor: int, options: SourceOptions) -> str:
    """A camera on the ribbon connector, through NVIDIA's image signal processor."""
    width, height = options.width or 1280, options.height or 720
    rate = round(options.rate or 30)
    return (
        f"nvarguscamerasrc sensor-id={sensor} ! video/x-raw(memory:NVMM),width={width},"
        f"height={height},format=NV12,framerate={rate}/1 ! {TO_MEMORY}"
    )


def rtsp_pipeline(address: str, options: SourceOptions) -> str:
    """A network camera, decoded in hardware; frames later than the latency are dropped."""
    protocols = {"auto": "tcp+udp", "tcp": "tcp", "udp": "udp"}[options.transport]
    quoted = address.replace("\\", "\\\\").replace('"', '\\"')
    timeout = round(options.read_timeout * 1e6)
    return (
        f'rtspsrc location="{quoted}" protocols={protocols} latency={round(options.latency * 1e3)} '
        f"drop-on-latency=true tcp-timeout={timeout} timeout={timeout} ! parsebin ! nvv4l2decoder "
        f"! {TO_MEMORY}"
    )
