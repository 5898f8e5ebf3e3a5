"""What turns a sentence into sound, and the synthesiser espeak-ng."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from edgecap.runtime.errors import SinkError


class Saying(Protocol):
    """A sentence that is being said."""

    def kill(self) -> None:
        """End it now; from any thread."""

    def wait(self) -> str | None:
        """Wait for its end; why it was not said, None where it was (or was killed)."""


class Voice(Protocol):
    """Says sentences, or writes them to files."""

    def start(self, text: str, wav: Path | None) -> Saying:
        """Say ``text`` aloud, or write it to the file ``wav``."""

    def close(self) -> None:
        """Free what the voice holds; called once, when nothing is being said."""


class Program:
    """A program that reads text and says it, or plays what another one says.

    words : its command line
    source : where it reads from, by default ``give``
    sink : where its standard output goes, by default nowhere
    """

    def __init__(
        self,
        words: Sequence[str],
        source: int | IO[bytes] = subprocess.PIPE,
        sink: int = subprocess.DEVNULL,
    ) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  lives as long as the program
        try:
            self.process = subprocess.Popen(words, stdin=source, stdout=sink, stderr=self._errors)
        except BaseException:
            self._errors.close()
            raise

    def give(self, text: str) -> None:
        """The text that it says, its only one."""
        assert self.process.stdin is not None
        try:
            with self.process.stdin as stdin:
                stdin.write(text.encode("utf-8", "replace") + b"\n")
        except BrokenPipeError:
            pass  # it has failed already; its exit tells

    def kill(self) -> None:
        self.process.kill()

    def wait(self) -> str | None:
        """Wait for its end; what it failed with, else None."""
        code = self.process.wait()
        with self._errors as file:
            file.seek(0)
            last = file.read().decode("utf-8", "replace").strip().splitlines()[-1:]
        # espeak-ng ends with 0 even where there is no sound device.
        if code or (last and last[0].lower().startswith("error")):
            return last[0] if last else f"exit code {code}"
        return None


@dataclass(frozen=True)
class EspeakNg:
    """The formant synthesiser espeak-ng: small, at once, more than a hundred languages.

    voice : one of ``espeak-ng --voices``
    speed : words a minute, 80 to 450

    Raises SinkError where espeak-ng is absent or does not have the voice.
    """

    voice: str = "en"
    speed: int = 175

    def __post_init__(self) -> None:
        if isinstance(self.speed, bool) or not 80 <= self.speed <= 450:
            raise SinkError(f"speed is {self.speed!r}; give 80 to 450 words a minute")
        if shutil.which("espeak-ng") is None:
            raise SinkError(
                "espeak-ng is not installed; apt install espeak-ng, or give a piper voice"
            )
        tried = subprocess.run(
            ["espeak-ng", "-q", "-v", self.voice, "--stdin"], input=b"a", capture_output=True
        )
        if tried.returncode:
            raise SinkError(
                f"espeak-ng has no voice {self.voice!r}; `espeak-ng --voices` lists what it has"
            )

    def start(self, text: str, wav: Path | None) -> Program:
        """One process of espeak-ng."""
        command = ["espeak-ng", "-v", self.voice, "-s", str(self.speed), "--stdin"]
        program = Program(command + (["-w", str(wav)] if wav else []))
        program.give(text)
        return program

    def close(self) -> None:
        """Nothing is kept between sentences."""
