"""Pictures that are posted to a real server: captions, and what is refused."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image
from served import serving

import edgecap
from edgecap.models import bundled
from edgecap.runtime.captioner import Captioner

if "default" not in bundled():
    pytest.skip("this checkout has no default model", allow_module_level=True)


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    return edgecap.load()


def post(server: str, data: Any, kind: str = "image/jpeg", **query: object) -> requests.Response:
    headers = {"Content-Type": kind}
    return requests.post(
        f"{server}/v1/caption", data=data, headers=headers, params=query, timeout=60
    )


def refused(response: requests.Response, status: int, *words: str) -> None:
    """One line of JSON that says why."""
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/json"
    line = response.json()["error"]
    assert "\n" not in line
    for word in words:
        assert word in line


def test_a_photograph_gets_the_caption_that_the_captioner_gives(
    server: str, photographs: list[Path], captioner: Captioner
) -> None:
    for path in photographs[:3]:
        response = post(server, path.read_bytes())
        assert response.status_code == 200, response.text
        answer, own = response.json(), captioner(path)
        assert answer["text"] == own.text
        assert answer["confidence"] == pytest.approx(own.confidence, abs=0.02)
        assert answer["sure"] == own.sure
        assert answer["model"] == captioner.name
        latency = answer["latency_ms"]
        parts = sum(latency[name] for name in ("preprocess", "queue", "encode", "decode"))
        assert 0 < parts <= latency["total"]


def test_photographs_of_many_clients_get_their_own_captions(
    server: str, photographs: list[Path], captioner: Captioner
) -> None:
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda path: post(server, path.read_bytes()), photographs))
    assert [answer.status_code for answer in answers] == [200] * len(photographs)
    # In a batch the sums of a matrix product have another order: a word may differ, seldom.
    own = [caption.text for caption in captioner(list(photographs))]
    same = sum(a.json()["text"] == text for a, text in zip(answers, own, strict=True))
    assert same >= 0.9 * len(own)
    assert max(answer.json()["batch"] for answer in answers) > 1


@pytest.mark.parametrize("kind", ["png", "webp", "bmp", "gif", "tiff"])
def test_other_kinds_of_pictures(server: str, photographs: list[Path], kind: str) -> None:
    data = io.BytesIO()
    Image.open(photographs[0]).resize((320, 240)).save(data, kind)
    response = post(server, data.getvalue(), f"image/{kind}")
    assert response.status_code == 200, response.text
    assert response.json()["text"]


def test_a_form(server: str, photographs: list[Path]) -> None:
    data = photographs[0].read_bytes()
    url = f"{server}/v1/caption"
    answer = requests.post(url, files={"picture": ("p.jpg", data, "image/jpeg")}, timeout=60)
    assert answer.json()["text"] == post(server, data).json()["text"]
    refused(requests.post(url, files={"photo": ("p.jpg", data)}, timeout=60), 400, "'photo'")
    broken = "multipart/form-data; boundary=xyz"
    refused(post(server, b"--xyz\r\nnothing", broken), 400, "form")
    refused(post(server, b"", "multipart/form-data"), 400, "form")
    big = b"\xff\xd8" + bytes(402_000)
    refused(requests.post(url, files={"picture": ("p.jpg", big)}, timeout=60), 413, "400000")


def test_options_of_decoding(server: str, photographs: list[Path]) -> None:
    data = photographs[0].read_bytes()
    short = post(server, data, beams=1, max_tokens=4).json()["text"]
    assert 0 < len(short.split()) <= 4
    refused(post(server, data, beams="many"), 400, "beams", "whole number")
    refused(post(server, data, beams=0), 400, "beams")
    refused(post(server, data, beams=1000), 400, "beams")
    refused(post(server, data, max_tokens=10**6), 400, "max_new_tokens")
    refused(post(server, data, size=3), 400, "'size'", "beams")


def test_wrong_types(server: str, photographs: list[Path]) -> None:
    data = photographs[0].read_bytes()
    refused(post(server, data, "text/plain"), 415, "text/plain", "image/jpeg")
    refused(post(server, data, "application/x-www-form-urlencoded"), 415)
    refused(post(server, b"%PDF-1.7 not a picture"), 415, "22 bytes")
    refused(post(server, b""), 400, "empty")


def test_truncated_and_damaged(server: str, photographs: list[Path]) -> None:
    data = photographs[0].read_bytes()
    refused(post(server, data[: len(data) // 2]), 400, "cut short")
    refused(post(server, data[:3]), 400)
    refused(post(server, b"\x89PNG\r\n\x1a\n" + bytes(40), "image/png"), 400)


def test_too_large(server: str) -> None:
    most = 400_000
    refused(post(server, b"\xff\xd8" + bytes(most)), 413, f"{most}")

    def chunks() -> Iterator[bytes]:  # sent without a length
        yield b"\xff\xd8"
        for _ in range(20):
            yield bytes(most // 10)

    refused(post(server, chunks()), 413, f"{most}")


def test_a_decompression_bomb_is_refused_by_its_header(server: str) -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + check

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(30_000 * 90), 9)
    bomb = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )
    assert len(bomb) < 10_000
    refused(post(server, bomb, "image/png"), 413, "30000 x 30000", "2 megapixels")


def test_a_full_queue_refuses_and_goes_on(photographs: list[Path]) -> None:
    with serving("--queue", "2") as address:
        data = photographs[0].read_bytes()
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda _: post(address.rstrip("/"), data), range(48)))
        codes = {answer.status_code for answer in answers}
        assert codes == {200, 503}
        for answer in answers:
            if answer.status_code == 503:
                assert int(answer.headers["Retry-After"]) >= 1
                refused(answer, 503, "wait")
        assert post(address.rstrip("/"), data).status_code == 200


def test_one_client_may_not_send_without_end(photographs: list[Path]) -> None:
    with serving("--rate", "5/minute") as address:
        codes = [requests.get(f"{address}v1/status", timeout=30).status_code for _ in range(8)]
        assert codes == [200] * 5 + [429] * 3
        assert requests.get(f"{address}healthz", timeout=30).status_code == 200
