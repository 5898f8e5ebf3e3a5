"""Captions as the subtitles of a video: WebVTT, SubRip and what else pysubs2 writes."""

from __future__ import annotations

import os
import tempfile
from html import escape
from os import PathLike
from pathlib import Path

from edgecap.runtime.errors import SinkError
from edgecap.runtime.streams.event import Event
from edgecap.runtime.streams.told import REPEAT, as_told

FORMATS = {".vtt": "vtt", ".srt": "srt", ".ass": "ass"}
_PLAIN = str.maketrans("{}\\", "()/")  # pysubs2 reads markup in these
LINE = 42  # characters of a line that viewers read with ease (a common rule of broadcasters)
SHORTEST = 0.8  # seconds a cue stays at least, where the next one leaves room
LAST = 4.0  # seconds the last cue stays where nobody says when the video ends


class Subtitles:
    """Collects cues on the video's own timeline and writes the file when the stream ends.

    A cue begins with its frame and stays until the next caption. Neighbours that say the same are
    one cue. For films; a camera that never ends belongs in ``SqliteLog``.

    path : ends in .vtt, .srt or .ass; written to a neighbour first, then renamed
    longest : seconds after which a cue goes even where no other follows

    Raises SinkError for another ending or a folder that cannot be written.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        longest: float = 30.0,
        name: str = "subtitles",
    ) -> None:
        self.name = name
        self._path = check_path(path)
        self._longest = longest
        self._cues: list[tuple[float, float | None, str]] = []
        self._zero: float | None = None  # where a source without a timeline began

    def write(self, event: Event) -> None:
        """Begin a cue at the event's frame."""
        told = as_told(event)
        if told.verdict == REPEAT:
            return
        start = event.pts
        if start is None:
            self._zero = event.captured_at if self._zero is None else self._zero
            start = event.captured_at - self._zero
        self.add(start, None, told.sentence)

    def add(self, start: float, end: float | None, text: str) -> None:
        """Add a cue, in seconds; ``end`` None: until the next. Empty text ends the one before."""
        self._cues.append((max(0.0, start), end, text))

    def close(self) -> None:
        """Write the file, whole or not at all."""
        write_subtitles(self._path, self._timed())

    def _timed(self) -> list[tuple[float, float, str]]:
        cues = sorted(self._cues, key=lambda cue: cue[0])
        timed: list[tuple[float, float, str]] = []
        for index, (start, end, text) in enumerate(cues):
            following = cues[index + 1][0] if index + 1 < len(cues) else None
            if end is None:
                end = start + LAST if following is None else following
            end = min(max(end, start + SHORTEST), start + self._longest)
            if following is not None:
                end = min(end, following)
            if not text or end <= start:
                continue
            if timed and timed[-1][2] == text and start - timed[-1][1] < 0.001:
                timed[-1] = (timed[-1][0], end, text)
            else:
                timed.append((start, end, text))
        return timed


def check_path(path: str | PathLike[str]) -> Path:
    """The path of a subtitle file, of a kind that can be written, in a folder that exists."""
    target = Path(path)
    if target.suffix.lower() not in FORMATS:
        raise SinkError(f"{target} is no subtitle file; give a name in {', '.join(FORMATS)}")
    if not os.access(target.parent, os.W_OK | os.X_OK) or target.is_dir():
        raise SinkError(f"{target} cannot be written; give a file in a folder that exists")
    return target


def write_subtitles(path: Path, cues: list[tuple[float, float, str]]) -> None:
    """Write cues (start and end in seconds, text) in the format that the name's ending says."""
    text = format_subtitles(cues, FORMATS[path.suffix.lower()])
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(text)
        mask = os.umask(0)  # mkstemp makes it private; a subtitle file is not
        os.umask(mask)
        os.chmod(draft, 0o666 & ~mask)
        os.replace(draft, path)
    except BaseException:
        os.unlink(draft)
        raise


def format_subtitles(cues: list[tuple[float, float, str]], kind: str) -> str:
    """Cues as the text of a ``kind`` of file, wrapped in lines of 42 characters at most."""
    import textwrap

    import pysubs2

    subtitles = pysubs2.SSAFile()
    for start, end, text in cues:
        text = text.translate(_PLAIN)
        if kind == "vtt":
            text = escape(text, quote=False)  # & and < open markup in WebVTT
        lines = textwrap.wrap(text, LINE, break_long_words=False, break_on_hyphens=False)
        cue = pysubs2.SSAEvent(start=pysubs2.make_time(s=start), end=pysubs2.make_time(s=end))
        cue.text = r"\N".join(lines)
        subtitles.append(cue)
    return str(subtitles.to_string(kind))
