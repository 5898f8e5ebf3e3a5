"""Annotated video: which frame bears which caption, decoded again; full queues and full disks."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecap.runtime.errors import SinkError
from edgecap.runtime.streams import Frame, Pipeline, StreamOptions, open_source
from edgecap.runtime.streams.event import Event
from edgecap.runtime.streams.sinks.base import SinkGone
from edgecap.runtime.streams.sinks.frames import AHEAD, FrameSink, Watcher
from edgecap.runtime.streams.sinks.overlay import as_ascii, draw_caption
from edgecap.runtime.streams.sinks.window import Window
from edgecap.runtime.streams.told import Note, as_told, tell

Make = Callable[..., Event]


def frame(index: int, level: int = 120) -> Frame:
    image = np.full((180, 320, 3), level, np.uint8)
    return Frame(image, index, 0.0, 0.0, index / 10, "test")


class Shown(FrameSink):
    """Keeps what it should show, or fails as told."""

    def __init__(self, *, patient: bool = True, fail: bool = False) -> None:
        self.shown: list[tuple[float, bool]] = []
        self.ended = 0
        self.fail = fail
        self.go = threading.Event()
        self.go.set()
        super().__init__("shown", patient=patient)

    def _show(self, image: np.ndarray, seconds: float) -> None:
        self.go.wait(60)
        if self.fail:
            raise OSError("disk full")
        band = image[-5:].mean() < image[:5].mean() - 20  # the caption's dark band
        self.shown.append((round(seconds, 3), bool(band)))

    def _end(self) -> None:
        self.ended += 1


def test_each_frame_bears_the_caption_that_holds_for_it(make_event: Make) -> None:
    sink = Shown()
    assert isinstance(sink, Watcher)
    sink.see(frame(0), passed=False)  # nothing has been captioned yet
    sink.see(frame(1), passed=True)
    sink.see(frame(2), passed=False)
    sink.write(make_event("a dog", 1))  # comes after the next frame has been seen
    sink.see(frame(3), passed=True)
    sink.write(tell(make_event("", 3, sure=False), sentence=""))
    sink.close()
    assert sink.shown == [(0.0, False), (0.1, True), (0.2, True), (0.3, False)]
    assert sink.ended == 1


def test_a_slow_live_sink_gives_up_the_oldest_frames() -> None:
    sink = Shown(patient=False)
    sink.go.clear()
    for index in range(AHEAD + 10):
        sink.see(frame(index), passed=False)
    assert 9 <= sink.dropped <= 10  # one may be in the sink's hands
    sink.go.set()
    sink.close()
    assert len(sink.shown) + sink.dropped == AHEAD + 10
    times = [seconds for seconds, _ in sink.shown]  # from the first that was shown
    newest = times[-AHEAD:]
    assert newest[-1] - newest[0] == pytest.approx((AHEAD - 1) / 10)


def test_a_failed_drawing_is_told_once_then_gone(make_event: Make) -> None:
    sink = Shown(fail=True)
    for index in range(3 * AHEAD):  # must not wait for a thread that has ended
        sink.see(frame(index), passed=False)
    sink._thread.join(60)
    with pytest.raises(OSError, match="disk full"):
        sink.write(make_event())
    with pytest.raises(SinkGone):
        sink.write(make_event())
    sink.close()
    assert sink.ended == 1


def test_a_caption_that_never_comes_holds_nothing_up(make_event: Make) -> None:
    sink = Shown()
    sink.see(frame(0), passed=True)
    sink.write(make_event("a dog", 0))
    for index in range(1, 4):  # passed the gate, but the profile did not tell them again
        sink.see(frame(index), passed=True)
    until = time.monotonic() + 60
    while len(sink.shown) < 3:
        assert time.monotonic() < until
        time.sleep(0.01)
    sink.close()
    assert sink.shown == [(0.0, True), (0.1, True), (0.2, True), (0.3, True)]


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv", "out.mov"])
def test_a_file_with_every_frame_at_its_time(
    tmp_path: Path,
    name: str,
    make_video: Callable[..., Path],
    captioner: Callable[..., Any],
) -> None:
    av = pytest.importorskip("av", reason="PyAV writes the file")
    from edgecap.runtime.streams.sinks.annotated_video import AnnotatedVideo

    path = tmp_path / name
    sink = AnnotatedVideo(path, patient=True)
    options = StreamOptions(gate="none")
    with open_source(make_video(), realtime=False) as source:
        Pipeline(source, captioner, sinks=[sink], options=options).run()
    with av.open(str(path)) as video:
        frames = [(f.time, f.to_ndarray(format="bgr24")) for f in video.decode(video=0)]
    assert len(frames) == 20
    start = frames[0][0]
    times = [time - start for time, _ in frames]
    assert times == pytest.approx([index / 25 for index in range(20)], abs=0.02)
    for index, (_, image) in enumerate(frames):
        assert abs(float(np.median(image[:8])) - 8 * index) < 12  # the picture itself
    assert (frames[19][1][-14:].max(axis=2) > 200).any()  # letters in the band
    assert not [file for file in tmp_path.iterdir() if ".part" in file.name]


def test_odd_and_changing_sizes(tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="PyAV writes the file")
    from edgecap.runtime.streams.sinks.annotated_video import AnnotatedVideo

    sink = AnnotatedVideo(tmp_path / "odd.mp4", patient=True)
    sizes = [(101, 75), (101, 75), (50, 200)]
    for index, (height, width) in enumerate(sizes):
        image = np.full((height, width, 3), 90, np.uint8)
        # The third frame's clock went backwards.
        sink.see(Frame(image, index, 0.0, [5.0, 5.5, 1.0][index], None, "test"), passed=False)
    sink.close()
    with av.open(str(tmp_path / "odd.mp4")) as video:
        frames = list(video.decode(video=0))
    assert [(f.width, f.height) for f in frames] == [(74, 100)] * 3
    assert frames[0].pts < frames[1].pts < frames[2].pts


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
def test_a_full_disk_ends_the_video_and_holds_nobody(
    small_disk: Path, make_event: Make, name: str
) -> None:
    pytest.importorskip("av", reason="PyAV writes the file")
    from edgecap.runtime.streams.sinks.annotated_video import AnnotatedVideo

    sink = AnnotatedVideo(small_disk / name, patient=True)
    generator = np.random.default_rng(0)
    for index in range(3000):  # noise: kilobytes a frame, and 256 KiB to hold it
        if sink._error is not None:
            break
        image = generator.integers(0, 255, (240, 320, 3), np.uint8)
        sink.see(Frame(image, index, 0.0, 0.0, index / 10, "test"), passed=False)
    sink._thread.join(60)
    assert not sink._thread.is_alive()
    with pytest.raises(OSError, match="No space"):
        sink.write(make_event())
    with pytest.raises(SinkGone):
        sink.write(make_event())
    sink.close()
    left = [file.name for file in small_disk.iterdir()]
    assert left == ([".out.part.mkv"] if name == "out.mkv" else [])


def test_a_stream_without_frames_leaves_no_file(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="PyAV writes the file")
    from edgecap.runtime.streams.sinks.annotated_video import AnnotatedVideo

    AnnotatedVideo(tmp_path / "none.mp4").close()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SinkError, match=r"\.mp4, \.mkv"):
        AnnotatedVideo(tmp_path / "out.gif")
    with pytest.raises(SinkError, match="folder that exists"):
        AnnotatedVideo(tmp_path / "no" / "out.mp4")


def test_drawing(make_event: Make) -> None:
    image = np.full((270, 480, 3), 200, np.uint8)
    assert np.array_equal(draw_caption(image, None), image)
    plain = draw_caption(image, as_told(make_event("a dog")))
    doubt = draw_caption(image, as_told(make_event("a dog", sure=False)))
    note = Note("alert", "dog", "dog", "A dog.")
    alert = draw_caption(image, tell(make_event("a dog"), sentence="a dog", notes=(note,)))
    assert image.min() == 200  # the frame itself is untouched
    band = slice(-20, None)
    assert plain[band].max() > 250
    assert np.ptp(plain[band].astype(int), axis=2).max() == 0  # white on grey
    for coloured in (doubt, alert):
        assert np.ptp(coloured[band].astype(int), axis=2).max() > 100
    assert not np.array_equal(doubt, alert)
    huge = draw_caption(image, as_told(make_event("word " * 500)))
    assert np.array_equal(huge[: image.shape[0] // 2], image[: image.shape[0] // 2])
    tiny = draw_caption(np.zeros((8, 8, 3), np.uint8), as_told(make_event("a dog")))
    assert tiny.shape == (8, 8, 3)
    assert as_ascii("Bär 犬") == "Bar ?"


@pytest.fixture
def _no_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)


@pytest.mark.usefixtures("_no_screen")
def test_a_window_without_a_screen_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SinkError, match="no screen here"):
        Window()
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setitem(sys.modules, "pygame", None)
    with pytest.raises(SinkError, match=r"pip install 'edgecap\[window\]'"):
        Window()
