"""Who has come and gone is told though the gate lets nothing pass any more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from edgecap.runtime.caption import Caption, Timings
from edgecap.runtime.streams import Pipeline, StreamOptions
from edgecap.runtime.streams.narrator import Narrator
from edgecap.runtime.streams.profiles.profile import PresencePart, Profile
from edgecap.runtime.streams.sources.base import Picture
from edgecap.runtime.streams.told import Told

BRIGHT, SECONDS = 200, 40


def dog_while_bright(sure: bool) -> Callable[..., Caption]:
    def describe(image: np.ndarray, *, channels: str) -> Caption:
        text = "a dog" if image.mean() > 100 else "a tree"
        return Caption(text, (5, 2), -0.5, 0.9, sure or text == "a dog", Timings())

    return describe


@pytest.mark.parametrize("unsure", ["mark", "silent"])
@pytest.mark.parametrize("sure", [True, False])
def test_leaving_is_told_of_a_scene_that_stands_still(
    script: Any, picture: Callable[..., Picture], sure: bool, unsure: str
) -> None:
    """A dog for five seconds, then an empty scene that does not change for longer than max_age."""

    def pictures() -> Iterator[Picture]:
        for tenth in range(10 * SECONDS):
            yield picture(BRIGHT if tenth < 50 else 0, pts=tenth / 10)

    part = PresencePart({"dog": ["dog"]}, appear=2, leave=3)
    narrator = Narrator(Profile(presence=part))
    options = StreamOptions(gate="thumbnail", max_age=600.0, unsure=unsure)
    source = script(pictures(), live=False)
    pipeline = Pipeline(source, dog_while_bright(sure), options=options, tell=narrator)
    told = [event for event in pipeline if isinstance(event, Told)]
    notes = [(note.kind, event.pts) for event in told for note in event.notes]
    if sure:
        assert [kind for kind, _ in notes] == ["appeared", "left"]
        (_, came), (_, left) = notes
        assert came == pytest.approx(1.0, abs=0.11)
        assert left == pytest.approx(11.0, abs=0.21), "ten seconds after it was named last"
    else:
        assert [kind for kind, _ in notes] == ["appeared"]
    # It is looked at again once a second while it is open, and not for ever.
    captioned = pipeline.report.captions + pipeline.report.skipped.get("unsure", 0)
    assert captioned <= (10 if sure else 8)
