"""A window on a real X server, seen by a screenshot and ended by a key."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgecap.models import bundled

ROOT = Path(__file__).resolve().parents[4]
PYTHON = ROOT / "build/opencv-windows/bin/python"
WAIT = 60.0
PAINT = 5.0  # seconds from a window on the screen to its picture
STARTS = 8
# What a window manager sends when somebody clicks on the cross.
CLOSE = """
import sys
from Xlib import display
from Xlib.protocol import event
screen = display.Display(sys.argv[1])
window = screen.create_resource_object("window", int(sys.argv[2]))
names = [screen.intern_atom(name) for name in ("WM_DELETE_WINDOW", "WM_PROTOCOLS")]
window.send_event(
    event.ClientMessage(window=window, client_type=names[1], data=(32, [names[0], 0, 0, 0, 0]))
)
screen.sync()  # a server drops what it has not read of a client that is gone
"""
if shutil.which("Xvfb") is None or shutil.which("xdotool") is None:
    pytest.skip("no Xvfb or no xdotool on this machine", allow_module_level=True)
if not PYTHON.is_file():
    pytest.skip(
        "no OpenCV with windows here: tools/opencv_with_windows.sh makes one",
        allow_module_level=True,
    )
if "default" not in bundled():
    pytest.skip("this checkout has no default model", allow_module_level=True)
ImageGrab = pytest.importorskip("PIL.ImageGrab", reason="Pillow takes the screenshot")


@pytest.fixture
def screen() -> Iterator[str]:
    """The name of an X display of its own."""
    reading, writing = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(writing), "-screen", "0", "800x600x24", "-nolisten", "tcp",
         "-noreset"],
        pass_fds=[writing], stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(writing)
    with os.fdopen(reading) as lines:
        yield f":{lines.readline().strip()}"
    server.terminate()
    server.wait()


@pytest.mark.parametrize("end", ["q", "close"])
def test_a_window_shows_the_stream_until_it_is_ended(screen: str, end: str, tmp_path: Path) -> None:
    example = shown(screen, tmp_path)
    try:
        window = xdotool(screen, "search", "--onlyvisible", "--name", "test://moving").split()[0]
        # Nobody manages windows on this screen: the window takes keys only once it has the focus.
        xdotool(screen, "windowfocus", window)
        if end == "q":
            xdotool(screen, "key", "--window", window, "q")
        else:
            words = [str(PYTHON), "-c", CLOSE, screen, window]
            subprocess.run(words, check=True, capture_output=True, timeout=WAIT)
        out, errors = example.communicate(timeout=WAIT)
    finally:
        example.kill()
    assert example.returncode == 0, errors
    assert "ended: sinks gone" in out


def shown(screen: str, folder: Path) -> subprocess.Popen[str]:
    """The example with its picture on the screen.

    Qt 5.15 in pip's OpenCV sometimes loses the event that its window was mapped and never paints it
    then; ``cv2.imshow`` alone stays blank as often on a busy machine. Such a start is repeated.
    """
    surroundings = {**os.environ, "DISPLAY": screen, "QT_QPA_PLATFORM": "xcb"}
    for _ in range(STARTS):
        example = subprocess.Popen(
            [str(PYTHON), str(ROOT / "examples/show_window.py"), "test://moving"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder, env=surroundings,
        )  # fmt: skip
        try:
            if painted(screen, example):
                return example
        except BaseException:
            example.kill()
            raise
        example.kill()
        example.communicate()
    raise AssertionError(f"blank in each of {STARTS} starts")


def painted(screen: str, example: subprocess.Popen[str]) -> bool:
    """Wait for the picture; False when the window is there and stays blank."""
    mapped: float | None = None
    deadline = time.monotonic() + WAIT
    while mapped is None or time.monotonic() < mapped + PAINT:
        assert example.poll() is None, example.communicate()
        assert time.monotonic() < deadline, "no window"
        if colours(screen) >= 50:  # an empty screen has one
            return True
        names = ("search", "--onlyvisible", "--name", "test://moving")
        if mapped is None and xdotool(screen, *names, check=False):
            mapped = time.monotonic()
        time.sleep(0.2)
    return False


def xdotool(screen: str, *words: str, check: bool = True) -> str:
    done = subprocess.run(
        ["xdotool", *words],
        capture_output=True,
        text=True,
        check=check,
        env={**os.environ, "DISPLAY": screen},
    )
    return done.stdout


def colours(screen: str) -> int:
    """How many colours are on the screen."""
    picture = np.asarray(ImageGrab.grab(xdisplay=screen)).reshape(-1, 3)
    return len(np.unique(picture, axis=0))
