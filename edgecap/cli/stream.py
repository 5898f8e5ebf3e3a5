"""``edgecap stream``: captions of a camera, a video or a folder, one JSON line each."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType

import click

from edgecap.cli.main import INTERRUPTED


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  edgecap stream clip.mp4
  edgecap stream /dev/video0 --min-interval 1
  edgecap stream rtsp://user:password@192.168.1.20/stream1 --max-captions 10
  edgecap stream holiday/ --beams 1 > captions.jsonl
  edgecap stream clip.mp4 --no-realtime --gate none
  edgecap stream test://moving --duration 5
""",
)
@click.argument("source")
@click.option("--model", default="default", show_default=True, help="Name or path of a bundle.")
@click.option("--beams", type=int, help="Beam width; the model's own if not given.")
@click.option("--loop/--no-loop", default=False, help="Begin a file or folder again at its end.")
@click.option(
    "--realtime/--no-realtime",
    default=True,
    help="Play a video at its own speed, newest frame first; or take every frame in turn.",
)
@click.option(
    "--gate",
    type=click.Choice(["auto", "none", "thumbnail"]),
    default="auto",
    show_default=True,
    help="Skip frames in which nothing changed; auto: for video, not for separate pictures.",
)
@click.option("--min-interval", type=float, default=0.0, help="Least seconds between captions.")
@click.option(
    "--max-age",
    type=float,
    default=60.0,
    show_default=True,
    help="Caption an unchanged scene again after so many seconds.",
)
@click.option("--max-captions", type=int, help="End after so many captions.")
@click.option("--duration", type=float, help="End after so many seconds.")
@click.option("--threads", type=int, help="CPU threads; by default the cores, at most 4.")
@click.option("--engine", metavar="NAME", help="What runs the model; see docs/gpu.md [auto].")
@click.option(
    "--require-signature",
    type=click.Path(),
    metavar="KEY",
    help="Public key (PEM) that must have signed the model.",
)
@click.option(
    "--reconnects",
    type=int,
    default=10,
    show_default=True,
    help="Attempts in a row to get a lost camera back.",
)
@click.pass_context
def command(
    context: click.Context,
    source: str,
    model: str,
    beams: int | None,
    loop: bool,
    realtime: bool,
    gate: str,
    min_interval: float,
    max_age: float,
    max_captions: int | None,
    duration: float | None,
    threads: int | None,
    engine: str | None,
    require_signature: str | None,
    reconnects: int,
) -> None:
    """Caption a live SOURCE; one line of JSON on standard output for each caption.

    SOURCE is a video, a picture or a folder of pictures (a path or file://), a camera
    (/dev/video0, v4l2:///dev/video0 or 0), a network camera (rtsp://) or a test pattern
    (test://moving, test://static, test://flashing).

    Ends with the source, after --max-captions or --duration, or on Ctrl-C (exit code 130) or
    SIGTERM (0), always after a whole line. Standard error gets a summary. Exit code 2: the source
    or the model cannot be used, or a camera was lost for good.
    """
    # One clear line on an error instead of the reader's own messages; a value set outside wins.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    import edgecap
    from edgecap.runtime.streams import JsonLines, Pipeline, StreamOptions, open_source

    options = StreamOptions(
        gate=gate,
        min_interval=min_interval,
        max_age=max_age,
        max_captions=max_captions,
        duration=duration,
    )
    stdout = sys.stdout.buffer
    sink = JsonLines(getattr(stdout, "raw", stdout), name="stdout")
    try:
        with open_source(source, loop=loop, realtime=realtime, reconnects=reconnects) as frames:
            captioner = edgecap.load(
                model, threads=threads, engine=engine, require_signature=require_signature
            )
            decoding = {"beams": beams}
            captioner.options(**decoding)  # a bad one is told before the first frame
            pipeline = Pipeline(frames, captioner, sinks=[sink], options=options, decoding=decoding)
            with stopping_on_signals(pipeline.stop) as seen:
                report = pipeline.run()
    except KeyboardInterrupt:
        context.exit(INTERRUPTED)
    click.echo(str(report), err=True)
    if signal.SIGINT in seen:
        context.exit(INTERRUPTED)


@contextlib.contextmanager
def stopping_on_signals(stop: Callable[[], None]) -> Iterator[list[int]]:
    """Call ``stop`` on SIGINT and SIGTERM; gives the list of signals seen.

    A second Ctrl-C interrupts at once, for those who do not want to wait for the first.
    """
    seen: list[int] = []

    def handle(number: int, _: FrameType | None) -> None:
        seen.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        stop()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
