"""``edgecap bench``: latency from camera to caption by stage; and its subcommands."""

from __future__ import annotations

import contextlib
import importlib
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from edgecap.cli.main import BAD_INPUT, INTERRUPTED

if TYPE_CHECKING:
    from edgecap.bench.measure import Step

UNEQUAL = 1  # an engine said something else than the reference

# subcommand -> (its module with a ``command``, what it does); imported when it is run.
SUBCOMMANDS = {
    "compare": ("edgecap.cli.bench_compare", "Say whether two records differ by more than noise."),
    "project": ("edgecap.cli.bench_project", "Estimate latency on a device that is not here."),
}


class Bench(click.Command):
    """A command whose first word may name a subcommand; else that word is the model."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        if args and args[0] in SUBCOMMANDS:
            module = importlib.import_module(SUBCOMMANDS[args[0]][0])
            chosen = cast(click.Command, module.command)
            return chosen.make_context(f"{info_name} {args[0]}", args[1:], parent=parent, **extra)
        return super().make_context(info_name, args, parent=parent, **extra)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Subcommands"):
            formatter.write_dl([(name, text) for name, (_, text) in SUBCOMMANDS.items()])
        super().format_epilog(ctx, formatter)


@click.command(
    cls=Bench,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  edgecap bench
  edgecap bench my.edgecap --source /dev/video0 --duration 60 --json camera.json
  edgecap bench --source clip.mp4 --loop --beams 1,4 --threads 1,2 --html bench.html
  edgecap bench --engine onnxruntime,native --json both.json
  edgecap bench compare before.json after.json
""",
)
@click.argument("model", default="default")
@click.option("--source", metavar="ADDRESS", help="Camera, file or folder [generated pictures].")
@click.option("--beams", metavar="N,...", help="Beam widths; the model's own if not given.")
@click.option("--threads", metavar="N,...", help="CPU threads; by default the cores, at most 4.")
@click.option("--engine", metavar="NAME,...", help="What runs the model; see docs/gpu.md [auto].")
@click.option(
    "--precision", metavar="NAME,...", help="Of own decoder steps: int8, bf16, fp32 [the model's]."
)
@click.option(
    "--duration", type=float, default=15.0, show_default=True, help="Seconds for each run."
)
@click.option("--captions", type=int, help="End each run after so many captions.")
@click.option(
    "--warm-up",
    type=int,
    default=10,
    show_default=True,
    help="Captions before the measured ones; the first is the cold one.",
)
@click.option("--loop/--no-loop", default=False, help="Begin a file or folder again at its end.")
@click.option(
    "--realtime/--no-realtime",
    default=False,
    help="Play a video at its own speed, newest frame first; or caption every frame in turn.",
)
@click.option("--json", "record_path", type=click.Path(path_type=Path), help="Write the record.")
@click.option("--html", "page_path", type=click.Path(path_type=Path), help="Write a page of it.")
@click.pass_context
def command(
    context: click.Context,
    model: str,
    source: str | None,
    beams: str | None,
    threads: str | None,
    engine: str | None,
    precision: str | None,
    duration: float,
    captions: int | None,
    warm_up: int,
    loop: bool,
    realtime: bool,
    record_path: Path | None,
    page_path: Path | None,
) -> None:
    """Measure MODEL (a name or the path of a bundle) from a frame's capture to its caption.

    Every combination of beams, threads, engines and precisions is a run. Each engine must first say
    what the reference says, else no time is shown. Ctrl-C ends the measurement and keeps what there
    is.
    Exit code 2: the source or the model cannot be used; 1: an engine failed that check; 130: ended
    by Ctrl-C.
    """
    from edgecap.bench.options import BenchOptions, whole_numbers

    options = BenchOptions(
        source=source,
        beams=whole_numbers("beams", beams),
        threads=whole_numbers("threads", threads),
        engines=(None,) if engine is None else tuple(engine.split(",")),
        precisions=(None,) if precision is None else tuple(precision.split(",")),
        duration=duration,
        captions=captions,
        warm_up=warm_up,
        loop=loop,
        realtime=realtime,
    )
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    from edgecap.bench.measure import Bench
    from edgecap.bench.record import check_place, write_record
    from edgecap.bench.tables import print_record
    from edgecap.cli.signals import stopping_on_signals
    from edgecap.models import resolve

    for path in (record_path, page_path):
        if path is not None:
            check_place(path)  # told before the measurement, not after it
    if page_path is not None:
        for package in ("jinja2", "matplotlib"):
            importlib.import_module(package)
    with showing_progress() as tell:
        bench = Bench(resolve(model), options, command_line(), tell)
        with stopping_on_signals(bench.stop) as seen:
            record = bench.run()
    print_record(record)
    if record_path is not None:
        write_record(record_path, record)
    if page_path is not None:
        from edgecap.bench.report import write_page

        write_page(page_path, record)
    if signal.SIGINT in seen:
        context.exit(INTERRUPTED)
    if not all(run.equality.passed for run in record.runs):
        context.exit(UNEQUAL)
    if not any(run.captions for run in record.runs):
        context.exit(BAD_INPUT)


def command_line() -> str:
    """How this was started, with the folders of absolute paths left out."""
    words = [Path(word).name if os.path.isabs(word) else word for word in sys.argv[1:]]
    return shlex.join(["edgecap", *words])


@contextlib.contextmanager
def showing_progress() -> Iterator[Callable[[Step], None]]:
    """A bar on a terminal's standard error; gives what is to be called with each step.

    It is drawn when it is told something, and never by a thread of its own: that would take time
    from what is measured.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("run {task.fields[run]}"), BarColumn(), TextColumn("{task.description}"))
    console = Console(stderr=True)
    with Progress(
        *columns,
        console=console,
        auto_refresh=False,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task("begins", total=1.0, run="")

        def tell(step: Step) -> None:
            run = f"{step.run} of {step.runs}"
            bar.update(task, description=step.what, completed=step.share, run=run)
            bar.refresh()

        yield tell
