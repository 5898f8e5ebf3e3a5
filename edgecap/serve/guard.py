"""What stands between the network and aiohttp: how many connections, and how slow they may be.

aiohttp bounds the size of headers and of bodies. It does not bound the number of connections, the
time that headers take to come, or the time that a client takes to read an answer.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from aiohttp import web

from edgecap.serve.options import ServeOptions

FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"
    b"Connection: close\r\nContent-Length: 53\r\n\r\n"
    b'{"error": "too many connections; try again in a bit"}'
)


class Guard:
    """Makes a guarded protocol for each connection; ``asyncio`` calls it for new ones.

    server : aiohttp's own factory of protocols
    refused, timed_out : connections that were turned away or cut, for the metrics
    """

    def __init__(self, server: web.Server, options: ServeOptions) -> None:
        self.options = options
        self.open = 0
        self.refused = 0
        self.timed_out: Counter[str] = Counter()
        self._server = server
        self._connections: dict[int, GuardedConnection] = {}

    def __call__(self) -> asyncio.Protocol:
        """A protocol for one connection."""
        inner = self._server()
        connection = GuardedConnection(self, inner)
        return connection

    def enter(self, connection: GuardedConnection) -> bool:
        """Count a connection; False when there are too many."""
        if self.open >= self.options.connections:
            self.refused += 1
            return False
        self.open += 1
        self._connections[id(connection.inner)] = connection
        return True

    def leave(self, connection: GuardedConnection) -> None:
        """A connection has ended."""
        if self._connections.pop(id(connection.inner), None) is not None:
            self.open -= 1

    def began(self, request: web.BaseRequest) -> None:
        """A request's headers are complete."""
        connection = self._connections.get(id(request.protocol))
        if connection is not None:
            connection.request_began()

    def ended(self, request: web.BaseRequest) -> None:
        """A request has been answered; the connection waits for its next."""
        connection = self._connections.get(id(request.protocol))
        if connection is not None:
            connection.request_ended()


class GuardedConnection(asyncio.Protocol):
    """Hands everything on to ``inner`` and keeps the time.

    The clock runs from the connection until the first request's headers are there, from the first
    byte of each later request, and while a client does not read what is sent to it.
    """

    def __init__(self, guard: Guard, inner: Any) -> None:
        self.inner = inner
        self._guard = guard
        self._transport: asyncio.Transport | None = None
        self._reading: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None
        self._busy = 0  # requests that are being answered
        self._entered = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, or turn it away with 503."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._entered = self._guard.enter(self)
        if not self._entered:
            transport.write(FULL)
            transport.close()
            return
        self._await_headers()
        self.inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Hand data on; the first byte of a request starts the clock."""
        if not self._entered:
            return
        if self._busy == 0 and self._reading is None:
            self._await_headers()
        self.inner.data_received(data)

    def eof_received(self) -> bool | None:
        """The client has sent everything."""
        return self.inner.eof_received() if self._entered else None

    def connection_lost(self, error: Exception | None) -> None:
        """Stop the clocks."""
        self._stop_reading()
        self._stop_writing()
        if self._entered:
            self._guard.leave(self)
            self.inner.connection_lost(error)

    def pause_writing(self) -> None:
        """The client does not read: its time begins."""
        if self._entered:
            self._stop_writing()
            self._writing = self._later(self._guard.options.write_timeout, "write")
            self.inner.pause_writing()

    def resume_writing(self) -> None:
        """The client reads again."""
        self._stop_writing()
        if self._entered:
            self.inner.resume_writing()

    def request_began(self) -> None:
        """Headers are complete."""
        self._busy += 1
        self._stop_reading()

    def request_ended(self) -> None:
        """The answer has been made."""
        self._busy = max(0, self._busy - 1)

    def _await_headers(self) -> None:
        self._reading = self._later(self._guard.options.header_timeout, "header")

    def _later(self, seconds: float, what: str) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(seconds, self._cut, what)

    def _cut(self, what: str) -> None:
        self._guard.timed_out[what] += 1
        if self._transport is not None:
            self._transport.abort()

    def _stop_reading(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def _stop_writing(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None
