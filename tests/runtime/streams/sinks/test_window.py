"""A window on a real X server, seen by a screenshot and ended by a key or its cross."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edgecap.models import bundled
from edgecap.runtime.errors import SinkError
from edgecap.runtime.streams.frames import Frame
from edgecap.runtime.streams.sinks import window as windows
from edgecap.runtime.streams.sinks.base import SinkGone
from edgecap.runtime.streams.sinks.window import Window

EXAMPLE = Path(__file__).resolve().parents[4] / "examples/show_window.py"
WAIT = 60.0
if shutil.which("Xvfb") is None or shutil.which("xdotool") is None:
    pytest.skip("no Xvfb or no xdotool on this machine", allow_module_level=True)
display = pytest.importorskip("Xlib.display", reason="python-xlib clicks on the cross")
ImageGrab = pytest.importorskip("PIL.ImageGrab", reason="Pillow takes the screenshot")
pygame = pytest.importorskip("pygame", reason="windows need pygame-ce")


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of an X display of its own, 800 x 600."""
    reading, writing = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(writing), "-screen", "0", "800x600x24", "-nolisten", "tcp",
         "-noreset"],
        pass_fds=[writing], stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(writing)
    with os.fdopen(reading) as lines:
        name = f":{lines.readline().strip()}"
    monkeypatch.setenv("DISPLAY", name)
    yield name
    server.terminate()
    server.wait()


@pytest.mark.skipif("default" not in bundled(), reason="this checkout has no default model")
@pytest.mark.parametrize("end", ["q", "Escape", "cross"])
def test_a_window_shows_the_stream_until_it_is_ended(screen: str, end: str, tmp_path: Path) -> None:
    example = subprocess.Popen(
        [sys.executable, str(EXAMPLE), "test://moving"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
    )  # fmt: skip
    try:
        wait(lambda: example.poll() is not None or colours(screen) >= 50)  # an empty screen has one
        assert example.poll() is None, example.communicate()
        finish(screen, find(EXAMPLE.name), end)
        out, errors = example.communicate(timeout=WAIT)
    finally:
        example.kill()
    assert example.returncode == 0, errors
    assert out.count("\n") == 1, "standard output is for captions"
    assert out.endswith("ended: sinks gone\n")


def test_a_picture_is_shown_whole_in_any_window(screen: str) -> None:
    """Larger than the screen at first, then in a window that somebody made wider."""
    sink = Window()
    image = np.zeros((900, 1600, 3), np.uint8)
    image[:, :800] = (255, 0, 0)  # blue, in BGR
    image[:, 800:] = (0, 0, 255)
    try:
        show(sink, image, lambda: count(screen, (0, 0, 255)) == 400 * 450)
        assert count(screen, (255, 0, 0)) == 400 * 450
        (shown,) = windows._OPEN.values()
        assert shown._window is not None
        with windows._SDL:
            shown._window.size = (800, 200)
        # 356 pixels wide with black at both sides, 178 of them blue.
        show(sink, image, lambda: abs(count(screen, (0, 0, 255)) - 178 * 200) <= 200)
    finally:
        sink.close()
    assert windows._OPEN == {}


def test_of_two_windows_the_one_that_is_closed_ends(screen: str) -> None:
    grey = np.full((200, 300, 3), 90, np.uint8)
    left, right = Window("left", name="left"), Window("right", name="right")
    try:
        show(left, grey, lambda: left._window is not None)
        show(right, grey, lambda: right._window is not None)
        with windows._SDL:
            assert left._window is not None
            left._window.position = (0, 0)
            number = ids()[left._window.title]
        finish(screen, number, "cross")
        show(right, grey, lambda: left._ended)  # the other one's turn finds it
        show(left, grey, lambda: left._error is not None)
        assert isinstance(left._error, SinkGone)
        show(right, grey, lambda: count(screen, (90, 90, 90)) == 200 * 300)
        assert right._error is None
    finally:
        left.close()
        right.close()


def test_a_screen_that_is_not_there_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":987")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(SinkError, match=r"no window can be opened on this screen: .*video:out.mp4"):
        Window()


def show(sink: Window, image: np.ndarray, until: Callable[[], bool]) -> None:
    """Give the sink the picture again and again until something holds."""

    def turn() -> bool:
        sink.see(Frame(image, 0, 0.0, 0.0, 0.0, "test"), False)
        return until()

    wait(turn)


def wait(until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def find(name: str) -> int:
    """The number of a program's only window."""
    words = ["xdotool", "search", "--onlyvisible", "--class", name]
    return int(subprocess.run(words, capture_output=True, text=True, check=True).stdout)


def ids() -> dict[str, int]:
    """The numbers of the windows on the screen by their titles."""
    there = display.Display(os.environ["DISPLAY"])
    title = there.intern_atom("_NET_WM_NAME")
    utf8 = there.intern_atom("UTF8_STRING")
    found = {}
    for window in there.screen().root.query_tree().children:
        name = window.get_full_property(title, utf8)
        if name is not None:
            found[name.value.decode()] = window.id
    there.close()
    return found


def finish(screen: str, number: int, how: str) -> None:
    """Press a key in a window, or do what a window manager does for a click on its cross."""
    if how != "cross":
        # Nobody manages windows on this screen: the window takes keys only once it has the focus.
        subprocess.run(["xdotool", "windowfocus", str(number)], check=True)
        # The window may be gone before the key is let go, which xdotool takes for an error.
        subprocess.run(["xdotool", "key", "--window", str(number), how], check=False)
        return
    from Xlib.protocol import event

    there = display.Display(screen)
    window = there.create_resource_object("window", number)
    delete, protocols = (there.intern_atom(n) for n in ("WM_DELETE_WINDOW", "WM_PROTOCOLS"))
    data = (32, [delete, 0, 0, 0, 0])
    window.send_event(event.ClientMessage(window=window, client_type=protocols, data=data))
    there.sync()  # a server drops what it has not yet read of a client that is gone
    there.close()


def pixels(screen: str) -> np.ndarray:
    return np.asarray(ImageGrab.grab(xdisplay=screen).convert("RGB")).reshape(-1, 3)


def colours(screen: str) -> int:
    """How many colours are on the screen."""
    return len(np.unique(pixels(screen), axis=0))


def count(screen: str, colour: tuple[int, int, int]) -> int:
    """How many pixels of the screen have a colour (RGB)."""
    return int((pixels(screen) == colour).all(axis=1).sum())
