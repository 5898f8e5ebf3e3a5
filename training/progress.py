"""Progress of long work on standard error."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress

T = TypeVar("T")


def track(items: Sequence[T], description: str, *, quiet: bool = False) -> Iterator[T]:
    """Iterate with a progress bar where standard error is a terminal, silently elsewhere."""
    with Meter(len(items), description, quiet=quiet) as meter:
        for item in items:
            yield item
            meter.advance()


class Meter:
    """A bar with count, rate, remaining time and a note; nothing where no terminal is."""

    def __init__(self, total: int, description: str, *, quiet: bool = False) -> None:
        self._progress = _progress(quiet)
        self._task = self._progress.add_task(description, total=total, note="")

    def __enter__(self) -> Meter:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def advance(self, note: str = "") -> None:
        """One more is done; ``note`` is shown at the end of the line."""
        self._progress.update(self._task, advance=1, note=note)


def _progress(quiet: bool) -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:.1f}/s" if speed else "")

    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        disable=quiet or not console.is_terminal,
        transient=True,
    )
