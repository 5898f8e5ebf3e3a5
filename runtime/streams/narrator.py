"""What a profile makes of each event: hazards, comings and goings, novelty, the sentence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from edgecap.runtime.streams.event import Event
from edgecap.runtime.streams.frames import Frame
from edgecap.runtime.streams.privacy import Blocked, Mask
from edgecap.runtime.streams.profiles.profile import Profile
from edgecap.runtime.streams.sentences import tell_aloud
from edgecap.runtime.streams.sources.base import Source
from edgecap.runtime.streams.told import REPEAT, SAID, Note, Told, tell


def preparation(profile: Profile, source: Source) -> Callable[[Frame], Frame]:
    """What a profile does to each frame of ``source`` before the gate.

    Its privacy zones are masked, a covered camera is told of through the source's listener, and
    what comes nearer is looked for.
    """
    hide = Mask(profile.zones())
    watch = Blocked(source.say) if profile.watch_for_blocked_camera else None
    nearness = profile.make_nearness()

    def prepare(frame: Frame) -> Frame:
        if watch is not None:
            watch.look(frame)
        frame = hide(frame)
        return frame if nearness is None else nearness.look(frame)

    return prepare


class Narrator:
    """Tells the events of one camera by a profile.

    counts : events by verdict (said, refresh, repeat, silent) and notes by kind
    """

    def __init__(self, profile: Profile) -> None:
        self.counts: Counter[str] = Counter()
        self._novelty = profile.make_novelty()
        self._hazards = profile.make_hazards()
        self._presence = profile.make_presence()
        self._silent = profile.stream.unsure == "silent"

    def __call__(self, event: Event) -> Told | None:
        """What sinks are told: None for what is not said again, or not at all."""
        told = self.tell(event)
        return None if told.verdict == REPEAT else told

    @property
    def undecided(self) -> bool:
        """Whether somebody may just have come or gone, which the next caption would tell."""
        return self._presence is not None and self._presence.undecided

    def tell(self, event: Event) -> Told:
        """The event with its notes, verdict and sentence.

        A new hazard or arrival makes any caption "said", and so does somebody who asks. Where the
        profile is silent about what the model is not sure of, such a caption is a "repeat" without
        a sentence: not for people.
        """
        now = event.captured_at if event.pts is None else event.pts
        alerts = self._hazards.judge(event.text, event.sure, now)
        moves = [] if self._presence is None else self._presence.judge(event.text, event.sure, now)
        near = [
            Note("alert", "nearer", thing.what, f"Careful, {thing.what} comes nearer.")
            for thing in event.nearer
        ]
        alerts = [*near, *alerts]
        notes = (*alerts, *moves)
        asked = event.reason == "asked"
        hidden = self._silent and not event.sure and not alerts and not asked
        said = "" if hidden else tell_aloud(event.text, notes, sure=event.sure)
        hidden = not said  # also a caption of which the deadline left no whole words
        verdict = SAID
        if hidden:
            verdict = REPEAT
        elif self._novelty is not None:
            verdict = self._novelty.judge(event.text, now)
            if notes or asked:
                verdict = SAID
        self.counts["silent" if hidden else verdict] += 1
        self.counts.update(note.kind for note in notes)
        return tell(event, verdict=verdict, sentence=said, notes=notes)
