"""Network cameras over RTSP, read by OpenCV's FFmpeg or by a Jetson's hardware."""

from __future__ import annotations

import socket
from dataclasses import replace
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from edgecap.runtime.errors import SourceError
from edgecap.runtime.streams.options import TRANSPORTS, SourceOptions
from edgecap.runtime.streams.sources.base import mask_credentials
from edgecap.runtime.streams.sources.camera import AbsentError, Camera, Capture
from edgecap.runtime.streams.sources.gstreamer import GstCapture
from edgecap.runtime.streams.sources.jetson import choose_decoder, rtsp_pipeline
from edgecap.runtime.streams.sources.opencv import OpenCvCapture, open_ffmpeg

PORTS = {"rtsp": 554, "rtsps": 322}


class RtspCamera(Camera):
    """A network camera; ``?transport=tcp`` or ``udp`` in the address goes before the option.

    Nothing is buffered to be played smoothly, and frames later than ``options.latency`` are
    dropped. The name, and with it every message, has its credentials masked.
    """

    def __init__(self, uri: str, options: SourceOptions) -> None:
        self._uri, transport = split_transport(uri)
        if transport is not None:
            options = replace(options, transport=transport)
        self._options = options
        self._hardware, note = choose_decoder(options.decoder)
        super().__init__(mask_credentials(self._uri), options, patience=options.read_timeout)
        if note is not None:
            self.say("decoder", f"{self.name}: {note}")

    def _open(self) -> Capture:
        options = self._options
        if self._hardware:
            text = rtsp_pipeline(self._uri, options)
            return GstCapture(text, self.name, options.open_timeout, options.read_timeout)
        transport = {
            "auto": "rtsp_flags;prefer_tcp",
            "tcp": "rtsp_transport;tcp",
            "udp": "rtsp_transport;udp",
        }[options.transport]
        delay = f"max_delay;{round(options.latency * 1e6)}"  # waiting for packets out of order
        flags = (transport, delay, "fflags;nobuffer", "flags;low_delay")
        capture = open_ffmpeg(self._uri, options.open_timeout, options.read_timeout, flags)
        if not capture.isOpened():
            raise self._refused()
        return OpenCvCapture(capture, "stream")

    def _refused(self) -> SourceError:
        """What is wrong, found by knocking at the camera's port."""
        name = f"{mask_credentials(self._uri)} cannot be opened"
        try:
            parts = urlsplit(self._uri)
            host, port = parts.hostname, parts.port or PORTS.get(parts.scheme, 554)
        except ValueError:
            host = None
        if not host:
            return SourceError(
                f"{name}: give rtsp://[user:password@]host[:port]/path, with special signs "
                "%-escaped"
            )
        try:
            socket.create_connection((host, port), timeout=self._options.open_timeout).close()
        except socket.gaierror:
            return AbsentError(f"{name}: no host of that name is known; look at the address")
        except OSError as error:
            reason = (error.strerror or "no answer").lower()
            return AbsentError(f"{name}: nothing answers at that host and port ({reason})")
        return SourceError(
            f"{name}: the host answers but gives no video; look at the path, the user and the "
            "password"
        )


def split_transport(uri: str) -> tuple[str, str | None]:
    """The address without a ``transport`` that is meant for us, and that."""
    try:
        parts = urlsplit(uri)
    except ValueError:
        return uri, None
    fields = parse_qsl(parts.query, keep_blank_values=True)
    ours = [value for name, value in fields if name == "transport" and value in TRANSPORTS]
    if not ours:
        return uri, None
    rest = [(name, value) for name, value in fields if not (name == "transport" and value in ours)]
    return urlunsplit(parts._replace(query=urlencode(rest))), ours[-1]
