"""Files, folders, devices and patterns: what opens gives its frames, what does not says why."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecap.runtime.errors import EdgeCapError, OptionsError, SourceError
from edgecap.runtime.streams import open_source
from edgecap.runtime.streams.options import SourceOptions
from edgecap.runtime.streams.sources import base, mask_credentials
from edgecap.runtime.streams.sources.base import Camera

MakeVideo = Callable[..., Path]


@pytest.mark.parametrize("name", ["count.avi", "count.mp4"])
def test_a_video_frame_by_frame(make_video: MakeVideo, name: str) -> None:
    with open_source(make_video(name), realtime=False) as source:
        frames = list(source)
    assert [frame.index for frame in frames] == list(range(20))
    levels = [float(frame.image.mean()) for frame in frames]
    assert np.allclose(levels, [8 * index for index in range(20)], atol=4)
    assert np.allclose([frame.pts for frame in frames], [index / 25 for index in range(20)])
    assert all(frame.channels == "BGR" and frame.source.endswith(name) for frame in frames)
    assert [frame.monotonic for frame in frames] == sorted(frame.monotonic for frame in frames)


@pytest.mark.parametrize("clip", ["classroom_480x270.mp4", "street_480x270.mp4"])
def test_a_real_clip_is_read_whole(shared: Path, clip: str) -> None:
    path = shared / "data" / "video_clips" / clip
    capture = cv2.VideoCapture(str(path))
    count, width = (
        int(capture.get(prop)) for prop in (cv2.CAP_PROP_FRAME_COUNT, cv2.CAP_PROP_FRAME_WIDTH)
    )
    capture.release()
    with open_source(f"file://{path}", realtime=False) as source:
        frames = list(source)
    assert len(frames) == count
    assert {frame.image.shape[1] for frame in frames} == {width}


def test_a_looped_video_goes_on_counting(make_video: MakeVideo) -> None:
    with open_source(make_video(frames=3), loop=True, realtime=False) as source:
        frames = [source.read() for _ in range(8)]
    assert [frame.index for frame in frames if frame] == list(range(8))
    assert np.allclose([frame.pts for frame in frames if frame], [i / 25 for i in range(8)])
    assert [round(float(f.image.mean()) / 8) for f in frames if f] == [0, 1, 2, 0, 1, 2, 0, 1]


def test_real_time_is_not_faster_than_the_file(make_video: MakeVideo) -> None:
    with open_source(make_video(frames=6, fps=30.0)) as source:
        assert source.live
        begun = time.monotonic()
        assert len(list(source)) == 6
    assert time.monotonic() - begun >= 5 / 30 * 0.95


def test_cancel_wakes_a_read_that_waits(make_video: MakeVideo) -> None:
    source = open_source(make_video(frames=3, fps=0.2))
    assert source.read() is not None
    got: list[Any] = []
    thread = threading.Thread(target=lambda: got.extend([source.read(), source.read()]))
    thread.start()
    source.cancel()
    thread.join(4.0)  # the second frame would be due after five seconds
    assert not thread.is_alive()
    assert got[1] is None
    source.close()


def test_a_closed_source_holds_nothing_and_reads_none(make_video: MakeVideo) -> None:
    path = make_video()
    source = open_source(path, realtime=False)
    assert source.read() is not None
    assert str(path) in _open_files()
    source.close()
    source.close()
    assert str(path) not in _open_files()
    assert source.read() is None


def test_a_folder_in_the_order_of_its_names(picture_folder: Path) -> None:
    with open_source(f"file://{picture_folder}/".replace(" ", "%20")) as source:
        assert source.stills
        assert not source.live
        frames = list(source)
    assert [Path(frame.source).name for frame in frames] == ["a.jpg", "b.PNG", "c.png"]
    assert [round(float(frame.image.mean())) for frame in frames] == [20, 100, 200]
    assert all(frame.pts is None for frame in frames)


def test_a_folder_leaves_bad_pictures_out(
    picture_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (picture_folder / "b.PNG").write_bytes(b"\x89PNG broken")
    with open_source(picture_folder, loop=True) as source:
        frames = [source.read() for _ in range(4)]
    assert [Path(f.source).name for f in frames if f] == ["a.jpg", "c.png", "a.jpg", "c.png"]
    assert source.lost["unreadable"] == 2
    assert "b.PNG" in caplog.text


def test_colours_of_a_picture_are_bgr(tmp_path: Path) -> None:
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 2] = 255  # OpenCV writes BGR
    cv2.imwrite(str(tmp_path / "red.png"), red)
    with open_source(tmp_path / "red.png") as source:
        frames = list(source)
    assert len(frames) == 1
    assert np.array_equal(frames[0].image, red)


def test_relative_file_addresses(picture_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(picture_folder)
    (picture_folder / "100%25.png").write_bytes((picture_folder / "c.png").read_bytes())
    for address in ("file://a.jpg", "a.jpg", "file://100%25.png", "file://%61.jpg"):
        with open_source(address) as source:
            assert len(list(source)) == 1


@pytest.mark.parametrize("pattern", ["moving", "static", "flashing"])
def test_patterns(pattern: str) -> None:
    address = f"test://{pattern}?width=80&height=60&fps=4&frames=10"
    with open_source(address, realtime=False) as source:
        frames = list(source)
    assert len(frames) == 10
    assert {frame.image.shape for frame in frames} == {(60, 80, 3)}
    different = [not np.array_equal(frames[0].image, frame.image) for frame in frames]
    if pattern == "static":
        assert not any(different)
    elif pattern == "flashing":
        assert different == [False] * 4 + [True] * 4 + [False] * 2
    else:
        assert all(different[1:])


def test_what_cannot_be_opened_says_so_in_one_line(
    tmp_path: Path, make_video: MakeVideo, capfd: pytest.CaptureFixture[str]
) -> None:
    text, empty, folder = tmp_path / "notes.mp4", tmp_path / "empty.mp4", tmp_path / "none"
    text.write_text("this is no video")
    empty.touch()
    folder.mkdir()
    cut = tmp_path / "cut.mp4"
    whole = make_video("whole.mp4").read_bytes()
    cut.write_bytes(whole[: len(whole) // 3])
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    cases = {
        str(tmp_path / "absent.mp4"): "does not exist",
        "": "no source is named",
        "file://": "no source is named",
        "a\0b": "does not exist",
        str(text): "no video that can be read",
        str(empty): "is empty",
        str(cut): "no video that can be read",
        str(folder): "holds no pictures",
        str(fifo): "neither a file nor a folder",
        "ftp://host/file": "file://, v4l2://, rtsp://, test://",
        "csi://0": "unknown kind",
        "987": "/dev/video987 is no camera",
        "/dev/video987": "is no camera",
        "v4l2:///dev/video987": "is no camera",
        f"v4l2://{text}": "is no camera",
        "test://spiral": "moving, static, flashing",
        "test://moving?fps=fast": "whole numbers",
        "test://moving?colour=1": "width",
    }
    for address, part in cases.items():
        with pytest.raises(SourceError) as caught:
            open_source(address)
        assert part in str(caught.value), address
        assert "\n" not in str(caught.value)
    capfd.readouterr()


def test_one_bad_picture_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "bad.jpg"
    path.write_bytes(b"\xff\xd8 not much of a JPEG")
    with open_source(path) as source, pytest.raises(SourceError, match=r"bad\.jpg"):
        source.read()


@pytest.mark.parametrize(
    "options", [{"open_timeout": 0}, {"read_timeout": float("nan")}, {"reconnects": -1}]
)
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(OptionsError, match=next(iter(options))):
        open_source("test://static", **options)


class Capture:
    """Stands for cv2.VideoCapture: gives ``frames`` pictures, then is lost."""

    def __init__(self, frames: int) -> None:
        self.frames = frames
        self.released = False

    def read(self) -> tuple[bool, Any]:
        assert not self.released
        if not self.frames:
            return False, None
        self.frames -= 1
        return True, np.zeros((4, 4, 3), np.uint8)

    def release(self) -> None:
        self.released = True


class Flaky(Camera):
    """A camera whose openings are given: a number of frames, or None where opening fails."""

    def __init__(self, openings: list[int | None], reconnects: int) -> None:
        self.openings = openings
        self.captures: list[Capture] = []
        super().__init__("flaky", SourceOptions(reconnects=reconnects), patience=0.0)

    def _open(self) -> Capture:
        assert all(capture.released for capture in self.captures), "two captures at once"
        frames = self.openings.pop(0) if self.openings else None
        if frames is None:
            raise SourceError("not there")
        self.captures.append(Capture(frames))
        return self.captures[-1]


@pytest.fixture
def no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "LONGEST_DELAY", 0.0)


@pytest.mark.usefixtures("no_delay")
def test_a_lost_camera_is_opened_again() -> None:
    camera = Flaky([2, None, None, 3, 1], reconnects=3)
    frames = [camera.read() for _ in range(6)]
    with pytest.raises(SourceError, match="did not come back in 3 attempts"):
        camera.read()
    assert [frame.index for frame in frames if frame] == list(range(6))
    camera.close()
    assert all(capture.released for capture in camera.captures)


@pytest.mark.usefixtures("no_delay")
def test_a_camera_that_opens_but_shows_nothing_is_given_up() -> None:
    camera = Flaky([1, *[0] * 50], reconnects=4)
    assert camera.read() is not None
    with pytest.raises(SourceError, match="4 attempts"):
        camera.read()
    assert len(camera.captures) == 5


def test_cancel_ends_the_wait_to_reconnect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "FIRST_DELAY", 1e6)
    monkeypatch.setattr(base, "LONGEST_DELAY", 1e6)
    camera = Flaky([0], reconnects=1)
    got: list[Any] = []
    thread = threading.Thread(target=lambda: got.append(camera.read()))
    thread.start()
    camera.cancel()
    thread.join(60.0)
    assert got == [None]
    camera.close()


def test_the_first_opening_is_not_retried() -> None:
    with pytest.raises(SourceError, match="not there"):
        Flaky([None, 5], reconnects=3)


SIGNS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20)


@given(user=SIGNS, password=SIGNS)
def test_credentials_never_show(user: str, password: str) -> None:
    masked = mask_credentials(f"rtsp://{user}:{password}@10.0.0.7:554/stream1")
    assert masked.endswith("***@10.0.0.7:554/stream1")
    assert masked.startswith("rtsp:/")
    assert len(masked.removesuffix("***@10.0.0.7:554/stream1").strip("/")) == len("rtsp:")


@pytest.mark.parametrize(
    ("address", "masked"),
    [
        ("rtsp://host/path", "rtsp://host/path"),
        ("rtsp://bob@host/path", "rtsp://***@host/path"),
        ("rtsp:/bob:pw@host/path", "rtsp:/***@host/path"),
        ("bob:pw@host/path", "***@host/path"),
        ("rtsp://host/a?user=bob&password=pw&ch=1", "rtsp://host/a?user=***&password=***&ch=1"),
        ("rtsp://host/user=bob_password=x_ch=1", "rtsp://host/user=***"),
        ("/data/clip.mp4", "/data/clip.mp4"),
        ("test://moving", "test://moving"),
    ],
)
def test_masks(address: str, masked: str) -> None:
    assert mask_credentials(address) == masked


@pytest.mark.parametrize("kind", ["http", "gst", "rtsps"])
def test_errors_keep_credentials_back(kind: str) -> None:
    with pytest.raises(EdgeCapError) as caught:
        open_source(f"{kind}://bob:hunter22@host/path")
    assert "hunter22" not in str(caught.value)
    assert "bob" not in str(caught.value)


def _open_files() -> set[str]:
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found.add(os.readlink(entry))
        except OSError:  # the listing's own handle
            continue
    return found
