"""JSON Lines: strict, whole, and aware of readers that leave."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from edgecap.runtime.caption import Caption
from edgecap.runtime.streams import (
    JsonLines,
    Pipeline,
    StreamOptions,
)
from edgecap.runtime.streams.sources.base import Picture

ALL = StreamOptions(gate="none")


def test_json_lines_are_strict(
    script: Any, picture: Callable[..., Picture], captioner: Callable[..., Caption]
) -> None:
    def nan(image: np.ndarray, **options: Any) -> Caption:
        caption = captioner(image, **options)
        return Caption(
            "ein Bär\n", caption.tokens, float("-inf"), float("nan"), False, caption.timings
        )

    out = io.BytesIO()
    source = script([picture(0), picture(200)], live=False)
    Pipeline(source, nan, sinks=[JsonLines(out)], options=ALL).run()
    lines = out.getvalue().decode().splitlines()
    assert len(lines) == 2
    assert out.getvalue().endswith(b"\n")

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    event = json.loads(lines[0], parse_constant=refuse)
    assert list(event) == [
        "source", "frame", "captured_at", "captured_at_unix", "pts", "text", "tokens", "score",
        "confidence", "sure", "reason", "latency_ms", "dropped", "truncated", "draft",
    ]  # fmt: skip
    assert (event["text"], event["score"], event["confidence"]) == ("ein Bär\n", None, None)
    assert event["captured_at"].endswith("Z")
    assert list(event["latency_ms"]) == ["capture_age", "preprocess", "encode", "decode", "total"]


def test_json_lines_survive_short_writes_and_see_closed_pipes(
    script: Any, picture: Callable[..., Picture], captioner: Callable[..., Caption]
) -> None:
    class Drip(io.RawIOBase):
        """Takes seven bytes a time, as a full pipe may."""

        def __init__(self) -> None:
            self.taken = bytearray()

        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            self.taken += bytes(data[:7])
            return min(7, len(data))

    drip = Drip()
    source = script([picture(0)] * 3, live=False)
    Pipeline(source, captioner, sinks=[JsonLines(drip)], options=ALL).run()  # type: ignore[arg-type]
    assert [json.loads(line)["frame"] for line in drip.taken.splitlines()] == [0, 1, 2]

    class Closed(io.BytesIO):
        def write(self, data: Any) -> int:
            raise BrokenPipeError

    def endless() -> Iterator[Picture]:
        while True:
            yield picture(0)

    source = script(endless(), live=True)
    report = Pipeline(source, captioner, sinks=[JsonLines(Closed())], options=ALL).run()
    assert report.ended == "sinks gone"
