"""Files, folders, devices and patterns: what opens gives its frames, what does not says why."""

from __future__ import annotations

import contextlib
import os
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecap.runtime.errors import EdgeCapError, OptionsError, SourceError
from edgecap.runtime.streams import open_source
from edgecap.runtime.streams.sources import mask_credentials
from edgecap.runtime.streams.sources.http import split_user
from edgecap.runtime.streams.sources.rtsp import split_transport

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


def test_a_pattern_names_pictures_or_one_video(picture_folder: Path, make_video: MakeVideo) -> None:
    with open_source(f"file://{picture_folder}/*.[pP][nN][gG]") as source:
        assert [Path(frame.source).name for frame in source] == ["b.PNG", "c.png"]
    video = make_video("only.avi", frames=2)
    with open_source(f"{video.parent}/*.avi", realtime=False) as source:
        assert len(list(source)) == 2
    make_video("second.avi", frames=2)
    for pattern, part in (("*.avi", "2 files, none of them a picture"), ("*.xyz", "no file")):
        with pytest.raises(SourceError, match=part):
            open_source(f"{video.parent}/{pattern}")


def test_pictures_with_a_rate_are_a_video(picture_folder: Path) -> None:
    with open_source(picture_folder, rate=50.0, loop=True) as source:
        assert source.live
        assert not source.stills
        begun = time.monotonic()
        frames = [source.read() for _ in range(6)]
    assert time.monotonic() - begun >= 5 / 50 * 0.95
    assert np.allclose([frame.pts for frame in frames if frame], [i / 50 for i in range(6)])
    with open_source(picture_folder, rate=0.01, realtime=False) as source:
        assert [frame.pts for frame in source] == [0.0, 100.0, 200.0]


def test_a_rate_takes_the_place_of_a_video_s_own(make_video: MakeVideo) -> None:
    with open_source(make_video(frames=3), loop=True, realtime=False, rate=10.0) as source:
        frames = [source.read() for _ in range(5)]
    assert np.allclose([frame.pts for frame in frames if frame], [0.0, 0.1, 0.2, 0.3, 0.4])


def test_no_rights_names_the_group(tmp_path: Path) -> None:
    """Asked as a user without rights, of a real device node that belongs to the group ``video``."""
    import grp

    device = tmp_path / "camera"
    try:
        os.mknod(device, 0o660 | stat.S_IFCHR, os.makedev(81, 0))
        os.chown(device, 0, grp.getgrnam("video").gr_gid)
    except (OSError, KeyError) as error:
        pytest.skip(f"device nodes cannot be made here: {error}")
    for folder in (tmp_path, *tmp_path.parents[:3]):  # one more where tests run in parallel
        folder.chmod(0o755)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            open_source(f"v4l2://{device}")
        except SourceError as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    said = os.read(reader, 1000).decode()
    os.close(reader)
    assert "no permission" in said
    assert "usermod -aG video" in said


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
        "ftp://host/file": "file://, v4l2://, csi://, rtsp://, rtsps://, http://, https://, gst://",
        "csi://left": "names no sensor",
        "987": "/dev/video987 is not there",
        "/dev/video987": "is not there",
        "v4l2:///dev/video987": "is not there",
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
    "options",
    [
        {"open_timeout": 0},
        {"read_timeout": float("nan")},
        {"reconnects": -1},
        {"transport": "pigeon"},
        {"latency": -1.0},
        {"decoder": "magic"},
        {"width": 640},
        {"height": 0, "width": 640},
        {"rate": 0},
        {"frozen_after": 0},
    ],
)
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(OptionsError, match=next(iter(options))):
        open_source("test://static", **options)


SIGNS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20)


@given(user=SIGNS, password=SIGNS)
def test_credentials_never_show(user: str, password: str) -> None:
    masked = mask_credentials(f"rtsp://{user}:{password}@10.0.0.7:554/stream1")
    assert masked.endswith("***@10.0.0.7:554/stream1")
    assert masked.startswith("rtsp:/")
    assert len(masked.removesuffix("***@10.0.0.7:554/stream1").strip("/")) == len("rtsp:")


@given(user=SIGNS, password=SIGNS, port=st.none() | st.integers(1, 65535))
def test_a_user_goes_out_of_an_address_and_comes_whole(
    user: str, password: str, port: int | None
) -> None:
    place = "camera.local" if port is None else f"camera.local:{port}"
    address = f"http://{quote(user, safe='')}:{quote(password, safe='')}@{place}/a?b=1"
    assert split_user(address, "camera") == (f"http://{place}/a?b=1", user, password)


@given(address=st.text(max_size=60))
def test_any_text_is_an_address_or_a_clear_error(address: str) -> None:
    uri = f"http://{address}"
    assert split_transport(uri)[1] in (None, "auto", "tcp", "udp")
    with contextlib.suppress(SourceError):
        bare, user, _ = split_user(uri, "camera")
        assert (bare == uri) == (user is None)


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


@pytest.mark.parametrize("kind", ["ftp", "csi", "rtsps"])
def test_errors_keep_credentials_back(kind: str) -> None:
    with pytest.raises(EdgeCapError) as caught:
        open_source(f"{kind}://bob:hunter22@localhost:9/path")
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
