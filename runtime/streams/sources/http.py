"""Network cameras over HTTP: MJPEG, or one picture at an address."""

from __future__ import annotations

import threading
import time
import urllib.error
import urllib.request
from http.client import HTTPException, HTTPResponse
from typing import cast
from urllib.parse import unquote, urlsplit, urlunsplit

import numpy as np

from edgecap.runtime.errors import ImageError, SourceError
from edgecap.runtime.image import load_image
from edgecap.runtime.streams.options import SourceOptions
from edgecap.runtime.streams.sources.base import Picture, mask_credentials
from edgecap.runtime.streams.sources.camera import AbsentError, Camera, Capture
from edgecap.runtime.streams.sources.opencv import OpenCvCapture, open_ffmpeg

RATE = 1.0  # pictures per second asked of a snapshot address
LARGEST = 64 << 20  # bytes of one snapshot
FORM = "give http://[user:password@]host[:port]/path, with special signs %-escaped"


class HttpCamera(Camera):
    """``http://`` and ``https://``: what the address is, its first answer says.

    A stream of pictures (``multipart/x-mixed-replace``, MJPEG) and any other video are read by
    FFmpeg. A single picture is asked for again and again, ``options.rate`` times a second (1).
    """

    def __init__(self, uri: str, options: SourceOptions) -> None:
        self._uri, self._options = uri, options
        super().__init__(mask_credentials(uri), options, patience=options.read_timeout)

    def _open(self) -> Capture:
        options = self._options
        address, user, password = split_user(self._uri, self.name)
        fetch = Fetcher(address, user, password, options.open_timeout)
        try:
            with fetch.open() as answer:
                kind = answer.headers.get_content_type()
        except urllib.error.HTTPError as error:
            error.close()
            raise _refused(self.name, error.code) from None
        except (OSError, HTTPException) as error:
            reason = getattr(error, "reason", error) or "no answer"
            raise AbsentError(f"{self.name} cannot be opened: {str(reason)[:200]}") from None
        except ValueError as error:
            raise SourceError(f"{self.name} cannot be opened: {error}; {FORM}") from None
        if kind.startswith("image/"):
            return Snapshots(fetch, self.name, options.rate or RATE, self._cancelled)
        if kind.startswith("text/"):
            raise SourceError(
                f"{self.name} is a page ({kind}); give the address of its video or picture itself"
            )
        flags = ("fflags;nobuffer", "flags;low_delay")
        capture = open_ffmpeg(self._uri, options.open_timeout, options.read_timeout, flags)
        if not capture.isOpened():
            raise AbsentError(f"{self.name} answers with {kind} but gives no video")
        return OpenCvCapture(capture)


class Fetcher:
    """Asks one address, with basic or digest authentication where it has a user."""

    def __init__(self, address: str, user: str | None, password: str, timeout: float) -> None:
        self._address, self._timeout = address, timeout
        handlers: list[urllib.request.BaseHandler] = []
        if user is not None:
            known = urllib.request.HTTPPasswordMgrWithDefaultRealm()
            known.add_password(None, address, user, password)
            handlers = [
                urllib.request.HTTPBasicAuthHandler(known),
                urllib.request.HTTPDigestAuthHandler(known),
            ]
        self._opener = urllib.request.build_opener(*handlers)

    def open(self) -> HTTPResponse:
        """The answer, its body not read yet."""
        request = urllib.request.Request(self._address, headers={"Cache-Control": "no-cache"})
        return cast(HTTPResponse, self._opener.open(request, timeout=self._timeout))


class Snapshots:
    """One picture at a time; see ``Capture``."""

    ended = False

    def __init__(self, fetch: Fetcher, name: str, rate: float, cancelled: threading.Event) -> None:
        self._fetch, self._name, self._period = fetch, name, 1.0 / rate
        self._cancelled = cancelled
        self._due = time.monotonic()

    def read(self) -> Picture | None:
        """Wait until the next picture is due and fetch it."""
        import cv2

        if self._cancelled.wait(max(0.0, self._due - time.monotonic())):
            return None
        self._due = max(self._due + self._period, time.monotonic())
        try:
            with self._fetch.open() as answer:
                body = answer.read(LARGEST + 1)
            if len(body) > LARGEST:
                return None
            rgb = load_image(body)
        except (OSError, HTTPException, ImageError):
            return None
        return Picture(np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), np.uint8))

    def release(self) -> None:
        """Nothing stays open between two pictures."""


def split_user(uri: str, name: str) -> tuple[str, str | None, str]:
    """The address without its user and password, and those."""
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host:
        raise SourceError(f"{name} cannot be opened: {FORM}")
    if parts.username is None:
        return uri, None, ""
    place = f"[{host}]" if ":" in host else host
    place += "" if port is None else f":{port}"
    bare = urlunsplit(parts._replace(netloc=place))
    return bare, unquote(parts.username), unquote(parts.password or "")


def _refused(name: str, code: int) -> SourceError:
    if code in (401, 403):
        return SourceError(f"{name} refuses (HTTP {code}); look at the user and the password")
    if code in (404, 410):
        return SourceError(f"{name} has nothing there (HTTP {code}); look at the path")
    return AbsentError(f"{name} cannot be opened: HTTP {code}")
