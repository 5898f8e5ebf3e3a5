"""Whether a caption says something new."""

from __future__ import annotations

from collections import deque

from edgecap.runtime.errors import OptionsError
from edgecap.runtime.streams.told import REFRESH, REPEAT, SAID
from edgecap.runtime.text import normalise_caption

REMEMBERED = 8  # sentences said that a new one is compared with
# Words that carry no meaning of their own in a caption.
_EMPTY_WORDS = (
    "a an the is are was be being been of in on at to with and or by from as its it this "
    "that there his her their some up down out into onto over near next front while another"
)
_EMPTY = frozenset(_EMPTY_WORDS.split())
_IRREGULAR = {
    "men": "man",
    "women": "woman",
    "children": "child",
    "people": "person",
    "puppies": "puppy",
    "babies": "baby",
}


def content_words(text: str) -> frozenset[str]:
    """The words of a caption that mean something, plurals as singulars.

    All of its words where no other is left, so that two captions of empty words still differ.
    """
    words = normalise_caption(text).split()
    kept = [word for word in words if word not in _EMPTY] or words
    return frozenset(_singular(word) for word in kept)


def similarity(one: frozenset[str], other: frozenset[str]) -> float:
    """F1 of two sets of words (Dice's coefficient): 2 |A and B| / (|A| + |B|), 1 for two empty."""
    total = len(one) + len(other)
    return 2.0 * len(one & other) / total if total else 1.0


class Novelty:
    """Judges captions of one camera against those said before.

    same : similarity from which two captions mean the same, 0 to 1; above 1 none do
    refresh : seconds after which the same may be said again
    memory : seconds in which a caption said before counts, so that a scene on which the model
        wavers between two sentences is not told for ever; 0: the last one only
    """

    def __init__(self, same: float = 0.75, refresh: float = 60.0, memory: float = 30.0) -> None:
        for name, value, most in (("same", same, 2.0), ("refresh", refresh, 1e9)):
            if not 0.0 <= value <= most:
                raise OptionsError(f"{name} is {value!r}; give a number from 0 to {most:g}")
        if not memory >= 0.0:
            raise OptionsError(f"memory is {memory!r}; give seconds from 0")
        self._same, self._refresh, self._memory = same, refresh, memory
        # Words, when they were said, when they last held: the newest at the end.
        self._said: deque[tuple[frozenset[str], float, float]] = deque(maxlen=REMEMBERED)

    def judge(self, text: str, now: float) -> str:
        """Whether a caption is new at ``now`` (seconds, any clock that grows).

        ``said``: new; ``repeat``: the same as before; ``refresh``: the same, but said ``refresh``
        seconds ago or more.
        """
        words = content_words(text)
        if self._said and now < self._said[-1][2]:
            self._said.clear()  # the clock went back: nothing before it can be compared
        for index in range(len(self._said) - 1, -1, -1):
            before, when, held = self._said[index]
            if index < len(self._said) - 1 and now - held > self._memory:
                continue
            if similarity(words, before) >= self._same:
                del self._said[index]
                again = now - when >= self._refresh
                self._said.append((before, now if again else when, now))
                return REFRESH if again else REPEAT
        self._said.append((words, now, now))
        return SAID


def _singular(word: str) -> str:
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word
