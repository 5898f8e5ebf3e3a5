"""Captions said aloud: the latest wins, a hazard interrupts, nothing is said too late."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from edgecap.runtime.errors import SinkError
from edgecap.runtime.streams.event import Event, Notice
from edgecap.runtime.streams.sinks.voices import EspeakNg, Saying, Voice
from edgecap.runtime.streams.told import REPEAT, as_told

LOG = logging.getLogger("edgecap.streams")
INTERRUPTIONS = ("alerts", "always", "never")
NOTICES = {
    "lost": "The camera is lost.",
    "open": "The camera is back.",
    "frozen": "The camera is frozen.",
    "blocked": "The camera sees nothing.",
    "clear": "The camera sees again.",
    "stuck": "No descriptions come.",
    "well": "Descriptions come again.",
}
LAST_WORDS = 4.0  # seconds that a sentence begun may take when the stream ends


@dataclass(frozen=True)
class Utterance:
    """One sentence to say. ``priority`` 1: a hazard; ``due``: when it is too old, monotonic."""

    text: str
    priority: int
    due: float
    frame: int


class Speech:
    """Says sentences one at a time through a voice.

    While one is said the newest waits and replaces any that waited, unless that had a higher
    priority. ``interrupt`` says what cuts a sentence short: "alerts" (hazards, unless a hazard is
    being told), "always" (whatever is new) or "never".

    max_age : seconds from the frame's capture after which a sentence is no longer begun
    folder : write ``<frame>.wav`` files into it in place of sound, each whole
    counts : sentences said, interrupted, replaced, stale (too old), failed
    """

    def __init__(
        self,
        voice: Voice | None = None,
        *,
        interrupt: str = "alerts",
        max_age: float = 5.0,
        folder: str | PathLike[str] | None = None,
        name: str = "speech",
    ) -> None:
        if interrupt not in INTERRUPTIONS:
            accepted = ", ".join(INTERRUPTIONS)
            raise SinkError(f"interrupt is {interrupt!r}; give one of {accepted}")
        if not max_age > 0.0:
            raise SinkError(f"max_age is {max_age!r}; give seconds above 0")
        self._folder = None if folder is None else Path(folder)
        if self._folder is not None and not self._folder.is_dir():
            raise SinkError(f"{folder} is no folder; give one for the WAV files")
        self.name = name
        self.counts: Counter[str] = Counter()
        self._voice = EspeakNg() if voice is None else voice
        self._interrupt = interrupt
        self._max_age = max_age
        self._changed = threading.Condition()
        self._waiting: Utterance | None = None
        self._saying: Utterance | None = None
        self._sounding: Saying | None = None
        self._cut = False
        self._closing = False
        self._warned = False
        self._thread = threading.Thread(target=self._work, name=f"voice {name}", daemon=True)
        self._thread.start()

    def write(self, event: Event) -> None:
        """Have an event's sentence said, alerts first; returns at once."""
        told = as_told(event)
        if told.verdict == REPEAT or not told.sentence:
            return
        age = event.latency_ms.total / 1000.0
        new = Utterance(
            told.sentence,
            int(bool(told.alerts)),
            time.monotonic() + self._max_age - age,
            event.frame,
        )
        self._offer(new)

    def notice(self, notice: Notice) -> None:
        """Say what its user must know: that the camera cannot be relied upon, or can again."""
        text = NOTICES.get(notice.kind)
        if text is not None and self._folder is None:
            self._offer(Utterance(text, 1, time.monotonic() + self._max_age, -1))

    def _offer(self, new: Utterance) -> None:
        with self._changed:
            while self._folder is not None and self._waiting is not None and not self._closing:
                self._changed.wait()  # files have time: none is left out
            if self._waiting is not None and self._waiting.priority > new.priority:
                self.counts["replaced"] += 1
                return
            self.counts["replaced"] += self._waiting is not None
            self._waiting = new
            self._stop_if_due(new)
            self._changed.notify_all()

    def _stop_if_due(self, new: Utterance) -> None:
        """Cut the sentence being said, where ``new`` may."""
        if self._saying is None or self._cut or self._folder is not None:
            return
        if self._interrupt == "always":
            due = new.priority >= self._saying.priority
        else:
            due = self._interrupt == "alerts" and new.priority > self._saying.priority
        if due:
            self._cut = True
            if self._sounding is not None:
                self._sounding.kill()

    def close(self) -> None:
        """Say what waits, then end; what takes longer than 4 seconds is cut."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(LAST_WORDS)
        with self._changed:
            if self._sounding is not None:
                self._cut = True
                self._sounding.kill()
        self._thread.join()
        self._voice.close()

    def _work(self) -> None:
        while (utterance := self._next()) is not None:
            try:
                self._say(utterance)
            except Exception as error:
                self._fail(str(error))

    def _next(self) -> Utterance | None:
        with self._changed:
            self._saying = None
            while True:
                while self._waiting is None and not self._closing:
                    self._changed.wait()
                utterance, self._waiting = self._waiting, None
                self._changed.notify_all()
                if utterance is None:
                    return None
                if self._folder is not None or time.monotonic() <= utterance.due:
                    break
                self.counts["stale"] += 1
            self._saying, self._cut = utterance, False
            return utterance

    def _say(self, utterance: Utterance) -> None:
        wav = None if self._folder is None else self._folder / f"{utterance.frame:08d}.wav"
        draft = None if wav is None else wav.with_suffix(".part")
        sounding = self._voice.start(utterance.text, draft)
        with self._changed:
            self._sounding = sounding
            if self._cut:  # asked for while it was begun
                sounding.kill()
        why = sounding.wait()
        with self._changed:
            self._sounding, cut = None, self._cut
        if cut:
            self.counts["interrupted"] += 1
            return
        if why is not None:
            self._fail(why)
            return
        if wav is not None and draft is not None:
            draft.replace(wav)
        self.counts["said"] += 1

    def _fail(self, reason: str) -> None:
        self.counts["failed"] += 1
        if not self._warned:
            self._warned = True
            LOG.warning("the sink %s cannot speak (said once): %s", self.name, reason)
