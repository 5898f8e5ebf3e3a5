"""Speech through a real sound server, heard as its loudspeaker would give it.

piper runs as it is, with a voice that was made here: a tone for each of its phonemes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import wave
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edgecap.runtime.errors import SinkError
from edgecap.runtime.streams.event import Event
from edgecap.runtime.streams.sinks.piper import Piper
from edgecap.runtime.streams.sinks.speech import Speech
from edgecap.runtime.streams.sinks.voices import EspeakNg, Voice
from edgecap.runtime.streams.told import Note, tell

for program in ("espeak-ng", "pulseaudio", "parec"):
    if shutil.which(program) is None:
        pytest.skip(f"no {program} on this machine", allow_module_level=True)

Make = Callable[..., Event]
ALSA = """
pcm_type.pulse { lib "libasound_module_pcm_pulse.so" }
pcm.!default { type pulse }
"""
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
        alsa = folder / "alsa.conf"
        alsa.write_text(ALSA)
        self.environment = {
            "PULSE_SERVER": f"unix:{place}", "XDG_RUNTIME_DIR": str(folder),
            "ALSA_CONFIG_PATH": str(alsa),
        }  # fmt: skip
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


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A voice for piper of 16,000 samples a second: 37.5 ms at 440 Hz for each phoneme."""
    if shutil.which("aplay") is None:
        pytest.skip("no aplay on this machine")
    onnx = pytest.importorskip("onnx")
    phonemes = pytest.importorskip("piper.phoneme_ids", reason="no piper-tts here")
    from onnx import TensorProto, helper, numpy_helper

    def constant(name: str, value: object, dtype: type) -> onnx.TensorProto:
        return numpy_helper.from_array(np.array(value, dtype), name)

    nodes = [
        helper.make_node("Size", ["input"], ["phonemes"]),
        helper.make_node("Mul", ["phonemes", "long"], ["samples"]),
        helper.make_node("Range", ["zero", "samples", "one"], ["indices"]),
        helper.make_node("Cast", ["indices"], ["times"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["times", "turn"], ["angles"]),
        helper.make_node("Sin", ["angles"], ["wave"]),
        helper.make_node("Reshape", ["wave", "shape"], ["output"]),
    ]
    values = [
        constant("long", 600, np.int64), constant("zero", 0, np.int64),
        constant("one", 1, np.int64), constant("turn", 2 * np.pi * 440 / 16000, np.float32),
        constant("shape", [1, 1, 1, -1], np.int64),
    ]  # fmt: skip
    inputs = [
        helper.make_tensor_value_info("input", TensorProto.INT64, [1, None]),
        helper.make_tensor_value_info("input_lengths", TensorProto.INT64, [1]),
        helper.make_tensor_value_info("scales", TensorProto.FLOAT, [3]),
    ]
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 1, 1, None])
    graph = helper.make_graph(nodes, "tones", inputs, [output], values)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path_factory.mktemp("voice") / "tones.onnx"
    onnx.save(made, path)
    described = {
        "audio": {"sample_rate": 16000}, "espeak": {"voice": "en-us"}, "num_symbols": 256,
        "num_speakers": 1, "phoneme_id_map": phonemes.DEFAULT_PHONEME_ID_MAP,
    }  # fmt: skip
    Path(f"{path}.json").write_text(json.dumps(described))
    return path


@pytest.fixture(params=["espeak-ng", "piper"])
def voice(request: pytest.FixtureRequest, speaker: Speaker) -> Voice:
    if request.param == "espeak-ng":
        return EspeakNg()
    return Piper(request.getfixturevalue("tones"))


def test_a_sentence_is_heard(voice: Voice, speaker: Speaker, make_event: Make) -> None:
    assert speaker.loud() == 0.0
    sink = Speech(voice, max_age=WAIT)
    sink.write(tell(make_event(), sentence="A man walks through a corridor."))
    wait_until(lambda: sink.counts["said"])
    sink.close()
    assert sink.counts["failed"] == 0
    wait_until(lambda: speaker.loud() > 0.8)
    assert speaker.loud() < 4.0


def test_what_comes_nearer_cuts_a_sentence_short(
    voice: Voice, speaker: Speaker, make_event: Make
) -> None:
    sink = Speech(voice, max_age=WAIT)
    sink.write(tell(make_event("x", 0), sentence=LONG))
    wait_until(lambda: speaker.loud() > 0.5)
    note = Note("alert", "nearer", "someone", "Careful, someone comes nearer.")
    sink.write(tell(make_event("x", 1), sentence=note.sentence, notes=(note,)))
    wait_until(lambda: sink.counts["said"])
    sink.close()
    assert (sink.counts["interrupted"], sink.counts["said"]) == (1, 1)
    # All of the long sentence takes over fifteen seconds; what was queued of it is not played.
    assert 1.0 < speaker.loud() < 8.0


def test_piper_writes_files(tones: Path, tmp_path: Path, make_event: Make) -> None:
    sink = Speech(Piper(tones), folder=tmp_path)
    sink.write(tell(make_event("x", 7), sentence="A dog."))
    sink.close()
    assert sink.counts["said"] == 1
    with wave.open(str(tmp_path / "00000007.wav")) as sound:
        assert sound.getframerate() == 16000
        assert sound.getnframes() % 600 == 0
        assert sound.getnframes() > 3000


def test_the_piper_that_waits_is_used_and_ended(
    tones: Path, speaker: Speaker, make_event: Make
) -> None:
    piper = Piper(tones)
    sink = Speech(piper, max_age=WAIT)
    piper.prepare()
    waiting = piper._next
    piper.prepare()
    assert waiting is not None
    assert piper._next is waiting
    sink.write(tell(make_event("x", 0), sentence="A dog."))
    wait_until(lambda: sink.counts["said"])
    assert waiting.process.returncode == 0
    following = piper._next
    assert following is not None
    following.kill()  # by somebody short of memory, say
    following.process.wait()
    sink.write(tell(make_event("x", 1), sentence="A dog."))
    wait_until(lambda: sink.counts["said"] == 2)
    last = piper._next
    sink.close()
    assert last is not None
    assert last.process.returncode == -9
    assert piper._next is None


def test_a_voice_that_is_none(
    tones: Path,
    tmp_path: Path,
    speaker: Speaker,
    make_event: Make,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(SinkError, match=r"no piper voice; give an .onnx file with its"):
        Piper(tmp_path / "voice.onnx")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(tones.read_bytes()[:100])
    shutil.copy(f"{tones}.json", f"{broken}.json")
    sink = Speech(Piper(broken), max_age=WAIT)
    sink.write(tell(make_event("x", 0), sentence="A dog."))
    wait_until(lambda: sink.counts["failed"])
    sink.close()
    assert "InvalidProtobuf" in caplog.text
    assert sink.counts["said"] == 0
