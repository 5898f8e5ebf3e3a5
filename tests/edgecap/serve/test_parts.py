"""Parts of the server alone: the guard over real sockets, the history, the names of cameras."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import msgspec
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecap.runtime.errors import OptionsError
from edgecap.serve.access import host_name
from edgecap.serve.guard import Guard
from edgecap.serve.hub import WAITING, Hub
from edgecap.serve.live import parse_sources
from edgecap.serve.options import ServeOptions, is_loopback
from edgecap.serve.problems import Problem

MEGABYTE = bytes(1 << 20)


async def guarded(options: ServeOptions) -> tuple[Guard, int, web.AppRunner, asyncio.Server]:
    """An application that answers / with 64 MB, behind a guard."""

    async def much(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(64):
            await response.write(MEGABYTE)
        return response

    app = web.Application()
    app.router.add_get("/", much)
    runner = web.AppRunner(app)
    await runner.setup()
    assert runner.server is not None
    guard = Guard(runner.server, options)
    listening = await asyncio.get_running_loop().create_server(guard, "127.0.0.1", 0)
    return guard, listening.sockets[0].getsockname()[1], runner, listening


def test_a_client_that_does_not_read_is_cut_and_one_that_reads_is_not() -> None:
    async def scene() -> None:
        guard, port, runner, listening = await guarded(ServeOptions(write_timeout=0.5))
        request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        got = 0
        while data := await reader.read(1 << 20):
            got += len(data)
        assert got > 64 << 20
        assert guard.timed_out["write"] == 0
        writer.close()
        _, idle = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        idle.transport.pause_reading()  # type: ignore[attr-defined]
        idle.write(request)
        while guard.timed_out["write"] == 0:
            await asyncio.sleep(0.05)
        while guard.open:
            await asyncio.sleep(0.05)
        idle.close()
        listening.close()
        await runner.cleanup()

    asyncio.run(asyncio.wait_for(scene(), 60))


def test_connections_are_counted_and_let_go() -> None:
    async def scene() -> None:
        guard, port, runner, listening = await guarded(ServeOptions(connections=4))
        writers = [(await asyncio.open_connection("127.0.0.1", port))[1] for _ in range(4)]
        while guard.open < 4:
            await asyncio.sleep(0.01)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        answered = await reader.read()
        assert answered.startswith(b"HTTP/1.1 503 ")
        assert msgspec.json.decode(answered.partition(b"\r\n\r\n")[2])["error"]
        assert guard.refused == 1
        for each in (*writers, writer):
            each.close()
            with contextlib.suppress(ConnectionError):
                await each.wait_closed()
        while guard.open:
            await asyncio.sleep(0.01)
        listening.close()
        await runner.cleanup()

    asyncio.run(asyncio.wait_for(scene(), 60))


def caption() -> dict[str, Any]:
    return {"source": "yard", "sure": True, "text": "a dog", "latency_ms": {"total": 1.0}}


@settings(max_examples=50, deadline=None)
@given(kept=st.integers(1, 20), count=st.integers(0, 60), last=st.integers(0, 10**6))
def test_the_history_is_bounded_and_replays_what_is_kept(kept: int, count: int, last: int) -> None:
    async def scene() -> None:
        hub = Hub(kept, most=1)
        hub.start()
        for _ in range(count):
            hub.publish(caption(), b"jpeg", 0.0)
        await asyncio.sleep(0)  # what was published is added in the loop's next round
        numbers = [entry["id"] for entry in hub.newest(10**6)]
        oldest = max(0, count - kept)
        assert numbers == list(range(count, oldest, -1))
        assert hub.thumbnail(oldest) is None
        with hub.listen(last) as listener:
            with pytest.raises(Problem), hub.listen(None):
                pass
            replayed = [message.number for message in listener.waiting]
            after = max(oldest, last if last <= count else 0)
            assert replayed == list(range(after + 1, count + 1))
        for _ in range(3 * WAITING):
            hub.tell("notice", {})
        with hub.listen(None) as listener:
            for _ in range(3 * WAITING):
                hub.tell("notice", {})
            await asyncio.sleep(0)
            assert len(listener.waiting) == WAITING

    asyncio.run(scene())


@given(st.lists(st.text(max_size=30), max_size=8))
def test_cameras_have_names_of_their_own(addresses: list[str]) -> None:
    cameras = parse_sources(addresses)
    names = [camera.name for camera in cameras]
    assert len(names) == len(set(names)) == len(addresses)
    assert all(names)


def test_names_of_cameras() -> None:
    door, same, plain, pipeline = parse_sources(
        ["door=rtsp://u:p@10.0.0.1/main", "door=0", "test://moving", "gst://videotestsrc live=true"]
    )
    assert (door.name, door.address) == ("door", "rtsp://u:p@10.0.0.1/main")
    assert (same.name, same.address) == ("door-2", "0")
    assert plain.name == "moving"
    assert pipeline.address == "gst://videotestsrc live=true"


@given(st.text(max_size=60))
def test_any_host_header_can_be_looked_at(header: str) -> None:
    assert isinstance(is_loopback(host_name(header)), bool)


def test_hosts() -> None:
    for own in ("localhost:8765", "127.0.0.1", "[::1]:80", "127.3.2.1:1"):
        assert is_loopback(host_name(own)), own
    for foreign in (
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "",
        "10.0.0.1",
        "[::1",
        "@",
    ):
        assert not is_loopback(host_name(foreign)), foreign


def test_options_that_contradict() -> None:
    for wrong in ({"host": ""}, {"host": "::"}, {"port": -1}, {"rate": "x"}, {"stuck": 0.0}):
        with pytest.raises(OptionsError, match="give"):
            ServeOptions(**wrong)  # type: ignore[arg-type]
    assert ServeOptions(host="::", token="x" * 16).loopback is False
