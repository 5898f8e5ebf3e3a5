"""The moving preview: each frame is encoded once, however many clients look at it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from edgecap.serve.problems import Problem
from edgecap.serve.viewer import Viewer, encode_jpeg

WIDEST = 960  # pixels
QUALITY = 80
BOUNDARY = "edgecapframe"
REPEAT = 2.0  # seconds after which an unchanged picture is sent again, so that a lost client shows


class Previews:
    """JPEGs of cameras' newest frames.

    rate : pictures per second at most
    most : clients of moving previews at once
    """

    def __init__(self, rate: float, most: int) -> None:
        self.clients = 0
        self._period, self._most = 1.0 / rate, most
        self._encoded: dict[str, tuple[int, float, bytes]] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def picture(self, viewer: Viewer) -> tuple[float, bytes]:
        """When the newest frame was captured (``time.monotonic``), and its JPEG; 404 without."""
        lock = self._locks.setdefault(viewer.name, asyncio.Lock())
        async with lock:
            frame = viewer.frame
            if frame is None:
                raise Problem(404, f"no frame of {viewer.name} has come yet", retry=1)
            last = self._encoded.get(viewer.name)
            if last is None or last[0] != id(frame) or last[1] != frame.monotonic:
                data = await asyncio.to_thread(
                    encode_jpeg, frame.image, frame.channels, WIDEST, QUALITY
                )
                last = (id(frame), frame.monotonic, data)
                self._encoded[viewer.name] = last
            return last[1], last[2]

    @asynccontextmanager
    async def client(self) -> AsyncIterator[None]:
        """Count a client; 503 where there are too many."""
        if self.clients >= self._most:
            raise Problem(503, f"{self._most} previews are open already; close one", retry=10)
        self.clients += 1
        try:
            yield
        finally:
            self.clients -= 1

    async def stream(
        self, request: web.Request, viewer: Viewer, closing: Callable[[], bool]
    ) -> web.StreamResponse:
        """Answer with ``multipart/x-mixed-replace`` until the client goes or ``closing``."""
        async with self.client():
            captured, data = await self.picture(viewer)
            response = web.StreamResponse(
                headers={
                    "Content-Type": f"multipart/x-mixed-replace; boundary={BOUNDARY}",
                    "Cache-Control": "no-store",
                    "Connection": "close",
                }
            )
            await response.prepare(request)
            sent_at, sent = float("-inf"), float("-inf")
            while not closing():
                now = time.monotonic()
                if captured != sent or now - sent_at > REPEAT:
                    # A browser shows a part when the next boundary is there: it follows at once.
                    first = f"--{BOUNDARY}\r\n" if sent_at < 0 else ""
                    head = f"Content-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                    end = f"\r\n--{BOUNDARY}\r\n"
                    await response.write((first + head).encode() + data + end.encode())
                    sent_at, sent = now, captured
                await asyncio.sleep(max(0.01, self._period - (time.monotonic() - now)))
                captured, data = await self.picture(viewer)
            return response
