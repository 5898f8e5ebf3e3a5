"""The neural synthesiser piper, in programs of its own: it is under the GPL-3.0."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from os import PathLike
from pathlib import Path

from edgecap.runtime.errors import SinkError
from edgecap.runtime.streams.sinks.voices import Program

NO_VOICE = "give an .onnx file with its .onnx.json beside it"


class Piper:
    """piper with a voice that is on this machine.

    model : the voice's ``.onnx`` file, its ``.onnx.json`` beside it

    Sound goes through aplay (ALSA). A piper takes seconds to load its voice, so one that has done
    so always waits for the next sentence; a sentence that is cut short costs one.
    Raises SinkError where piper, the voice or aplay is absent.
    """

    def __init__(self, model: str | PathLike[str]) -> None:
        self.model = Path(model)
        self._piper = _found("piper", "pip install piper-tts")
        self._aplay = _found("aplay", "apt install alsa-utils")
        self._rate = str(_samples_a_second(self.model))
        self._next: Program | None = None

    def start(self, text: str, wav: Path | None) -> Program | Played:
        """piper, and aplay behind it unless a file is wanted."""
        if wav is not None:
            writes = Program([self._piper, "--model", str(self.model), "--output-file", str(wav)])
            writes.give(text)
            return writes
        self.prepare()
        speaks, self._next = self._next, None
        assert speaks is not None
        words = [self._aplay, "-q", "-t", "raw", "-f", "S16_LE", "-c", "1", "-r", self._rate]
        assert speaks.process.stdout is not None
        with speaks.process.stdout as sound:  # aplay alone is to hold it: when it ends, piper does
            plays = Program(words, source=sound)
        speaks.give(text)
        return Played(self, speaks, plays)

    def prepare(self) -> None:
        """Have a piper load the voice, for the next sentence, if none is there."""
        if self._next is not None and self._next.process.poll() is not None:
            self._next.wait()
            self._next = None
        if self._next is None:
            words = [self._piper, "--model", str(self.model), "--output-raw"]
            self._next = Program(words, sink=subprocess.PIPE)

    def close(self) -> None:
        """End the piper that waits."""
        if self._next is not None:
            self._next.kill()
            self._next.wait()
            self._next.process.communicate()  # closes its pipes
            self._next = None


class Played:
    """A sentence on its way through piper and aplay."""

    def __init__(self, piper: Piper, speaks: Program, plays: Program) -> None:
        self._piper = piper
        self._speaks = speaks
        self._plays = plays

    def kill(self) -> None:
        self._plays.kill()
        self._speaks.kill()

    def wait(self) -> str | None:
        """Wait until it was played; why it was not, else None."""
        unsaid = self._speaks.wait()
        self._piper.prepare()  # not before: the two would fight for the cores
        return self._plays.wait() or unsaid


def _found(program: str, remedy: str) -> str:
    """Where a program is; packages of this Python may lie outside PATH."""
    places = os.pathsep.join((os.environ.get("PATH", ""), os.path.dirname(sys.executable)))
    found = shutil.which(program, path=places)
    if found is None:
        raise SinkError(f"{program} is not installed ({remedy}); or leave the voice out")
    return found


def _samples_a_second(model: Path) -> int:
    import msgspec

    try:
        if not model.is_file():
            raise FileNotFoundError
        described = msgspec.json.decode(Path(f"{model}.json").read_bytes())
        return int(described["audio"]["sample_rate"])
    except (OSError, ValueError, KeyError, TypeError):
        raise SinkError(f"{model} is no piper voice; {NO_VOICE}") from None
