"""Cameras behind the server: one thread that captions them, and begins anew with other profiles."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgecap.runtime.errors import EdgeCapError
from edgecap.runtime.streams import Cameras, Feed, Source, StreamReport, open_source
from edgecap.runtime.streams.narrator import Narrator, preparation
from edgecap.runtime.streams.profiles import Profile, load_profile, names
from edgecap.runtime.streams.sinks import camera_name
from edgecap.runtime.streams.sources.base import LOG
from edgecap.serve.hub import Hub
from edgecap.serve.problems import Problem
from edgecap.serve.viewer import Viewer

NO_PROFILE = "none"
_NAMED = re.compile(r"([A-Za-z0-9_-]{1,40})=(.+)", re.DOTALL)


@dataclass(frozen=True)
class Camera:
    """A source's name for people, and its address."""

    name: str
    address: str


@dataclass(frozen=True)
class Totals:
    """Numbers of one camera over several runs."""

    frames: int = 0
    captions: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)

    def plus(self, report: StreamReport | None) -> Totals:
        """These and those of another run."""
        if report is None:
            return self
        return Totals(
            self.frames + report.received,
            self.captions + report.captions,
            self.skipped + Counter(report.skipped),
            self.dropped + Counter(report.dropped),
        )

    def values(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "frames": self.frames,
            "captions": self.captions,
            "skipped": dict(self.skipped),
            "dropped": dict(self.dropped),
        }


def parse_sources(addresses: Sequence[str]) -> list[Camera]:
    """``NAME=ADDRESS`` or an address alone, which then gives the name; all names are different."""
    cameras: list[Camera] = []
    for text in addresses:
        found = _NAMED.fullmatch(text)
        if found is not None and not Path(text).exists():
            name, address = found.groups()
        else:
            name, address = camera_name(text), text
        taken = {camera.name for camera in cameras}
        number, base = 2, name
        while name in taken:
            name, number = f"{base}-{number}", number + 1
        cameras.append(Camera(name, address))
    return cameras


class Live:
    """Captions cameras in a thread until ``stop``; ``switch`` begins anew with another profile.

    cameras : their names and addresses
    sources : keyword options of ``open_source``
    profile : a name, or the path of a YAML file; None for none
    given : options of the stream and of decoding that win over any profile's

    Raises what ``open_source`` and ``load_profile`` raise.
    """

    def __init__(
        self,
        cameras: Sequence[Camera],
        captioner: Any,
        hub: Hub,
        *,
        sources: Mapping[str, Any],
        profile: str | None = None,
        stream: Mapping[str, Any] | None = None,
        decoding: Mapping[str, Any] | None = None,
        pictures: bool = True,
    ) -> None:
        self.cameras = list(cameras)
        self.viewers = {camera.name: Viewer(camera.name, hub, pictures) for camera in cameras}
        self.ended: str | None = None  # why the cameras run no more
        self._captioner = captioner
        self._source_options = dict(sources)
        self._stream, self._decoding = dict(stream or {}), dict(decoding or {})
        self._profiles: dict[str, Profile] = {NO_PROFILE: Profile()}
        self._profiles |= {name: load_profile(name) for name in names()}
        self._profile = NO_PROFILE
        if profile is not None and profile != NO_PROFILE:
            preset = load_profile(profile)
            self._profiles[preset.name] = preset
            self._profile = preset.name
        self._options(self._profiles[self._profile])  # bad ones are told before a camera is opened
        self._running: Cameras | None = None
        self._before = [Totals() for _ in cameras]  # of the runs that have ended
        self._lock = threading.Lock()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._stack = ExitStack()
        self._opened = self._open() if cameras else []

    @property
    def profile(self) -> str:
        """The name of the profile in force."""
        return self._profile

    def profiles(self) -> list[dict[str, str]]:
        """Names of the profiles that may be switched to, and a line about each."""
        about = {NO_PROFILE: "No profile: every change is captioned."}
        return [
            {"name": name, "about": about.get(name) or preset.about}
            for name, preset in self._profiles.items()
        ]

    def start(self) -> None:
        """Caption from now on."""
        if self.cameras:
            self._thread = threading.Thread(target=self._work, name="cameras", daemon=True)
            self._thread.start()

    def stop(self, timeout: float = 15.0) -> None:
        """End after the caption in the making."""
        self._stopping = True
        running = self._running
        if running is not None:
            running.stop()
        if self._thread is not None:
            self._thread.join(timeout)
        self._stack.close()

    def switch(self, name: str) -> None:
        """Go on with another profile; cameras are opened anew. Raises ``Problem`` (409)."""
        if name not in self._profiles:
            raise Problem(
                409, f"there is no profile {name!r}; give one of {', '.join(self._profiles)}"
            )
        if not self.cameras:
            raise Problem(409, "no camera runs, so that there is nothing to switch; give --source")
        if self.ended is not None:
            raise Problem(409, f"the cameras run no more ({self.ended}); start the server anew")
        with self._lock:
            if name == self._profile:
                return
            self._profile = name
            if self._running is not None:
                self._running.stop()

    def describe_now(self, name: str | None) -> list[str]:
        """Have the next frame of a camera, or of all, captioned; the names of those asked."""
        if not self.cameras or self.ended is not None:
            raise Problem(409, f"no camera runs ({self.ended or 'none is given; give --source'})")
        if name is not None:
            self.viewer(name)
        with self._lock:
            asked = []
            if self._running is not None:
                for camera, controls in zip(self.cameras, self._running.controls, strict=True):
                    if name in (None, camera.name):
                        controls.describe_now()
                        asked.append(camera.name)
        return asked

    def viewer(self, name: str | None) -> Viewer:
        """A camera's viewer, the first one's without a name. Raises ``Problem`` (404)."""
        if not self.viewers:
            raise Problem(404, "no camera is shown here; start the server with --source")
        if name is None:
            return next(iter(self.viewers.values()))
        if name not in self.viewers:
            raise Problem(
                404, f"there is no camera {name!r}; give one of {', '.join(self.viewers)}"
            )
        return self.viewers[name]

    def numbers(self) -> dict[str, dict[str, Any]]:
        """Frames, captions, skipped and dropped of each camera, over all profiles' runs."""
        with self._lock:
            running = self._running
            now = [None] * len(self.cameras) if running is None else running.progress()
            return {
                camera.name: before.plus(report).values()
                for camera, before, report in zip(self.cameras, self._before, now, strict=True)
            }

    def _open(self) -> list[Source]:
        self._stack = ExitStack()
        return [
            self._stack.enter_context(open_source(camera.address, **self._source_options))
            for camera in self.cameras
        ]

    def _options(self, preset: Profile) -> tuple[Any, dict[str, Any]]:
        decoding = {"beams": None, **preset.decoding_options(**self._decoding)}
        self._captioner.options(**decoding)
        return preset.stream_options(**self._stream), decoding

    def _work(self) -> None:
        try:
            while not self._stopping:
                name = self._profile
                self._run(name)
                if name == self._profile and not self._stopping:
                    self.ended = self.ended or "the sources have ended"
                    break
        except EdgeCapError as error:
            self.ended = str(error)
            LOG.error("the cameras run no more: %s", error)
        except Exception as error:
            self.ended = f"{type(error).__name__}: {error}"
            LOG.exception("the cameras run no more")
        finally:
            for viewer in self.viewers.values():
                viewer.state, viewer.why = "ended", self.ended or "stopped"

    def _run(self, name: str) -> None:
        preset = self._profiles[name]
        options, decoding = self._options(preset)
        sources = self._opened or self._open()
        self._opened = []
        plain = name == NO_PROFILE
        with self._stack:
            cameras = Cameras(
                [
                    Feed(
                        source,
                        [self.viewers[camera.name]],
                        prepare=None if plain else preparation(preset, source),
                        tell=None if plain else Narrator(preset),
                    )
                    for camera, source in zip(self.cameras, sources, strict=True)
                ],
                self._captioner,
                options=options,
                decoding=decoding,
            )
            for viewer in self.viewers.values():
                viewer.restart()
            with self._lock:
                self._running = cameras
                if self._stopping or name != self._profile:
                    cameras.stop()
            reports: list[StreamReport] = []
            try:
                reports = cameras.run()
            finally:
                with self._lock:
                    self._running = None
                    for index, report in enumerate(reports or cameras.reports):
                        self._before[index] = self._before[index].plus(report)


def quiet_for(viewer: Viewer) -> float | None:
    """Seconds since a camera's last frame was dealt with; None before the first."""
    return time.monotonic() - viewer.seen if viewer.seen else None
