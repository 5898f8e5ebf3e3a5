"""What a profile makes of each event: hazards, comings and goings, novelty, the sentence."""

from __future__ import annotations

from collections import Counter

from edgecap.runtime.streams.event import Event
from edgecap.runtime.streams.profiles.profile import Profile
from edgecap.runtime.streams.sentences import tell_aloud
from edgecap.runtime.streams.told import REPEAT, SAID, Told, tell


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

    def tell(self, event: Event) -> Told:
        """The event with its notes, verdict and sentence.

        A new hazard or arrival makes any caption "said". Where the profile is silent about what
        the model is not sure of, such a caption is a "repeat" without a sentence: not for people.
        """
        now = event.captured_at if event.pts is None else event.pts
        alerts = self._hazards.judge(event.text, event.sure, now)
        moves = [] if self._presence is None else self._presence.judge(event.text, event.sure, now)
        notes = (*alerts, *moves)
        hidden = self._silent and not event.sure and not alerts
        verdict = SAID
        if hidden:
            verdict = REPEAT
        elif self._novelty is not None:
            verdict = self._novelty.judge(event.text, now)
            if notes:
                verdict = SAID
        self.counts["silent" if hidden else verdict] += 1
        self.counts.update(note.kind for note in notes)
        said = "" if hidden else tell_aloud(event.text, notes, sure=event.sure)
        return tell(event, verdict=verdict, sentence=said, notes=notes)
