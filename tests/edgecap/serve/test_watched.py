"""A real server with two cameras: events, history, pictures, profiles, metrics, the token."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import requests
from openapi_spec_validator import validate
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from served import serving

from edgecap.models import bundled
from edgecap.serve import answers

if "default" not in bundled():
    pytest.skip("this checkout has no default model", allow_module_level=True)

TOKEN = "a token of the tests, long enough"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def watched() -> Iterator[str]:
    """The address of a server with a token and a camera that draws its pictures."""
    yard = "yard=test://moving?width=480&height=270&fps=10"
    wall = "wall=test://static?width=320&height=240&fps=10"
    arguments = ["--source", yard, "--source", wall, "--min-interval", "0.2"]
    with serving(*arguments, token=TOKEN) as address:
        yield address.rstrip("/")


def get(server: str, path: str, **options: Any) -> requests.Response:
    headers = {**BEARER, **options.pop("headers", {})}
    return requests.get(f"{server}{path}", headers=headers, timeout=30, **options)


def events(server: str, last: int | None = None) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Server-sent events: kind, data, id."""
    headers = {} if last is None else {"Last-Event-ID": str(last)}
    with get(server, "/v1/events", headers=headers, stream=True) as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        event: dict[str, str] = {}
        for line in response.iter_lines(chunk_size=1, decode_unicode=True):
            if line:
                name, _, value = line.partition(": ")
                event[name] = value
            elif "data" in event:
                yield event.get("event", ""), json.loads(event["data"]), event.get("id", "")
                event = {}


def captions(server: str, **options: Any) -> Iterator[answers.CameraCaption]:
    for kind, data, number in events(server, **options):
        if kind == "caption":
            caption = msgspec.convert(data, answers.CameraCaption)
            assert number == str(caption.id)
            yield caption


def wait_for_history(server: str, count: int) -> list[dict[str, Any]]:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        history: list[dict[str, Any]] = get(server, "/v1/history").json()
        if len(history) >= count:
            return history
        time.sleep(0.2)
    raise AssertionError(f"no {count} captions in a minute")


def test_nothing_is_told_without_the_token(watched: str) -> None:
    paths = ("/v1/status", "/v1/events", "/v1/history", "/v1/frame.jpg", "/metrics", "/v1/nothing")
    for path in paths:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Cookie": "edgecap=wrong"}):
            response = requests.get(f"{watched}{path}", headers=headers, timeout=30)
            assert response.status_code == 401, path
            assert response.headers["WWW-Authenticate"].startswith("Bearer")
            assert "token" in response.json()["error"]
    posted = requests.post(f"{watched}/v1/caption", data=b"x", timeout=30)
    assert posted.status_code == 401
    for path in ("/", "/healthz", "/openapi.json"):
        assert requests.get(f"{watched}{path}", timeout=30).status_code == 200


def test_events_bring_captions_and_status(watched: str) -> None:
    seen: set[str] = set()
    statuses = 0
    for kind, data, number in events(watched, last=0):
        if kind == "caption":
            caption = msgspec.convert(data, answers.CameraCaption)
            assert number == str(caption.id)
            assert caption.text
            latency = caption.latency_ms
            parts = latency.capture_age + latency.preprocess + latency.encode + latency.decode
            assert 0 < parts <= latency.total * 1.01
            assert latency.deliver >= 0
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", caption.time)
            seen.add(caption.source)
        elif kind == "status":
            msgspec.convert(data, answers.ServerStatus)
            statuses += 1
        if seen == {"yard", "wall"} and statuses > 2:
            break


def test_who_comes_back_gets_what_was_missed(watched: str) -> None:
    history = wait_for_history(watched, 4)
    newest, third = history[0]["id"], history[3]["id"]
    again = captions(watched, last=third)
    missed = [next(again).id for _ in range(3)]
    assert missed == [third + 1, third + 2, third + 3]
    # A number of an earlier server is greater than any of this one: everything is sent.
    first = next(captions(watched, last=10**9)).id
    assert first <= newest
    assert get(watched, "/v1/events", headers={"Last-Event-ID": "x"}, stream=True).ok


def test_history_and_its_pictures(watched: str) -> None:
    history = wait_for_history(watched, 3)
    assert [entry["id"] for entry in history] == sorted((e["id"] for e in history), reverse=True)
    entry = history[0]
    picture = get(watched, entry["thumbnail"])
    assert picture.headers["Content-Type"] == "image/jpeg"
    thumbnail = Image.open(io.BytesIO(picture.content))
    assert thumbnail.format == "JPEG"
    assert thumbnail.width == 320
    assert len(get(watched, "/v1/history?limit=2").json()) == 2
    assert get(watched, "/v1/history?limit=all").status_code == 400
    assert get(watched, "/v1/history/999999999.jpg").status_code == 404


def test_the_newest_frame_and_the_preview(watched: str) -> None:
    wait_for_history(watched, 1)
    for source, size in (("yard", (480, 270)), ("wall", (320, 240))):
        frame = get(watched, f"/v1/frame.jpg?source={source}")
        assert Image.open(io.BytesIO(frame.content)).size == size
        assert float(frame.headers["X-Frame-Age-Seconds"]) < 30
    missing = get(watched, "/v1/frame.jpg?source=cellar")
    assert missing.status_code == 404
    assert "yard, wall" in missing.json()["error"]
    with get(watched, "/v1/preview.mjpeg?source=yard", stream=True) as response:
        boundary = response.headers["Content-Type"].partition("boundary=")[2].encode()
        data = b""
        for part in response.iter_content(4096):
            data += part
            if data.count(b"--" + boundary) > 3:
                break
    parts = data.split(b"--" + boundary)[1:4]
    pictures = [part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for part in parts]
    shown = [Image.open(io.BytesIO(picture)).size for picture in pictures]
    assert shown == [(480, 270)] * 3
    assert len(set(pictures)) > 1


def test_describe_now(watched: str) -> None:
    wait_for_history(watched, 1)
    asked = requests.post(f"{watched}/v1/describe?source=wall", headers=BEARER, timeout=30)
    assert asked.status_code == 202
    assert asked.json() == {"asked": ["wall"]}
    told = next(caption for caption in captions(watched, last=0) if caption.reason == "asked")
    assert told.source == "wall"
    wrong = requests.post(f"{watched}/v1/describe?source=cellar", headers=BEARER, timeout=30)
    assert wrong.status_code == 404


def switch(server: str, body: object) -> requests.Response:
    return requests.put(f"{server}/v1/profile", json=body, headers=BEARER, timeout=30)


def test_profiles_are_switched_while_it_runs(watched: str) -> None:
    before = wait_for_history(watched, 1)[0]["id"]
    frames = get(watched, "/v1/status").json()["frames"]
    profiles = msgspec.convert(get(watched, "/v1/profiles").json(), answers.Profiles)
    names = [profile.name for profile in profiles.profiles]
    assert profiles.current == "none"
    assert {"none", "assistive", "driving", "smart-home"} <= set(names)
    assert switch(watched, {"name": "driving"}).json() == {"current": "driving"}
    told = next(c for c in captions(watched, last=before) if c.sentence is not None)
    assert told.id > before
    status = msgspec.convert(get(watched, "/v1/status").json(), answers.ServerStatus)
    assert status.profile == "driving"
    assert status.frames >= frames  # counted on over the change
    unknown = switch(watched, {"name": "../driving"})
    assert unknown.status_code == 409
    assert "assistive" in unknown.json()["error"]
    assert switch(watched, {}).status_code == 400
    assert switch(watched, {"name": 5}).status_code == 400
    assert switch(watched, {"name": "none"}).json() == {"current": "none"}


def test_metrics_are_those_that_status_counts(watched: str) -> None:
    wait_for_history(watched, 2)
    families = {f.name: f for f in text_string_to_metric_families(get(watched, "/metrics").text)}
    status = get(watched, "/v1/status").json()
    by_source = {s.labels["source"]: s.value for s in families["edgecap_frames"].samples}
    assert set(by_source) == {"yard", "wall"}
    assert 0 < sum(by_source.values()) <= status["frames"]
    captions_total = families["edgecap_captions"].samples
    assert 0 < sum(sample.value for sample in captions_total) <= status["captions"]
    durations = families["edgecap_caption_duration_seconds"]
    assert durations.type == "histogram"
    counts = {s.labels["source"]: s.value for s in durations.samples if s.name.endswith("_count")}
    assert counts == {sample.labels["source"]: sample.value for sample in captions_total}
    stages = {s.labels["stage"] for s in families["edgecap_stage_duration_seconds"].samples}
    assert {"capture_age", "preprocess", "encode", "decode", "deliver"} <= stages
    assert "process_resident_memory_bytes" in families
    assert families["edgecap_healthy"].samples[0].value == 1


def test_openapi_is_valid_and_names_every_address(watched: str) -> None:
    document = requests.get(f"{watched}/openapi.json", timeout=30).json()
    validate(document)
    text = Path(answers.__file__).with_name("routes.py").read_text()
    routes = {path for path in re.findall(r'web\.(?:get|post|put)\(\s*r?"([^"]+)"', text)}
    routes = {re.sub(r"\{number[^}]*\}+", "{id}", path) for path in routes}
    assert routes - {"/", "/openapi.json"} == set(document["paths"])
    assert "{id}" in "".join(routes)


def test_logging_in(watched: str) -> None:
    session = requests.Session()
    assert session.post(f"{watched}/login", json={"token": "wrong"}, timeout=30).status_code == 401
    assert session.post(f"{watched}/login", json=["x"], timeout=30).status_code == 400
    assert session.post(f"{watched}/login", data=b"\xff", timeout=30).status_code == 400
    done = session.post(f"{watched}/login", json={"token": TOKEN}, timeout=30)
    assert done.status_code == 200
    cookie = done.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert TOKEN not in cookie
    assert session.get(f"{watched}/v1/status", timeout=30).status_code == 200
    form = requests.post(f"{watched}/login", data={"token": TOKEN}, timeout=30)
    assert form.status_code == 200
    session.post(f"{watched}/logout", timeout=30)
    assert session.get(f"{watched}/v1/status", timeout=30).status_code == 401
    codes = [
        requests.post(f"{watched}/login", json={"token": f"guess {n}"}, timeout=30).status_code
        for n in range(12)
    ]
    assert codes[-1] == 429
    assert set(codes) == {401, 429}


def test_systemd_hears_of_progress_and_of_its_end(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)
        environment = {
            **os.environ,
            "NOTIFY_SOCKET": str(tmp_path / "notify"),
            "WATCHDOG_USEC": "600000",
        }
        command = [sys.executable, "-m", "edgecap", "serve", "--port", "0", "--no-loop"]
        command += ["--source", "test://moving?frames=20&fps=10&width=320&height=240"]
        with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
            heard: list[str] = []
            while not heard or "run no more" not in heard[-1]:
                heard.append(manager.recv(4096).decode())
            assert heard[0].startswith("READY=1")
            assert heard[1].startswith("WATCHDOG=1")
            # The camera has ended: nothing feeds the watchdog any more.
            assert manager.recv(4096).decode().startswith("STATUS=")
            process.send_signal(signal.SIGTERM)
            while not (last := manager.recv(4096).decode()).startswith("STOPPING=1"):
                assert last.startswith("STATUS=")
            assert process.wait(60) == 0


def test_without_cameras_a_check_of_its_own_feeds_systemd(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)
        environment = {
            **os.environ,
            "NOTIFY_SOCKET": str(tmp_path / "notify"),
            "WATCHDOG_USEC": "600000",
        }
        command = [sys.executable, "-m", "edgecap", "serve", "--port", "0"]
        with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
            heard = [manager.recv(4096).decode().partition("\n")[0] for _ in range(3)]
            assert heard == ["READY=1", "WATCHDOG=1", "WATCHDOG=1"]
            process.terminate()
            assert process.wait(60) == 0


def test_health_fails_when_the_cameras_have_ended(tmp_path: Path) -> None:
    source = "test://moving?frames=3&fps=10&width=320&height=240"
    with serving("--source", f"porch={source}", "--no-loop", "--no-pictures") as address:
        until = time.monotonic() + 60
        while (health := requests.get(f"{address}healthz", timeout=30)).status_code == 200:
            assert time.monotonic() < until
            time.sleep(0.1)
        assert health.status_code == 503
        assert "run no more" in health.json()["error"]
        status = requests.get(f"{address}v1/status", timeout=30).json()
        assert status["healthy"] is False
        assert status["sources"][0]["state"] == "ended"
        assert status["sources"][0]["frames"] == 3
        for path in ("frame.jpg", "preview.mjpeg", "history/1.jpg"):
            hidden = requests.get(f"{address}v1/{path}", timeout=30)
            assert hidden.status_code == 404
            assert "--no-pictures" in hidden.json()["error"]
        assert requests.post(f"{address}v1/describe", timeout=30).status_code == 409
        gone = requests.put(f"{address}v1/profile", json={"name": "driving"}, timeout=30)
        assert gone.status_code == 409
