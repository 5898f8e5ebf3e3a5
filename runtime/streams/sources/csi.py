"""``csi://0``: cameras on a Jetson's ribbon connector, through ``nvarguscamerasrc``."""

from __future__ import annotations

from dataclasses import replace

from edgecap.runtime.errors import SourceError
from edgecap.runtime.streams.options import SourceOptions
from edgecap.runtime.streams.sources.base import mask_credentials
from edgecap.runtime.streams.sources.camera import Camera, Capture
from edgecap.runtime.streams.sources.gstreamer import GstCapture, elements_found, need_gstreamer
from edgecap.runtime.streams.sources.jetson import csi_pipeline

SOURCE = "nvarguscamerasrc"


class CsiCamera(Camera):
    """A camera such as ``csi://0``; ``width``, ``height`` and ``rate`` of the options are taken.

    Without them 1280 x 720 at 30 frames per second. Sizes the sensor has not are scaled by the
    image signal processor.
    """

    def __init__(self, sensor: str, options: SourceOptions) -> None:
        name = mask_credentials(f"csi://{sensor}")
        if not (sensor.isascii() and sensor.isdigit() and len(sensor) < 4):
            raise SourceError(f"{name} names no sensor; give csi://0, csi://1 ...")
        self._sensor, self._options = int(sensor), options
        super().__init__(name, options, patience=options.read_timeout)

    def _open(self) -> Capture:
        need_gstreamer(self.name)
        found = elements_found((SOURCE,))
        if SOURCE not in found:
            raise SourceError(
                f"{self.name} needs {SOURCE}, which JetPack brings; in a container mount "
                "/tmp/argus_socket, and for a USB camera give /dev/video0"
            )
        width, height = self.scaled(self._options.width or 1280, self._options.height or 720)
        options = replace(self._options, width=width, height=height)
        text = csi_pipeline(self._sensor, options)
        return GstCapture(text, self.name, options.open_timeout, options.read_timeout)

    def shrink(self, factor: float) -> bool:
        """See ``Source``."""
        return self.renew(factor)
