"""Who and what appears and leaves, from the words of captions, without jitter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgecap.runtime.streams.phrases import Phrases
from edgecap.runtime.streams.told import Note


@dataclass
class _State:
    present: bool = False
    named: int = 0  # captions in a row that name it
    missed: int = 0  # captions in a row that do not
    last: float = 0.0  # when it was named last


class Presence:
    """Events when a group of words begins or ceases to be named. One watches one camera.

    groups : name -> phrases (see ``Phrases``), such as person -> man, woman, people
    appear : sure captions in a row that must name a group before it has appeared
    leave : sure captions in a row that must not name it before it has left
    after : seconds for which it must not have been named before it has left

    Captions that are not sure change nothing.
    """

    def __init__(
        self,
        groups: Mapping[str, Sequence[str]],
        *,
        appear: int = 2,
        leave: int = 3,
        after: float = 10.0,
    ) -> None:
        self._phrases = Phrases(groups)
        self._states = {name: _State() for name in groups}
        self._appear, self._leave, self._after = appear, leave, after

    @property
    def present(self) -> tuple[str, ...]:
        """The groups that are there."""
        return tuple(name for name, state in self._states.items() if state.present)

    @property
    def undecided(self) -> bool:
        """Whether another caption, of an unchanged scene too, may make something appear or leave.

        A gate that lets nothing pass once somebody has gone would leave them there until its
        maximum age.
        """
        return any(
            state.missed > 0 if state.present else state.named > 0
            for state in self._states.values()
        )

    def judge(self, text: str, sure: bool, now: float) -> list[Note]:
        """What a caption at ``now`` (seconds, any clock that grows) changes."""
        if not sure:
            return []
        found = self._phrases.find(text)
        notes = []
        for name, state in self._states.items():
            if name in found:
                state.named, state.missed, state.last = state.named + 1, 0, now
                if not state.present and state.named >= self._appear:
                    state.present = True
                    notes.append(
                        Note("appeared", name, found[name], f"{name.capitalize()} appeared.")
                    )
                continue
            state.named, state.missed = 0, state.missed + 1
            # A clock that went back: the waiting begins anew.
            state.last = min(state.last, now)
            if state.present and state.missed >= self._leave and now - state.last >= self._after:
                state.present = False
                notes.append(Note("left", name, "", f"{name.capitalize()} left."))
        return notes
