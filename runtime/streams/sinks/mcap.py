"""Captions recorded in an MCAP file, as messages of ROS 2."""

from __future__ import annotations

import os
import threading
from os import PathLike
from pathlib import Path
from typing import Any

from edgecap.runtime.errors import SinkError
from edgecap.runtime.messages.bags import need_mcap
from edgecap.runtime.messages.captions import (
    CAPTION,
    STRING,
    STRING_SCHEMA,
    caption_of,
    caption_schema,
    check_topic,
    header_of_event,
    sentence_of,
)
from edgecap.runtime.streams.event import Event
from edgecap.runtime.streams.sinks.base import LOG, SinkGone
from edgecap.runtime.streams.told import REPEAT, as_told


class CaptionBag:
    """An MCAP file that several cameras record into; safe in any thread.

    It is written beside its place as ``.NAME.part.mcap`` and renamed by ``close``. Where nothing
    was recorded no file is made. After a failed write (a full disk) the part stays where it is,
    for ``mcap recover``.

    Raises SinkError for a folder that cannot be written, MissingExtraError without the packages.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)
        need_mcap(self.path)
        if not os.access(self.path.parent, os.W_OK | os.X_OK) or self.path.is_dir():
            raise SinkError(f"{self.path} cannot be written; give a file in a folder that exists")
        from mcap_ros2.writer import Writer

        self.captions = 0
        self._part = self.path.with_name(f".{self.path.stem}.part.mcap")
        self._lock = threading.Lock()
        self._broken = False
        try:
            self._file = self._part.open("wb")
        except OSError as error:
            raise SinkError(f"{self.path} cannot be written: {error.strerror}") from None
        self._writer: Any = Writer(self._file)
        self._string = self._writer.register_msgdef(STRING, STRING_SCHEMA)
        self._caption = self._writer.register_msgdef(CAPTION, caption_schema())

    def record(self, base: str, event: Event, model: str) -> None:
        """Write an event as ``BASE/caption`` and, where there is something to say, as
        ``BASE/caption_text``."""
        header = header_of_event(event)
        stamp = header.sec * 1_000_000_000 + header.nanosec
        moment = max(0, stamp if header.logged is None else header.logged)
        text = sentence_of(event)
        with self._lock:
            if self._broken:
                raise SinkGone
            try:
                self._write(f"{base}/caption", self._caption, caption_of(event, model), moment)
                if text and as_told(event).verdict != REPEAT:
                    self._write(f"{base}/caption_text", self._string, {"data": text}, moment)
            except OSError as error:
                self._broken = True
                LOG.warning(
                    "%s cannot be written on: %s; what was written is in %s",
                    self.path, error.strerror, self._part,
                )  # fmt: skip
                raise SinkGone from error
            self.captions += 1

    def close(self) -> None:
        """Finish the file and give it its name."""
        with self._lock:
            if self._file.closed:
                return
            if self._broken:
                self._abandon()
                return
            try:
                self._writer.finish()
                self._file.flush()
                self._file.close()
            except OSError as error:
                self._abandon()
                raise SinkError(
                    f"{self.path} cannot be written: {error.strerror}; see {self._part}"
                ) from None
            if not self.captions:
                self._part.unlink()
                LOG.warning("there was no caption, so %s is not made", self.path)
                return
            os.replace(self._part, self.path)

    def _abandon(self) -> None:
        """Let go of a file that cannot be written on; its buffer fails again when it is closed."""
        try:
            self._file.close()
        except OSError:
            os.close(os.open(self._part, os.O_RDONLY))

    def _write(self, topic: str, schema: Any, message: Any, moment: int) -> None:
        self._writer.write_message(topic, schema, message, log_time=moment, publish_time=moment)


class McapSink:
    """Records one camera's events as ``std_msgs/String`` and ``edgecap_msgs/Caption``.

    Stamp and frame_id are the image's where it came in a message of ROS 2, otherwise the moment of
    capture. A message's time in the file is that of the image in its own bag, else the stamp.

    bag : the file; closed with this sink where ``owned``
    topic : captions go to TOPIC/caption and TOPIC/caption_text
    model : the model's name, for the field of that name
    """

    def __init__(
        self, bag: CaptionBag, *, topic: str = "/edgecap", model: str = "", owned: bool = True
    ) -> None:
        self.name = f"{bag.path} {topic}" if not owned else str(bag.path)
        self._bag, self._base, self._model, self._owned = bag, check_topic(topic), model, owned

    def write(self, event: Event) -> None:
        """Record an event."""
        self._bag.record(self._base, event, self._model)

    def close(self) -> None:
        """Finish the file, if it is this sink's own."""
        if self._owned:
            self._bag.close()
