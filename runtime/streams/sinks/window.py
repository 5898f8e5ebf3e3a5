"""A window on this computer's screen that shows the stream with its captions."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edgecap.runtime.errors import SinkError
from edgecap.runtime.streams.sinks.base import SinkGone
from edgecap.runtime.streams.sinks.frames import FrameSink

if TYPE_CHECKING:
    import pygame

INSTEAD = "write a file (video:out.mp4) or serve it (rtsp-server:8554)"
# SDL has one queue of events for all windows of a process, and is used by one thread at a time.
_SDL = threading.RLock()
_OPEN: dict[int, Window] = {}


class Window(FrameSink):
    """Shows frames through SDL (pygame-ce), as large as the window allows.

    Closing it, q or Escape end the sink.
    Raises SinkError where there is no screen, or no pygame-ce.
    """

    def __init__(self, title: str = "EdgeCap", *, name: str = "window") -> None:
        start_screen()
        self._title = title
        self._window: pygame.Window | None = None
        self._ended = False
        super().__init__(name)

    def _show(self, image: npt.NDArray[np.uint8], seconds: float) -> None:
        with _SDL:
            if self._window is None:
                self._window = _new_window(self._title, image.shape[1], image.shape[0])
                _OPEN[self._window.id] = self
            _paint(self._window, image)
            _take_events()
            if self._ended:
                raise SinkGone

    def _end(self) -> None:
        import pygame

        with _SDL:
            if self._window is not None:
                del _OPEN[self._window.id]
                self._window.destroy()
            if not _OPEN:
                pygame.display.quit()


def start_screen() -> None:
    """Connect to the screen. Raises SinkError where there is none, with what to do instead."""
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise SinkError(f"there is no screen here (DISPLAY is not set); {INSTEAD}")
    # Standard output is for captions, and how a process ends on a signal is its own matter.
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    os.environ.setdefault("SDL_NO_SIGNAL_HANDLERS", "1")
    os.environ.setdefault("SDL_VIDEODRIVER", "x11,wayland")  # it would go on without a screen
    try:
        import pygame

        pygame.Window  # noqa: B018  pygame itself, in place of pygame-ce, has none
    except (ImportError, AttributeError):
        raise SinkError(
            f"windows need pygame-ce: pip install 'edgecap[window]', or {INSTEAD}"
        ) from None
    try:
        with _SDL:
            pygame.display.init()
    except pygame.error as error:
        raise SinkError(f"no window can be opened on this screen: {error}; {INSTEAD}") from None


def _new_window(title: str, width: int, height: int) -> pygame.Window:
    """A window of a picture's size, or of its shape where the desktop is smaller."""
    import pygame

    pygame.display.init()  # again, where another window's end has let go of the screen
    desktop = pygame.display.get_desktop_sizes()[0]
    scale = min(1.0, desktop[0] / width, desktop[1] / height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return pygame.Window(title, size, resizable=True)


def _paint(window: pygame.Window, image: npt.NDArray[np.uint8]) -> None:
    """Show uint8 [H, W, 3] BGR in the middle, as large as fits."""
    import cv2
    import pygame

    height, width = image.shape[:2]
    surface = window.get_surface()
    scale = min(surface.get_width() / width, surface.get_height() / height)
    if scale != 1.0:
        width, height = max(1, round(width * scale)), max(1, round(height * scale))
        how = cv2.INTER_AREA if scale < 1.0 else cv2.INTER_LINEAR
        image = np.asarray(cv2.resize(image, (width, height), interpolation=how), np.uint8)
    picture = pygame.image.frombuffer(np.ascontiguousarray(image).data, (width, height), "BGR")
    surface.fill((0, 0, 0))
    surface.blit(picture, picture.get_rect(center=surface.get_rect().center))
    window.flip()


def _take_events() -> None:
    """Tell each window that was closed, by whichever window's turn this is."""
    import pygame

    for event in pygame.event.get():
        closed = event.type == pygame.WINDOWCLOSE
        if closed or (event.type == pygame.KEYDOWN and event.key in (pygame.K_q, pygame.K_ESCAPE)):
            sink = _OPEN.get(getattr(event.window, "id", -1))
            if sink is not None:
                sink._ended = True
