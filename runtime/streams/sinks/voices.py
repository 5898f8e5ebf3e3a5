"""Programs that turn a sentence into sound: espeak-ng, and piper where a voice is installed."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edgecap.runtime.errors import SinkError


class Voice(Protocol):
    """Starts a process that says a sentence and ends when it has been said."""

    def start(self, text: str, wav: Path | None) -> subprocess.Popen[bytes]:
        """Say ``text`` aloud, or write it to the file ``wav``. The process may be killed."""


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

    def start(self, text: str, wav: Path | None) -> subprocess.Popen[bytes]:
        """One process of espeak-ng."""
        command = ["espeak-ng", "-v", self.voice, "-s", str(self.speed), "--stdin"]
        return _start(command + (["-w", str(wav)] if wav else []), text)


@dataclass(frozen=True)
class Piper:
    """The neural synthesiser piper with a voice that is on this machine.

    model : the voice's ``.onnx`` file, its ``.onnx.json`` beside it

    Sound goes through aplay (ALSA). Raises SinkError where piper, the voice or aplay is absent.
    """

    model: Path

    def __post_init__(self) -> None:
        for program, package in (("piper", "pip install piper-tts"), ("aplay", "alsa-utils")):
            if shutil.which(program) is None:
                raise SinkError(f"{program} is not installed ({package}); or leave the model out")
        self.rate()

    def rate(self) -> int:
        """Samples a second, as the voice's description says."""
        import msgspec

        described = Path(f"{self.model}.json")
        try:
            found = msgspec.json.decode(described.read_bytes())
            return int(found["audio"]["sample_rate"])
        except (OSError, ValueError, KeyError, TypeError):
            raise SinkError(
                f"{self.model} is no piper voice; give an .onnx file with its .onnx.json beside it"
            ) from None

    def start(self, text: str, wav: Path | None) -> subprocess.Popen[bytes]:
        """piper, and aplay behind it unless a file is wanted; killing the last ends both."""
        command = ["piper", "--model", str(self.model)]
        if wav:
            return _start([*command, "--output-file", str(wav)], text)
        speaks = _start([*command, "--output-raw"], text, stdout=subprocess.PIPE)
        play = ["aplay", "-q", "-t", "raw", "-f", "S16_LE", "-c", "1", "-r", str(self.rate())]
        player = subprocess.Popen(play, stdin=speaks.stdout, stderr=subprocess.PIPE)
        assert speaks.stdout is not None
        speaks.stdout.close()  # aplay alone holds it: when aplay ends, piper does
        return player


def _start(command: list[str], text: str, stdout: int = subprocess.DEVNULL) -> subprocess.Popen:  # type: ignore[type-arg]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=stdout, stderr=subprocess.PIPE
    )
    assert process.stdin is not None
    try:
        process.stdin.write(text.encode("utf-8", "replace") + b"\n")
        process.stdin.close()
    except BrokenPipeError:
        pass  # it has failed already; its exit tells
    process.stdin = None  # so that communicate() does not flush it again
    return process
