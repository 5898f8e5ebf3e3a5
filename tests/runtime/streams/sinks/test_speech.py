"""Speech through the real espeak-ng: WAV files, and sound into a pipe that holds it back."""

from __future__ import annotations

import os
import shutil
import threading
import time
import wave
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgecap.runtime.errors import SinkError
from edgecap.runtime.streams.event import Event, Latency, Notice
from edgecap.runtime.streams.sinks.piper import Piper
from edgecap.runtime.streams.sinks.speech import Speech
from edgecap.runtime.streams.sinks.voices import EspeakNg, Program
from edgecap.runtime.streams.told import Note, Told, tell

if shutil.which("espeak-ng") is None:
    pytest.skip("no espeak-ng on this machine", allow_module_level=True)

Make = Callable[..., Event]
WAIT = 60.0
LONG = "this is a very long sentence that nobody has the time to hear to its end " * 4


def seconds(path: Path) -> float:
    with wave.open(str(path)) as sound:
        return sound.getnframes() / sound.getframerate()


def wait_until(condition: Callable[[], object]) -> None:
    until = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


def test_every_sentence_becomes_a_whole_wav(tmp_path: Path, make_event: Make) -> None:
    sink = Speech(folder=tmp_path)
    texts = ["A dog.", LONG, "-w /tmp/not-an-option.wav", "Ein Bär, 犬."]
    for frame, text in enumerate(texts):
        sink.write(tell(make_event("x", frame), sentence=text))
    sink.write(tell(make_event("x", 9), sentence="again", verdict="repeat"))
    sink.write(tell(make_event("x", 10), sentence=""))  # a profile that stays silent
    sink.close()
    assert sorted(os.listdir(tmp_path)) == [f"{frame:08d}.wav" for frame in range(4)]
    lengths = [seconds(tmp_path / f"{frame:08d}.wav") for frame in range(4)]
    assert lengths[1] > 5 * lengths[0] > 0.0
    assert lengths[2] > lengths[0]
    assert sink.counts == {"said": 4, "replaced": 0}
    assert not Path("/tmp/not-an-option.wav").exists()


def test_words_a_minute(tmp_path: Path, make_event: Make) -> None:
    lengths = []
    for speed in (120, 300):
        folder = tmp_path / str(speed)
        folder.mkdir()
        sink = Speech(EspeakNg(speed=speed), folder=folder)
        sink.write(tell(make_event(), sentence=LONG))
        sink.close()
        lengths.append(seconds(folder / "00000000.wav"))
    assert lengths[0] > 1.8 * lengths[1]


class Pipe:
    """The sound device: a pipe into which espeak-ng plays and that is read when the test wants."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "sound"
        os.mkfifo(self.path)
        self._handle = os.open(self.path, os.O_RDWR | os.O_NONBLOCK)
        (folder / "alsa.conf").write_text(
            "pcm.null { type null }\n"
            f'pcm.!default {{ type file slave.pcm null file "{self.path}" format raw }}\n'
            "ctl.!default { type hw card 0 }\n"
        )
        self.conf = folder / "alsa.conf"
        self._reading = threading.Event()
        self._ended = threading.Event()
        self.heard = 0
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def listen(self) -> None:
        self._reading.set()

    def _read(self) -> None:
        while not self._ended.is_set():
            try:
                if self._reading.wait(0.01):
                    self.heard += len(os.read(self._handle, 65536))
            except BlockingIOError:
                time.sleep(0.002)

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        os.close(self._handle)


@pytest.fixture
def sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipe]:
    pipe = Pipe(tmp_path)
    monkeypatch.setenv("ALSA_CONFIG_PATH", str(pipe.conf))
    monkeypatch.setenv("PULSE_SERVER", "/no/server")
    probe = Speech()
    probe.write(tell(stream_event(), sentence="Hello."))
    probe.close()
    if probe.counts["said"] != 1:
        pipe.close()
        pytest.skip("this espeak-ng does not play through ALSA's file device")
    yield pipe
    pipe.listen()
    pipe.close()


def stream_event() -> Event:
    import stream_events

    return stream_events.event()


def alert(event: Event, sentence: str) -> Told:
    return tell(event, sentence=sentence, notes=(Note("alert", "car", "car", sentence),))


def begun(sink: Speech) -> None:
    wait_until(lambda: sink._sounding is not None)


def test_a_hazard_cuts_a_sentence_short(sound: Pipe, make_event: Make) -> None:
    """The long sentence's process is blocked by the full pipe: only a kill can end it."""
    sink = Speech(max_age=WAIT)
    sink.write(tell(make_event(), sentence=LONG))
    begun(sink)
    assert isinstance(sink._sounding, Program)
    process = sink._sounding.process
    sink.write(tell(make_event("x", 1), sentence="A tree."))  # no hazard: waits
    assert process.poll() is None
    sink.write(alert(make_event("x", 2), "Careful: a car."))  # takes the place of the tree
    wait_until(lambda: process.poll() is not None)
    assert process.returncode == -9
    sound.listen()
    sink.close()
    assert sink.counts == {"interrupted": 1, "replaced": 1, "said": 1}
    assert sound.heard > 0


def test_a_hazard_that_waits_is_not_replaced(sound: Pipe, make_event: Make) -> None:
    sink = Speech(max_age=WAIT)
    sink.write(alert(make_event(), LONG))
    begun(sink)
    sink.write(alert(make_event("x", 1), "Careful: a car."))
    sink.write(tell(make_event("x", 2), sentence="A tree."))
    assert sink._waiting is not None
    assert sink._waiting.text == "Careful: a car."
    sound.listen()
    sink.close()
    assert sink.counts == {"said": 2, "replaced": 1}


def test_always_and_never(sound: Pipe, make_event: Make) -> None:
    sink = Speech(interrupt="always", max_age=WAIT)
    sink.write(tell(make_event(), sentence=LONG))
    begun(sink)
    sink.write(tell(make_event("x", 1), sentence="A tree."))
    sound.listen()
    sink.close()
    assert sink.counts == {"interrupted": 1, "said": 1, "replaced": 0}

    sink = Speech(interrupt="never", max_age=WAIT)
    sink.write(tell(make_event(), sentence=LONG))
    begun(sink)
    sink.write(alert(make_event("x", 1), "Careful: a car."))
    sink.close()
    assert sink.counts == {"said": 2, "replaced": 0}


def test_a_camera_that_cannot_be_relied_upon_is_told(sound: Pipe) -> None:
    sound.listen()
    sink = Speech(max_age=WAIT)
    sink.notice(Notice("porch", "governor", "quality is lowered", 0.0))  # nobody needs to hear it
    sink.notice(Notice("porch", "frozen", "rtsp://camera shows the same", 0.0))
    sink.close()
    assert sink.counts == {"said": 1, "replaced": 0}


def test_nothing_is_said_too_late(sound: Pipe, make_event: Make) -> None:
    sink = Speech(max_age=1.5, interrupt="never")
    late = Latency(0.0, 0.0, 0.0, 0.0, 2000.0)
    sink.write(tell(make_event(latency_ms=late), sentence="Two seconds ago."))
    sound.listen()
    sink.close()
    assert sink.counts == {"stale": 1, "replaced": 0}


def test_no_sound_device_is_told_once(
    make_event: Make,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    conf = tmp_path / "alsa.conf"
    conf.write_text("pcm.!default { type hw card 77 }\n")
    monkeypatch.setenv("ALSA_CONFIG_PATH", str(conf))
    monkeypatch.setenv("PULSE_SERVER", "/no/server")
    sink = Speech(folder=None, max_age=WAIT)
    for frame in range(2):
        sink.write(tell(make_event("x", frame), sentence="Hello."))
        wait_until(lambda: sum(sink.counts.values()) >= frame + 1)  # noqa: B023
    sink.close()
    assert sink.counts["failed"] == 2
    assert caplog.text.count("cannot speak") == 1


def test_bad_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for make, part in (
        (lambda: EspeakNg(voice="klingonese"), "--voices"),
        (lambda: EspeakNg(speed=10), "speed is 10"),
        (lambda: Speech(interrupt="sometimes"), "alerts, always, never"),
        (lambda: Speech(max_age=float("nan")), "max_age"),
        (lambda: Speech(folder=tmp_path / "none"), "is no folder"),
    ):
        with pytest.raises(SinkError, match=part):
            make()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    with pytest.raises(SinkError, match="apt install espeak-ng"):
        EspeakNg()
    with pytest.raises(SinkError, match="piper is not installed"):
        Piper(tmp_path / "voice.onnx")
