"""``edgecap stream``: captions of a camera, a video or a folder, one JSON line each."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import click
from click.core import ParameterSource

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
  edgecap stream /dev/video0 --profile assistive --sink speech:
  edgecap stream rtsp://192.168.1.20/main --profile smart-home --sink mqtt://broker.local
  edgecap stream csi://0 --size 1280x720 --deadline-ms 80
  edgecap stream rtsp://192.168.1.20/main --transport udp --reconnects 1000000
  edgecap stream "gst://videotestsrc is-live=true ! video/x-raw,width=640" --duration 5
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
@click.option(
    "--wait/--no-wait",
    default=True,
    help="Wait for a camera that is absent at the start, as for a lost one; or end at once.",
)
@click.option(
    "--transport",
    type=click.Choice(["auto", "tcp", "udp"]),
    default="auto",
    show_default=True,
    help="How RTSP comes; auto: TCP first.",
)
@click.option(
    "--latency-ms",
    type=float,
    default=500.0,
    show_default=True,
    help="Drop frames of a network camera that are later than this.",
)
@click.option(
    "--decoder",
    type=click.Choice(["auto", "hardware", "software"]),
    default="auto",
    show_default=True,
    help="What decodes RTSP; auto: a Jetson's hardware where there is one.",
)
@click.option("--size", metavar="WIDTHxHEIGHT", help="Size asked of a camera, such as 1280x720.")
@click.option("--rate", type=float, help="Frames per second of a camera, video or folder.")
@click.option("--deadline-ms", type=float, help="End decoding so long after a frame's capture.")
@click.option(
    "--unsure",
    type=click.Choice(["mark", "silent"]),
    default="mark",
    show_default=True,
    help='Captions under the model\'s confidence floor: marked ("sure": false) or left out.',
)
@click.option(
    "--slowest-ms",
    type=float,
    help="Lower quality in steps while 1 caption in 100 takes longer from its capture.",
)
@click.option(
    "--hottest", type=float, help="Lower quality in steps while the device is hotter (Celsius)."
)
@click.option(
    "--profile",
    metavar="NAME",
    help="driving, smart-home, assistive or a YAML file: see `edgecap profiles`.",
)
@click.option(
    "--sink",
    "sinks",
    multiple=True,
    metavar="ADDRESS",
    help="Where captions go, too: log.db, out.mp4, film.vtt, mqtt://host, speech: ... May be given "
    "more than once.",
)
@click.option("--camera", help="The camera's name for people; by default the source's.")
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
    wait: bool,
    transport: str,
    latency_ms: float,
    decoder: str,
    size: str | None,
    rate: float | None,
    deadline_ms: float | None,
    unsure: str,
    slowest_ms: float | None,
    hottest: float | None,
    profile: str | None,
    sinks: tuple[str, ...],
    camera: str | None,
) -> None:
    """Caption a live SOURCE; one line of JSON on standard output for each caption.

    SOURCE is a video, a picture, a folder or pattern of pictures (a path or file://), a camera
    (/dev/video0, v4l2:///dev/video0, 0, csi://0), a network camera (rtsp://, http://), a
    GStreamer pipeline (gst://), a ROS 2 topic (ros2://) or a test pattern (test://moving,
    test://static, test://flashing).

    Ends with the source, after --max-captions or --duration, or on Ctrl-C (exit code 130) or
    SIGTERM (0), always after a whole line. SIGHUP reads the model anew while the camera runs on,
    SIGUSR1 has the next frame captioned whatever the gate says. Standard error gets a summary.
    Exit code 2: the source or the model cannot be used, or a camera was lost for good.
    """
    # One clear line on an error instead of the reader's own messages; a value set outside wins.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    import edgecap
    from edgecap.runtime.streams import JsonLines, Pipeline, open_source
    from edgecap.runtime.streams.controls import Commanded
    from edgecap.runtime.streams.narrator import Narrator, preparation
    from edgecap.runtime.streams.profiles import load_profile
    from edgecap.runtime.streams.sinks import SinkContext, camera_name, open_sink

    preset = load_profile(profile)

    def given(name: str, value: Any) -> Any:
        """An option's value if somebody gave it: a default must not win over the profile."""
        return None if context.get_parameter_source(name) is ParameterSource.DEFAULT else value

    options = preset.stream_options(
        gate=given("gate", gate),
        min_interval=given("min_interval", min_interval),
        max_age=given("max_age", max_age),
        max_captions=max_captions,
        duration=duration,
        deadline=seconds(deadline_ms),
        unsure=given("unsure", unsure),
        slowest=seconds(slowest_ms),
        hottest=hottest,
    )
    width, height = parse_size(size)
    stdout = sys.stdout.buffer
    sink = JsonLines(getattr(stdout, "raw", stdout), name="stdout")
    try:
        with open_source(
            source,
            loop=loop,
            realtime=realtime,
            reconnects=reconnects,
            wait=wait,
            transport=transport,
            latency=latency_ms / 1e3,
            decoder=decoder,
            width=width,
            height=height,
            rate=rate,
        ) as frames:

            def load() -> Any:
                return edgecap.load(
                    model, threads=threads, engine=engine, require_signature=require_signature
                )

            captioner = load()
            decoding = {"beams": None, **preset.decoding_options(beams=beams)}
            captioner.options(**decoding)  # a bad one is told before the first frame
            about = SinkContext(
                camera=camera or camera_name(frames.name),
                model=getattr(captioner, "name", ""),
                patient=not frames.live,
                snapshots=preset.privacy.snapshots,
                speech=preset.speech_options(),
            )
            opened = [sink, *(open_sink(address, about) for address in sinks)]
            pipeline = Pipeline(
                frames,
                captioner,
                sinks=opened,
                options=options,
                decoding=decoding,
                prepare=None if profile is None else preparation(preset, frames),
                tell=None if profile is None else Narrator(preset),
            )
            for commanded in opened:
                if isinstance(commanded, Commanded):
                    commanded.control(pipeline.controls)
            with (
                stopping_on_signals(pipeline.stop) as seen,
                reloading_on_signals(load, pipeline.exchange, pipeline.describe_now),
            ):
                report = pipeline.run()
    except KeyboardInterrupt:
        context.exit(INTERRUPTED)
    click.echo(str(report), err=True)
    if signal.SIGINT in seen:
        context.exit(INTERRUPTED)


def seconds(milliseconds: float | None) -> float | None:
    """Milliseconds of an option as seconds."""
    return None if milliseconds is None else milliseconds / 1e3


def parse_size(size: str | None) -> tuple[int | None, int | None]:
    """Width and height out of ``1280x720``."""
    if size is None:
        return None, None
    width, sign, height = size.lower().partition("x")
    if not sign or not all(side.isascii() and side.isdigit() for side in (width, height)):
        from edgecap.runtime.errors import OptionsError

        raise OptionsError(f"{size!r} is no size; give WIDTHxHEIGHT, such as 1280x720")
    return int(width), int(height)


@contextlib.contextmanager
def reloading_on_signals(
    load: Callable[[], Any], exchange: Callable[[Any], None], describe_now: Callable[[], None]
) -> Iterator[None]:
    """On SIGHUP call ``load`` in a thread and ``exchange`` its model; on SIGUSR1 ``describe_now``.

    A model that cannot be loaded is told of in one line, and the old one goes on.
    """
    import threading

    from edgecap.runtime.errors import EdgeCapError

    wanted, done = threading.Event(), threading.Event()

    def work() -> None:
        while wanted.wait() and not done.is_set():
            wanted.clear()
            try:
                exchange(load())
            except EdgeCapError as error:
                click.echo(f"edgecap: the model stays as it is: {error}", err=True)

    thread = threading.Thread(target=work, name="model loader", daemon=True)
    thread.start()

    def ask(*_: object) -> None:
        # A handler must not take a lock its thread may hold, as those of controls and events.
        threading.Thread(target=describe_now, daemon=True).start()

    def reload(*_: object) -> None:
        threading.Thread(target=wanted.set, daemon=True).start()

    before = {
        number: signal.signal(number, handler)
        for number, handler in ((signal.SIGHUP, reload), (signal.SIGUSR1, ask))
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        done.set()
        wanted.set()


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
