"""Speech through a real sound server, heard as its loudspeaker would give it."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edgecap.runtime.streams.event import Event
from edgecap.runtime.streams.sinks.speech import Speech
from edgecap.runtime.streams.told import Note, tell

for program in ("espeak-ng", "pulseaudio", "parec"):
    if shutil.which(program) is None:
        pytest.skip(f"no {program} on this machine", allow_module_level=True)

Make = Callable[..., Event]
RATE = 8000  # samples a second that are recorded
WAIT = 30.0
LONG = "this is a very long sentence that nobody has the time to hear to its end " * 4


class Speaker:
    """PulseAudio with one loudspeaker that plays to nobody, and a recorder at its end."""

    def __init__(self, folder: Path) -> None:
        place = folder / "server"
        self._record = folder / "heard.raw"
        modules = (
            "module-null-sink sink_name=speaker",
            f"module-native-protocol-unix auth-anonymous=1 socket={place}",
        )
        words = ["--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no", "-n"]
        words += [word for module in modules for word in ("-L", module)]
        self.environment = {"PULSE_SERVER": f"unix:{place}", "XDG_RUNTIME_DIR": str(folder)}
        surroundings = {**os.environ, **self.environment, "HOME": str(folder)}
        self._server = subprocess.Popen(
            ["pulseaudio", *words], stderr=subprocess.DEVNULL, env=surroundings
        )
        until = time.monotonic() + WAIT
        while not place.exists():
            assert self._server.poll() is None
            assert time.monotonic() < until
            time.sleep(0.02)
        with self._record.open("wb") as file:
            self._recorder = subprocess.Popen(
                [
                    "parec", "--device=speaker.monitor", "--raw", "--format=s16le",
                    f"--rate={RATE}", "--channels=1", "--latency-msec=20",
                ],
                stdout=file, env=surroundings,
            )  # fmt: skip
        while not self._record.stat().st_size:
            assert time.monotonic() < until
            time.sleep(0.02)

    def loud(self) -> float:
        """Seconds in which something was to be heard, so far."""
        heard = np.fromfile(self._record, np.int16)
        parts = heard[: len(heard) // 80 * 80].reshape(-1, 80)  # of 10 ms
        return float((np.abs(parts.astype(np.int32)).max(axis=1) > 300).sum()) / 100.0

    def close(self) -> None:
        for process in (self._recorder, self._server):
            process.terminate()
            process.wait(WAIT)


@pytest.fixture
def speaker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Speaker]:
    made = Speaker(tmp_path)
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    yield made
    made.close()


def wait_until(condition: Callable[[], object]) -> None:
    until = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_sentence_is_heard(speaker: Speaker, make_event: Make) -> None:
    assert speaker.loud() == 0.0
    sink = Speech(max_age=WAIT)
    sink.write(tell(make_event(), sentence="A man walks through a corridor."))
    wait_until(lambda: sink.counts["said"])
    sink.close()
    assert sink.counts["failed"] == 0
    wait_until(lambda: speaker.loud() > 0.8)
    assert speaker.loud() < 4.0


def test_what_comes_nearer_cuts_a_sentence_short(speaker: Speaker, make_event: Make) -> None:
    sink = Speech(max_age=WAIT)
    sink.write(tell(make_event("x", 0), sentence=LONG))
    wait_until(lambda: speaker.loud() > 0.5)
    note = Note("alert", "nearer", "someone", "Careful, someone comes nearer.")
    sink.write(tell(make_event("x", 1), sentence=note.sentence, notes=(note,)))
    wait_until(lambda: sink.counts["said"])
    sink.close()
    assert (sink.counts["interrupted"], sink.counts["said"]) == (1, 1)
    # All of the long sentence takes over fifteen seconds; what was queued of it is not played.
    assert 1.0 < speaker.loud() < 8.0
