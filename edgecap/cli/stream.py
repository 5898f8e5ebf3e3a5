"""``edgecap stream``: captions of cameras, videos and folders, one JSON line each."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from edgecap.cli import options as shared
from edgecap.cli.main import INTERRUPTED
from edgecap.cli.signals import reloading_on_signals, stopping_on_signals

if TYPE_CHECKING:
    from edgecap.runtime.streams import Source, StreamOptions
    from edgecap.runtime.streams.profiles import Profile


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
  edgecap stream rtsp://porch/main rtsp://yard/main --sink log.db --sink "{camera}.mp4"
  edgecap stream csi://0 --size 1280x720 --deadline-ms 80
  edgecap stream rtsp://192.168.1.20/main --transport udp --reconnects 1000000
  edgecap stream "gst://videotestsrc is-live=true ! video/x-raw,width=640" --duration 5
""",
)
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@shared.MODEL
@shared.BEAMS
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
@click.option(
    "--threads", type=int, help="CPU threads; by default one less than the cores, 1 to 4."
)
@shared.ENGINE
@shared.REQUIRE_SIGNATURE
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
@shared.PROFILE
@click.option(
    "--sink",
    "sinks",
    multiple=True,
    metavar="ADDRESS",
    help="Where captions go, too: log.db, out.mp4, film.vtt, mqtt://host, speech: ... May be given "
    "more than once.",
)
@click.option(
    "--camera",
    "cameras",
    multiple=True,
    help="The camera's name for people; by default the source's. One for each source, or none.",
)
@click.pass_context
def command(
    context: click.Context,
    sources: tuple[str, ...],
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
    cameras: tuple[str, ...],
) -> None:
    """Caption live SOURCEs; one line of JSON on standard output for each caption.

    SOURCE is a video, a picture, a folder or pattern of pictures (a path or file://), a camera
    (/dev/video0, v4l2:///dev/video0, 0, csi://0), a network camera (rtsp://, http://), a
    GStreamer pipeline (gst://), a ROS 2 topic (ros2://) or a test pattern (test://moving,
    test://static, test://flashing).

    Several sources are captioned by one model, each in its turn; every line names its source. A
    camera that is lost for good is told of and left out while others run. A --sink of several
    sources may hold {camera} and {number}.

    Ends with the sources, after --max-captions or --duration, or on Ctrl-C (exit code 130) or
    SIGTERM (0), always after a whole line. SIGHUP reads the model and the profile anew while the
    cameras run on, SIGUSR1 has the next frames captioned whatever the gate says. Standard error
    gets a summary. Exit code 2: a source or the model cannot be used, or the last camera was lost
    for good.
    """
    # One clear line on an error instead of the reader's own messages; a value set outside wins.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    import edgecap
    from edgecap.runtime.streams import Cameras, Feed, JsonLines, Renewal, open_source
    from edgecap.runtime.streams.controls import Commanded
    from edgecap.runtime.streams.options import stream_threads
    from edgecap.runtime.streams.profiles import load_profile
    from edgecap.runtime.streams.sinks import Sink, SinkContext
    from edgecap.runtime.streams.sinks.several import open_for_each, share

    preset = load_profile(profile)

    def given(name: str, value: Any) -> Any:
        """An option's value if somebody gave it: a default must not win over the profile."""
        return None if context.get_parameter_source(name) is ParameterSource.DEFAULT else value

    def stream_options(preset: Profile) -> StreamOptions:
        return preset.stream_options(
            gate=given("gate", gate),
            min_interval=given("min_interval", min_interval),
            max_age=given("max_age", max_age),
            max_captions=max_captions,
            duration=duration,
            deadline=seconds("--deadline-ms", deadline_ms),
            unsure=given("unsure", unsure),
            slowest=seconds("--slowest-ms", slowest_ms),
            hottest=hottest,
        )

    def decoding(preset: Profile) -> dict[str, Any]:
        return {"beams": None, **preset.decoding_options(beams=beams)}

    def load() -> Any:
        return edgecap.load(
            model,
            threads=stream_threads(threads),
            engine=engine,
            require_signature=require_signature,
        )

    options = stream_options(preset)
    width, height = parse_size(size)
    stdout = sys.stdout.buffer
    lines = JsonLines(getattr(stdout, "raw", stdout), name="stdout")
    try:
        with contextlib.ExitStack() as stack:
            opened = [
                stack.enter_context(
                    open_source(
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
                    )
                )
                for source in sources
            ]
            names = names_of(cameras, [source.name for source in opened])
            captioner = load()
            captioner.options(**decoding(preset))  # a bad one is told before the first frame
            about = [
                SinkContext(
                    camera=name,
                    model=getattr(captioner, "name", ""),
                    patient=not source.live,
                    snapshots=preset.privacy.snapshots,
                    speech=preset.speech_options(),
                )
                for name, source in zip(names, opened, strict=True)
            ]
            columns: list[list[Sink]] = [
                share(lines, len(opened)),
                *(open_for_each(address, about) for address in sinks),
            ]
            rows = list(zip(*columns, strict=True))
            told = told_by(profile, preset, opened)
            feeds = [
                Feed(source, row, None, *parts)
                for source, row, parts in zip(opened, rows, told, strict=True)
            ]
            stream = Cameras(feeds, captioner, options=options, decoding=decoding(preset))
            for row, controls in zip(rows, stream.controls, strict=True):
                for sink in row:
                    if isinstance(sink, Commanded):
                        sink.control(controls)

            def reload() -> Renewal:
                nonlocal preset, told
                anew, captioner = load_profile(profile), load()
                captioner.options(**decoding(anew))
                renewal_options = stream_options(anew)
                if anew != preset:  # otherwise what was told is remembered
                    preset, told = anew, told_by(profile, anew, opened)
                return Renewal(captioner, renewal_options, decoding(anew), told)

            with (
                stopping_on_signals(stream.stop) as seen,
                reloading_on_signals(reload, stream.renew, stream.describe_now),
            ):
                reports = stream.run()
    except KeyboardInterrupt:
        context.exit(INTERRUPTED)
    for name, report in zip(names, reports, strict=True):
        click.echo(f"{name}: {report}" if len(reports) > 1 else str(report), err=True)
    if signal.SIGINT in seen:
        context.exit(INTERRUPTED)


def told_by(profile: str | None, preset: Profile, sources: Sequence[Source]) -> list[Any]:
    """``prepare`` and ``tell`` of each source; nothing where no profile is asked for."""
    from edgecap.runtime.streams.narrator import Narrator, preparation

    if profile is None:
        return [(None, None)] * len(sources)
    return [(preparation(preset, source), Narrator(preset)) for source in sources]


def names_of(cameras: Sequence[str], sources: Sequence[str]) -> list[str]:
    """The cameras' names for people: given, or of their sources, each once."""
    from edgecap.runtime.errors import OptionsError
    from edgecap.runtime.streams.sinks import camera_name
    from edgecap.runtime.streams.sinks.several import unlike_names

    if not cameras:
        return unlike_names([camera_name(source) for source in sources])
    if len(cameras) != len(sources) or len(set(cameras)) < len(cameras):
        raise OptionsError(
            f"{len(sources)} sources and --camera {', --camera '.join(cameras)}; "
            "give each source a name of its own, or none a name"
        )
    return list(cameras)


def seconds(option: str, milliseconds: float | None) -> float | None:
    """Milliseconds of an option as seconds."""
    if milliseconds is not None and not 0 < milliseconds < float("inf"):
        from edgecap.runtime.errors import OptionsError

        raise OptionsError(f"{option} is {milliseconds:g}; give milliseconds, more than 0")
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
