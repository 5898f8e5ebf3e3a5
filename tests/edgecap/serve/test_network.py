"""What a network does to a real server: slow, many, malformed and foreign requests."""

from __future__ import annotations

import os
import random
import resource
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from edgecap.models import bundled

if "default" not in bundled():
    pytest.skip("this checkout has no default model", allow_module_level=True)


def connect(server: str) -> socket.socket:
    parts = urlsplit(server)
    return socket.create_connection((parts.hostname, parts.port), timeout=30)


def read_all(client: socket.socket) -> bytes:
    """What comes until the other side closes."""
    data = b""
    try:
        while part := client.recv(1 << 16):
            data += part
    except ConnectionError:
        pass
    return data


def ask(server: str, request: bytes) -> bytes:
    with connect(server) as client:
        client.sendall(request)
        return read_all(client)


def well(server: str) -> bool:
    return requests.get(f"{server}/healthz", timeout=30).status_code == 200


def test_headers_that_come_drop_by_drop_are_cut(server: str) -> None:
    with connect(server) as client:
        begin = time.monotonic()
        client.sendall(b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\n")
        try:
            while time.monotonic() - begin < 25:
                client.sendall(b"X-Drop: 1\r\n")
                time.sleep(0.2)
            raise AssertionError("the server waits for ever")
        except ConnectionError:
            pass
    with connect(server) as silent:
        assert read_all(silent) == b""
    assert well(server)


def test_a_body_that_comes_drop_by_drop_is_cut(server: str) -> None:
    head = (
        b"POST /v1/caption HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n"
        b"Content-Length: 100000\r\n\r\n"
    )
    with connect(server) as client:
        client.sendall(head + b"\xff\xd8")
        assert read_all(client).startswith(b"HTTP/1.1 408 ")
    login = head.replace(b"/v1/caption", b"/login").replace(b"image/jpeg", b"application/json")
    with connect(server) as client:
        client.sendall(login.replace(b"100000", b"1000"))
        # Without a token nothing needs to be read.
        assert read_all(client).startswith(b"HTTP/1.1 200 ")
    profile = login.replace(b"POST /login", b"PUT /v1/profile").replace(b"100000", b"1000")
    with connect(server) as client:
        client.sendall(profile)
        assert read_all(client).startswith(b"HTTP/1.1 408 ")
    assert well(server)


def test_malformed_requests(server: str) -> None:
    for request in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),  # TLS
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/caption HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/caption HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n"
        b"Content-Length: 2\r\n\r\nab",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
    ):
        first = ask(server, request).partition(b"\r\n")[0]
        assert first == b"" or first.split()[1].startswith(b"4"), first
    assert well(server)


def test_noise_does_not_end_the_server(server: str) -> None:
    noise = random.Random(5)
    good = (
        b"POST /v1/caption?beams=2 HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n\r\n"
    )
    for _ in range(60):
        request = bytearray(good)
        for _ in range(noise.randrange(1, 9)):
            request[noise.randrange(len(request))] = noise.randrange(256)
        with connect(server) as client:
            client.sendall(bytes(request))
            client.shutdown(socket.SHUT_WR)
            answered = read_all(client)
        assert answered == b"" or answered.startswith(b"HTTP/1."), answered[:80]
        assert b" 500 " not in answered.partition(b"\r\n")[0]
    assert well(server)


def test_thousands_of_connections_are_bounded(server: str) -> None:
    wanted = 2000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted + 200:
        pytest.skip(f"only {hard} files may be open here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted + 200), hard))
    try:
        with ExitStack() as stack:
            for _ in range(wanted):
                stack.enter_context(connect(server))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    until = time.monotonic() + 30
    while time.monotonic() < until:
        answer = requests.get(f"{server}/metrics", timeout=30)
        if answer.status_code == 200:
            break
        time.sleep(0.2)
    values = dict(
        line.split() for line in answer.text.splitlines() if line.startswith("edgecap_http_conn")
    )
    assert float(values["edgecap_http_connections"]) <= 48
    assert float(values["edgecap_http_connections_refused_total"]) > wanted / 2


@pytest.mark.parametrize(
    "path",
    [
        "/console/../server.py",
        "/console/../../pyproject.toml",
        "/console/%2e%2e/server.py",
        "/console/..%2fserver.py",
        "/console/..%5cserver.py",
        "/console//etc/passwd",
        "/console/%2fetc%2fpasswd",
        "/console/%00",
        "/v1/history/..%2f1.jpg",
    ],
)
def test_a_path_cannot_climb_out(server: str, path: str) -> None:
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    answered = ask(server, request.encode())
    assert answered.split()[1] in (b"400", b"403", b"404"), answered[:80]
    assert b"import" not in answered
    assert b"root:" not in answered


def test_a_foreign_name_and_a_foreign_page_are_refused(server: str) -> None:
    def get(method: str, path: str, **headers: str) -> requests.Response:
        return requests.request(method, f"{server}{path}", headers=headers, timeout=30)

    foreign = get("GET", "/v1/status", Host="attacker.example")
    assert foreign.status_code == 421
    assert "attacker.example" in foreign.json()["error"]
    assert get("GET", "/v1/status", Host="localhost:1").status_code == 200
    assert get("POST", "/v1/describe", Origin="http://attacker.example").status_code == 403
    cross = get("POST", "/v1/describe", **{"Sec-Fetch-Site": "cross-site"})
    assert cross.status_code == 403
    own = get("POST", "/v1/describe", Origin=server)
    assert own.status_code == 409  # no camera, but not refused


def test_answers_forbid_what_pages_must_not_do(server: str) -> None:
    for path in ("/", "/v1/status", "/nothing"):
        headers = requests.get(f"{server}{path}", timeout=30).headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Server"] == "edgecap"
    page = requests.get(f"{server}/", timeout=30)
    again = requests.get(f"{server}/", headers={"If-None-Match": page.headers["ETag"]}, timeout=30)
    assert again.status_code == 304
    missing = requests.delete(f"{server}/v1/status", timeout=30)
    assert missing.status_code == 405
    assert "GET" in missing.headers["Allow"]
    assert missing.json()["error"]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgecap", "serve", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--host", "0.0.0.0", "--port", "0"], ["--token-file", "0.0.0.0"]),
        (["--host", "0.0.0.0", "--port", "0", "--token", "short"], ["5 characters", "16"]),
        (["--token-file", "/nowhere/token"], ["/nowhere/token", "No such file"]),
        (["--port", "70000"], ["70000", "65535"]),
        (["--rate", "fast"], ["'fast'", "500/second"]),
        (["--queue", "0"], ["queue", "1 to"]),
    ],
)
def test_bad_options_are_one_line(arguments: list[str], words: list[str]) -> None:
    done = run(*arguments, EDGECAP_TOKEN="")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    for word in words:
        assert word in done.stderr


def test_a_port_in_use_and_a_source_that_is_not_there(server: str, tmp_path: Path) -> None:
    port = str(urlsplit(server).port)
    for arguments, words in (
        (["--port", port], [port, "in use"]),
        (["--port", "0", "--source", str(tmp_path / "no.mp4")], ["no.mp4", "does not exist"]),
        (["--port", "0", "--host", "203.0.113.7", "--token", "x" * 16], ["203.0.113.7"]),
    ):
        done = run(*arguments)
        assert done.returncode == 2, done.stderr
        assert len(done.stderr.splitlines()) == 1, done.stderr
        for word in words:
            assert word in done.stderr


def test_interrupt_ends_with_130() -> None:
    command = [sys.executable, "-m", "edgecap", "serve", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "answers at http://127.0.0.1:" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
