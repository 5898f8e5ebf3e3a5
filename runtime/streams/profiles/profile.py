"""What a profile may say, and the parts of a stream it makes."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import msgspec

from edgecap.runtime.errors import OptionsError
from edgecap.runtime.streams.detector import Detector
from edgecap.runtime.streams.hazards import Hazard, Hazards
from edgecap.runtime.streams.nearness import Approaches, Nearness
from edgecap.runtime.streams.novelty import Novelty
from edgecap.runtime.streams.options import StreamOptions
from edgecap.runtime.streams.phrases import Phrases
from edgecap.runtime.streams.presence import Presence
from edgecap.runtime.streams.privacy import Zone


class Seconds(float):
    """A time, written with its unit: 80 ms, 1.5 s, 2 minutes, 1 h."""


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of a profile's parts: a key that is not theirs is an error."""


class StreamPart(Part, frozen=True):
    """What of ``StreamOptions`` a profile sets; what it leaves out keeps its default."""

    gate: str | None = None
    threshold: float | None = None
    min_interval: Seconds | None = None
    max_age: Seconds | None = None
    deadline: Seconds | None = None
    unsure: str | None = None
    slowest: Seconds | None = None
    hottest: float | None = None
    stuck: Seconds | None = None


class DecodingPart(Part, frozen=True):
    """Decoding options of the captioner."""

    beams: int | None = None
    max_new_tokens: int | None = None
    length_penalty: float | None = None


class NoveltyPart(Part, frozen=True):
    """See ``Novelty``."""

    same: float = 0.75
    refresh: Seconds = Seconds(60.0)
    memory: Seconds = Seconds(30.0)


class HazardPart(Part, frozen=True):
    """See ``Hazard``."""

    say: str
    words: list[str]


class PresencePart(Part, frozen=True):
    """See ``Presence``."""

    groups: dict[str, list[str]]
    appear: int = 2
    leave: int = 3
    after: Seconds = Seconds(10.0)


class NearnessPart(Part, frozen=True):
    """See ``Nearness``. detector : path of its model; None: nobody looks for what comes nearer."""

    detector: str | None = None
    things: dict[str, list[str]] = {}
    within: Seconds = Seconds(3.0)
    every: Seconds = Seconds(0.2)
    again: Seconds = Seconds(10.0)
    sure: float = 0.6
    size: float = 0.3


class PrivacyPart(Part, frozen=True):
    """zones : polygons that are masked; snapshots : whether pictures may leave the device."""

    zones: list[list[tuple[float, float]]] = []
    snapshots: bool = False


class SpeechPart(Part, frozen=True):
    """See ``Speech`` and ``EspeakNg``."""

    interrupt: str = "alerts"
    max_age: Seconds = Seconds(5.0)
    speed: int = 175
    voice: str = "en"


class Profile(Part, frozen=True):
    """A preset. Times are in seconds. ``name`` is the file's, ``about`` one line for people."""

    name: str = ""
    about: str = ""
    stream: StreamPart = StreamPart()
    decoding: DecodingPart = DecodingPart()
    novelty: NoveltyPart | None = None
    watch_for_blocked_camera: bool = False
    again: Seconds = Seconds(5.0)
    hazards: dict[str, HazardPart] = {}
    presence: PresencePart | None = None
    nearness: NearnessPart = NearnessPart()
    privacy: PrivacyPart = PrivacyPart()
    speech: SpeechPart = SpeechPart()

    def stream_options(self, **given: Any) -> StreamOptions:
        """Options of the stream; what is ``given`` (and is not None) wins over the profile."""
        said = {**msgspec.structs.asdict(self.stream), **_given(given)}
        defaults = asdict(StreamOptions())
        unknown = [name for name in _given(said) if name not in defaults]
        if unknown:
            raise OptionsError(f"this stream has no option {unknown[0]!r}")
        return StreamOptions(**{**defaults, **_given(said)})

    def decoding_options(self, **given: Any) -> dict[str, Any]:
        """Decoding options; what is ``given`` (and is not None) wins over the profile."""
        return {**_given(msgspec.structs.asdict(self.decoding)), **_given(given)}

    def speech_options(self) -> dict[str, Any]:
        """Defaults of a speech sink."""
        return msgspec.structs.asdict(self.speech)

    def make_novelty(self) -> Novelty | None:
        """A fresh judge of what is new, or None where every caption is said."""
        part = self.novelty
        return None if part is None else Novelty(part.same, part.refresh, part.memory)

    def make_hazards(self) -> Hazards:
        """A fresh watch for hazards."""
        hazards = {name: Hazard(tuple(h.words), h.say) for name, h in self.hazards.items()}
        return Hazards(hazards, again=self.again)

    def make_presence(self) -> Presence | None:
        """A fresh watch for who comes and goes."""
        part = self.presence
        if part is None:
            return None
        return Presence(part.groups, appear=part.appear, leave=part.leave, after=part.after)

    def make_nearness(self) -> Nearness | None:
        """A fresh watch for what comes nearer, or None where no detector is named."""
        part = self.nearness
        approaches = Approaches(
            part.things, within=part.within, sure=part.sure, size=part.size, again=part.again
        )
        if part.detector is None:
            return None
        if not part.things:
            raise OptionsError("nearness.things is empty; give such as `someone: [person]`")
        return Nearness(Detector(part.detector), approaches, every=part.every)

    def zones(self) -> tuple[Zone, ...]:
        """What is masked."""
        return tuple(Zone(tuple(points)) for points in self.privacy.zones)

    def vocabulary(self) -> dict[str, set[str]]:
        """Hazard or group -> every word that its phrases are made of."""
        groups: dict[str, list[str]] = {name: h.words for name, h in self.hazards.items()}
        if self.presence is not None:
            groups |= self.presence.groups
        return Phrases(groups).words()

    def check(self) -> None:
        """Make every part once, so that a bad value is told before a camera is opened."""
        self.stream_options()
        self.make_novelty()
        self.make_hazards()
        self.make_presence()
        self.make_nearness()
        self.zones()
        for name, value, low in (
            ("presence.appear", self.presence.appear if self.presence else 1, 1),
            ("presence.leave", self.presence.leave if self.presence else 1, 1),
        ):
            if value < low:
                raise OptionsError(f"{name} is {value}; give a whole number from {low}")
        if self.speech.interrupt not in ("alerts", "always", "never"):
            raise OptionsError(
                f"speech.interrupt is {self.speech.interrupt!r}; give alerts, always or never"
            )


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
