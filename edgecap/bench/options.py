"""What is measured: frozen, validated once."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgecap.runtime.engines.choose import check_name
from edgecap.runtime.engines.native_step import PRECISIONS
from edgecap.runtime.errors import OptionsError

GENERATED = "test://moving"  # the source where none is given
MOST_BEAMS = 64
MOST_THREADS = 1024
MOST_SAMPLES = 1_000_000  # captions of one run: a record of them has some 40 MB


@dataclass(frozen=True)
class BenchOptions:
    """What ``edgecap bench`` measures; every combination of beams, threads, engines and
    precisions is a run.

    source : address of a camera, file or folder; None for the generated pictures
    beams : beam widths; (None,) for the model's own
    threads : CPU threads; (None,) for the usual number
    engines : names of ``engines.choose``; (None,) for the one that ``edgecap.load`` takes
    precisions : of own decoder steps on the CPU; (None,) for the bundle's
    duration : seconds that each run is measured, after the warm-up
    captions : a run ends after so many captions, too; None for no such end
    warm_up : captions of each run that are left out of its figures, the first one is the cold one
    loop : begin a file or folder again at its end
    realtime : play a video at its own speed; else every frame is captioned, one after another
    """

    source: str | None = None
    beams: tuple[int | None, ...] = (None,)
    threads: tuple[int | None, ...] = (None,)
    engines: tuple[str | None, ...] = (None,)
    precisions: tuple[str | None, ...] = (None,)
    duration: float = 15.0
    captions: int | None = None
    warm_up: int = 10
    loop: bool = False
    realtime: bool = False

    def __post_init__(self) -> None:
        _each("beams", self.beams, MOST_BEAMS)
        _each("threads", self.threads, MOST_THREADS)
        for name in self.engines:
            check_name(name)
        for precision in self.precisions:
            if precision is not None and precision not in PRECISIONS:
                raise OptionsError(
                    f"precision is {precision!r}; give one or more of {', '.join(PRECISIONS)}"
                )
        for title, values in (
            ("beams", self.beams),
            ("threads", self.threads),
            ("engine", self.engines),
            ("precision", self.precisions),
        ):
            if not values or len(set(values)) < len(values):
                raise OptionsError(f"{title} is {list(values)}; give each value once")
        if not 0.0 < self.duration <= 86400.0 or math.isnan(self.duration):
            raise OptionsError(
                f"duration is {self.duration:g} s; give more than 0 and at most 86400 seconds"
            )
        if self.captions is not None and not 1 <= self.captions <= MOST_SAMPLES:
            raise OptionsError(
                f"captions is {self.captions}; give a whole number from 1 to {MOST_SAMPLES}"
            )
        if not 1 <= self.warm_up <= 10_000:
            raise OptionsError(
                f"warm-up is {self.warm_up}; give 1 to 10000 captions: the first one is cold"
            )

    @property
    def address(self) -> str:
        """The source that is opened."""
        return GENERATED if self.source is None else self.source


def whole_numbers(name: str, text: str | None) -> tuple[int | None, ...]:
    """``"1,4"`` as (1, 4), of the option ``name``; (None,) for None."""
    if text is None:
        return (None,)
    numbers: list[int | None] = []
    for word in text.split(","):
        word = word.strip()
        if not (word.isascii() and word.isdigit() and len(word) < 10):
            raise OptionsError(f"{name} is {text!r}; give whole numbers with commas, such as 1,4")
        numbers.append(int(word))
    return tuple(numbers)


def _each(name: str, values: tuple[int | None, ...], most: int) -> None:
    for value in values:
        if value is not None and not 1 <= value <= most:
            raise OptionsError(f"{name} is {value}; give whole numbers from 1 to {most}")
