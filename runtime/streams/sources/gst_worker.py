"""Runs one GStreamer pipeline and writes its pictures to standard output.

A program of its own, started by ``gstreamer.py`` under a Python that has PyGObject: the system's,
as a rule, since Debian and JetPack bring GStreamer's bindings for that one only. It imports nothing
of this project. A pipeline that crashes or hangs takes nothing else with it.

Standard input: one line of JSON, ``{"pipeline": text}`` or ``{"elements": [names]}``. The input
stays open as a lifeline: its end ends the program. Standard output: messages of ``HEADER`` and a
body, see ``gstreamer.py``.
"""

import json
import os
import struct
import sys
import threading
import time
from typing import Any

# kind (4 letters), width, height, bytes a row, bytes that follow, moment of capture on the
# monotonic clock and position on the pipeline's own timeline in nanoseconds (-1: unknown)
HEADER = struct.Struct("<4sIIIQqq")
# FAILED: the pipeline cannot be; LOST: it was, and broke
FRAME, FAILED, LOST, ENDED, FOUND = b"FRAM", b"FAIL", b"LOST", b"ENDS", b"FIND"
WANTED = "video/x-raw,format=BGR"
PULL = 100_000_000  # nanoseconds between looks at the bus
OLDEST = 60_000_000_000  # an age beyond this is a clock that means something else


def main() -> None:
    """Do what the line on standard input says."""
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what libraries print must not get between the pictures
    order = json.loads(sys.stdin.buffer.readline())
    try:
        import gi

        gi.require_version("Gst", "1.0")
        from gi.repository import Gst
    except (ImportError, ValueError) as error:
        send(out, FAILED, f"no bindings: {error}".encode())
        return
    Gst.init(None)
    if "elements" in order:
        found = [name for name in order["elements"] if Gst.ElementFactory.find(name)]
        send(out, FOUND, json.dumps(found).encode())
        return
    try:
        play(Gst, order["pipeline"], out)
    except BrokenPipeError:
        pass  # the reader has gone
    except Exception as error:
        # GLib.Error has its text in ``message``
        send(out, FAILED, str(getattr(error, "message", error)).encode())
    out.close()
    os._exit(0)  # a pipeline that does not stop must not keep the program


def play(gst: Any, text: str, out: Any) -> None:
    """Play a pipeline and send its pictures until it ends."""
    pipeline, sink = build(gst, text)
    sink.set_property("caps", gst.Caps.from_string(WANTED))
    for name, value in (("max-buffers", 1), ("drop", True), ("sync", False)):
        sink.set_property(name, value)
    threading.Thread(target=lifeline, daemon=True).start()
    bus = pipeline.get_bus()
    try:
        # No preroll means a live source, whose timestamps are moments of capture.
        change = pipeline.set_state(gst.State.PLAYING)
        live = change == gst.StateChangeReturn.NO_PREROLL
        # A file plays at its own speed; what is live comes as it comes.
        sink.set_property("sync", not live)
        while True:
            sample = sink.emit("try-pull-sample", PULL)
            if sample is not None:
                send_sample(gst, pipeline, sample, live, out)
                continue
            message = bus.pop_filtered(gst.MessageType.ERROR)
            if message is not None:
                error, _ = message.parse_error()
                name = message.src.get_name() if message.src else "GStreamer"
                send(out, LOST, f"{name}: {error.message}".encode())
                return
            if sink.get_property("eos"):
                send(out, ENDED)
                return
    finally:
        pipeline.set_state(gst.State.NULL)


def build(gst: Any, text: str) -> tuple[Any, Any]:
    """The pipeline and its appsink, which is added where the text has none."""
    if "appsink" not in text:
        text = f"{text} ! videoconvert ! appsink name=pictures"
    pipeline = gst.parse_launch(text)  # with a "!" in it, a gst.Pipeline
    elements = pipeline.iterate_elements()
    while True:
        result, element = elements.next()
        if result != gst.IteratorResult.OK:
            break
        if element.get_factory().get_name() == "appsink":
            return pipeline, element
    raise ValueError("no appsink ends this pipeline")


def send_sample(gst: Any, pipeline: Any, sample: Any, live: bool, out: Any) -> None:
    """One picture, with the moment of its capture where the pipeline knows it."""
    now = time.monotonic_ns()
    buffer, shape = sample.get_buffer(), sample.get_caps().get_structure(0)
    width, height = shape.get_value("width"), shape.get_value("height")
    position = captured = -1
    if buffer.pts != gst.CLOCK_TIME_NONE:
        position = sample.get_segment().to_running_time(gst.Format.TIME, buffer.pts)
        clock = pipeline.get_clock()
        if live and clock is not None:
            age = clock.get_time() - pipeline.get_base_time() - position
            captured = now - age if 0 <= age < OLDEST else -1
    taken, memory = buffer.map(gst.MapFlags.READ)
    if not taken:
        raise ValueError("a picture cannot be read from memory")
    try:
        size = len(memory.data)
        row = size // height
        out_all(out, HEADER.pack(FRAME, width, height, row, size, captured, position))
        out_all(out, memory.data)
    finally:
        buffer.unmap(memory)


def send(out: Any, kind: bytes, body: bytes = b"") -> None:
    """A message without a picture."""
    out_all(out, HEADER.pack(kind, 0, 0, 0, len(body), -1, -1) + body)


def out_all(out: Any, data: Any) -> None:
    """Write everything to an unbuffered pipe, which may take a part at a time."""
    rest = memoryview(data)
    while rest:
        rest = rest[out.write(rest) or 0 :]


def lifeline() -> None:
    """End with whoever started this program."""
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main()
