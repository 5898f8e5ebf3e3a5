"""What each address answers."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp_sse import sse_response

from edgecap.runtime.errors import ImageError
from edgecap.serve.access import Access
from edgecap.serve.hub import Hub
from edgecap.serve.live import Live
from edgecap.serve.metrics import CONTENT_TYPE, POSTED, Metrics
from edgecap.serve.openapi import document
from edgecap.serve.options import ServeOptions
from edgecap.serve.pictures import Uploads
from edgecap.serve.posted import PostedPictures, decoding_of
from edgecap.serve.preview import Previews
from edgecap.serve.problems import Problem, answer
from edgecap.serve.status import Status

CONSOLE = Path(__file__).parent / "console"
STATUS_PERIOD = 1.0  # seconds between two events "status"


@dataclass(frozen=True)
class Parts:
    """All that the routes speak to."""

    options: ServeOptions
    captioner: Any
    access: Access
    hub: Hub
    live: Live
    posted: PostedPictures
    previews: Previews
    uploads: Uploads
    status: Status
    metrics: Metrics


class Routes:
    """The handlers."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def add_to(self, app: web.Application) -> None:
        """Add every route."""
        app.add_routes(
            [
                web.get("/", self.page),
                web.static("/console", CONSOLE),
                web.post("/login", self._parts.access.login),
                web.post("/logout", self._parts.access.logout),
                web.post("/v1/caption", self.caption),
                web.get("/v1/events", self.events, allow_head=False),
                web.get("/v1/status", self.status),
                web.get("/v1/history", self.history),
                web.get(r"/v1/history/{number:\d{1,18}}.jpg", self.thumbnail),
                web.get("/v1/preview.mjpeg", self.preview, allow_head=False),
                web.get("/v1/frame.jpg", self.frame),
                web.post("/v1/describe", self.describe),
                web.get("/v1/profiles", self.profiles),
                web.put("/v1/profile", self.switch),
                web.get("/openapi.json", self.openapi),
                web.get("/metrics", self.metrics),
                web.get("/healthz", self.health),
            ]
        )

    async def page(self, request: web.Request) -> web.StreamResponse:
        """The console; aiohttp gives it an ETag."""
        return web.FileResponse(CONSOLE / "index.html", headers={"Cache-Control": "no-cache"})

    async def caption(self, request: web.Request) -> web.Response:
        """A posted picture's caption."""
        parts = self._parts
        options = decoding_of(parts.captioner, request.query)
        begin = time.perf_counter()
        async with parts.uploads.take(request) as data:
            arrived = time.perf_counter()
            try:
                described, preprocess = await parts.posted.describe(data, options)
            except ImageError as error:
                raise Problem(400, str(error)) from None
        now = time.perf_counter()
        caption = described.caption
        stages = {
            "preprocess": round(preprocess, 3),
            "queue": round(described.queue, 3),
            "encode": round(described.encode, 3),
            "decode": round(described.decode, 3),
        }
        parts.metrics.caption(POSTED, caption.sure, now - arrived, stages)
        latency = {"receive": round((arrived - begin) * 1e3, 3), **stages}
        return answer(
            {
                "text": caption.text,
                "confidence": round(caption.confidence, 6),
                "sure": caption.sure,
                "truncated": caption.truncated,
                "latency_ms": {**latency, "total": round((now - arrived) * 1e3, 3)},
                "batch": described.batch,
                "model": parts.captioner.name,
            }
        )

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events: ``caption``, ``notice``, and ``status`` every second."""
        parts = self._parts
        last = _last_event(request)
        with parts.hub.listen(last) as listener:
            async with sse_response(request, sep="\n") as response:
                await response.send(_json(parts.status.values()), event="status", retry=1000)
                due = time.monotonic() + STATUS_PERIOD
                while response.is_connected() and not parts.hub.closing:
                    try:
                        left = max(0.0, due - time.monotonic())
                        message = await asyncio.wait_for(listener.next(), left)
                    except asyncio.TimeoutError:
                        due = time.monotonic() + STATUS_PERIOD
                        await response.send(_json(parts.status.values()), event="status")
                        continue
                    number = None if message.number is None else str(message.number)
                    await response.send(message.data, id=number, event=message.kind)
        return response

    async def status(self, request: web.Request) -> web.Response:
        """The numbers of this moment."""
        return answer(self._parts.status.values())

    async def history(self, request: web.Request) -> web.Response:
        """The last captions, newest first."""
        text = request.query.get("limit", "50")
        if not (text.isascii() and text.isdigit() and len(text) < 9):
            raise Problem(400, f"limit is {text!r}; give a whole number from 0")
        return answer(self._parts.hub.newest(int(text)))

    async def thumbnail(self, request: web.Request) -> web.Response:
        """The picture of a caption."""
        self._pictures_are_shown()
        data = self._parts.hub.thumbnail(int(request.match_info["number"]))
        if data is None:
            raise Problem(404, "this caption has no picture, or it is kept no more")
        # Numbers begin anew with the server: a cache must not outlive it.
        return web.Response(
            body=data, content_type="image/jpeg", headers={"Cache-Control": "private, max-age=60"}
        )

    async def preview(self, request: web.Request) -> web.StreamResponse:
        """Moving pictures of a camera."""
        self._pictures_are_shown()
        viewer = self._parts.live.viewer(request.query.get("source"))
        hub = self._parts.hub
        return await self._parts.previews.stream(request, viewer, lambda: hub.closing)

    async def frame(self, request: web.Request) -> web.Response:
        """The newest frame of a camera."""
        self._pictures_are_shown()
        viewer = self._parts.live.viewer(request.query.get("source"))
        captured, data = await self._parts.previews.picture(viewer)
        age = f"{time.monotonic() - captured:.3f}"
        return web.Response(
            body=data,
            content_type="image/jpeg",
            headers={"Cache-Control": "no-store", "X-Frame-Age-Seconds": age},
        )

    async def describe(self, request: web.Request) -> web.Response:
        """The next frame is captioned whatever the gate says."""
        asked = self._parts.live.describe_now(request.query.get("source"))
        return answer({"asked": asked}, status=202)

    async def profiles(self, request: web.Request) -> web.Response:
        """Profiles that may be switched to."""
        live = self._parts.live
        return answer({"current": live.profile, "profiles": live.profiles()})

    async def switch(self, request: web.Request) -> web.Response:
        """Go on with another profile."""
        try:
            given = await request.json()
            name = given["name"]
        except (ValueError, KeyError, TypeError):
            raise Problem(400, 'the profile\'s name is missing; send {"name": "..."}') from None
        if not isinstance(name, str):
            raise Problem(400, f"name is {name!r}; give the name of a profile")
        self._parts.live.switch(name)
        return answer({"current": self._parts.live.profile})

    async def openapi(self, request: web.Request) -> web.Response:
        """What this server offers, as OpenAPI."""
        return answer(document())

    async def metrics(self, request: web.Request) -> web.Response:
        """Numbers for Prometheus."""
        return web.Response(body=self._parts.metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    async def health(self, request: web.Request) -> web.Response:
        """200 while captions come, else 503 and why."""
        problem = self._parts.status.problem()
        if problem is None:
            return answer({"status": "ok"})
        return answer({"status": "failing", "error": problem}, status=503)

    def _pictures_are_shown(self) -> None:
        if not self._parts.options.pictures:
            raise Problem(404, "pictures are not shown: the server was started with --no-pictures")


def _json(values: Any) -> str:
    import msgspec

    return msgspec.json.encode(values).decode()


def _last_event(request: web.Request) -> int | None:
    text = request.headers.get("Last-Event-ID") or request.query.get("last")
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 19 else None
