"""The server itself: all parts put together, from the first socket to the last answer."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from edgecap.runtime.errors import EdgeCapError, OptionsError
from edgecap.serve.access import SAFE, Access
from edgecap.serve.guard import Guard
from edgecap.serve.hub import Hub
from edgecap.serve.life import Life
from edgecap.serve.live import Live
from edgecap.serve.metrics import Metrics
from edgecap.serve.options import ServeOptions
from edgecap.serve.pictures import Uploads
from edgecap.serve.posted import PostedPictures
from edgecap.serve.preview import Previews
from edgecap.serve.problems import Problem
from edgecap.serve.routes import Parts, Routes
from edgecap.serve.status import Status

LOG = logging.getLogger("edgecap.serve")
BACKLOG = 1024  # connections that wait to be taken or turned away
GRACE = 5.0  # seconds that answers in the making get at the end
SMALL = 64 << 10  # bytes of a body that is no picture
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Server": "edgecap",
}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """Serves until ``SIGTERM`` or ``SIGINT``.

    captioner : an ``edgecap.Captioner``, for posted pictures
    hub, live : the cameras, not started; ``live`` may hold none
    ready : called with the address, such as ``http://127.0.0.1:8765/``, when it answers
    """

    def __init__(
        self,
        options: ServeOptions,
        captioner: Any,
        hub: Hub,
        live: Live,
        ready: Callable[[str], None],
    ) -> None:
        self._options, self._hub, self._live, self._ready = options, hub, live, ready
        posted = PostedPictures(
            captioner, waiting=options.queue, batch=options.batch, max_pixels=options.max_pixels
        )
        self._parts = Parts(
            options=options,
            captioner=captioner,
            access=Access(options),
            hub=hub,
            live=live,
            posted=posted,
            previews=Previews(options.preview_rate, options.previews),
            uploads=Uploads(options),
            status=Status(options, captioner, live, hub, posted),
            metrics=Metrics(),
        )
        hub.counted = self._parts.metrics.caption
        self._guard: Guard | None = None

    async def run(self) -> int:
        """Serve; the number of the signal that ended it."""
        parts = self._parts
        app = web.Application(middlewares=[self._outermost], client_max_size=SMALL)
        app.on_response_prepare.append(_add_headers)
        Routes(parts).add_to(app)
        runner = web.AppRunner(
            app,
            access_log=None,
            handler_cancellation=True,
            keepalive_timeout=self._options.idle_timeout,
            lingering_time=1.0,
            shutdown_timeout=GRACE,
        )
        await runner.setup()
        assert runner.server is not None
        self._guard = guard = Guard(runner.server, self._options)
        parts.metrics.watch(
            parts.captioner, parts.status, self._live, self._hub, parts.posted, guard
        )
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[int] = loop.create_future()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, _settle, ended, number)
        listening = await self._listen(guard)
        life = Life(parts.status, parts.posted, self._live, self._options)
        try:
            self._hub.start()
            parts.posted.start()
            self._live.start()
            self._ready(_address(listening))
            watch = asyncio.create_task(life.watch())
            signalled = await ended
            life.stopping()
            watch.cancel()
        finally:
            listening.close()
            self._hub.close()
            await asyncio.to_thread(self._live.stop)
            await runner.cleanup()
            await asyncio.to_thread(parts.posted.close)
        return signalled

    async def _listen(self, guard: Guard) -> asyncio.Server:
        host, port = self._options.host, self._options.port
        try:
            return await asyncio.get_running_loop().create_server(
                guard, host.strip("[]"), port, backlog=BACKLOG
            )
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise OptionsError(
                    f"port {port} of {host} is in use; give another with --port, or end what has it"
                ) from None
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise OptionsError(
                f"{host}:{port} cannot be listened on: {reason}; give an address of this machine "
                "and a port that you may use"
            ) from None

    @web.middleware
    async def _outermost(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        assert self._guard is not None
        self._guard.began(request)
        begin = time.perf_counter()
        response: web.StreamResponse | None = None
        try:
            response = await self._checked(request, handler)
            return response
        finally:
            self._guard.ended(request)
            self._count(request, response, time.perf_counter() - begin)

    async def _checked(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            self._parts.access.check(request)
            if request.method in SAFE or request.path == "/v1/caption":
                return await handler(request)
            return await asyncio.wait_for(handler(request), self._options.body_timeout)
        except asyncio.TimeoutError:
            line = f"the request did not come within {self._options.body_timeout:g} s"
            return Problem(408, line, headers={"Connection": "close"}).response()
        except Problem as problem:
            return problem.response()
        except web.HTTPException as error:
            if error.status < 400:
                raise
            line = f"{request.method} {request.path[:200]}: {error.reason}"
            allowed = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
            return Problem(error.status, line, headers=allowed).response()
        except EdgeCapError as error:
            return Problem(400, str(error)).response()
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception:
            LOG.exception("%s %s failed", request.method, request.path)
            return Problem(500, "something went wrong here; the server's log says what").response()

    def _count(
        self, request: web.Request, response: web.StreamResponse | None, seconds: float
    ) -> None:
        resource = request.match_info.route.resource
        route = "other" if resource is None else resource.canonical
        code = "cancelled" if response is None else str(response.status)
        method = request.method if request.method in ("GET", "POST", "PUT", "HEAD") else "other"
        self._parts.metrics.requests.labels(method, route, code).inc()
        if route not in ("/v1/events", "/v1/preview.mjpeg"):
            self._parts.metrics.request_durations.labels(route).observe(seconds)


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)


def _settle(ended: asyncio.Future[int], number: int) -> None:
    if not ended.done():
        ended.set_result(number)


def _address(listening: asyncio.Server) -> str:
    host, port = listening.sockets[0].getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
