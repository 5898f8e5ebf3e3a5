"""From a frame's capture to the first sound of its sentence: the assistive profile, espeak-ng.

python benchmarks/first_word.py clip.mp4 --out benchmarks/records/first_word.json

The sound device is left out: the first sample that is not silent counts when espeak-ng gives it.
"""

from __future__ import annotations

import json
import subprocess
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click
import numpy as np
from record import command, machine, spread, write_atomically

import edgecap
from edgecap.runtime.streams import Event, Pipeline
from edgecap.runtime.streams.narrator import Narrator, preparation
from edgecap.runtime.streams.options import stream_threads
from edgecap.runtime.streams.profiles import load_profile
from edgecap.runtime.streams.told import as_told

HEADER = 44  # bytes of a WAV file before its samples


class FirstSound:
    """A sink that starts espeak-ng for each sentence and waits for its first sound."""

    name = "first sound"

    def __init__(self, speed: int) -> None:
        self.caption_ms: list[float] = []  # from the capture to the sink
        self.voice_ms: list[float] = []  # from the sink to the first sound
        self.total_ms: list[float] = []
        self._command = ["espeak-ng", "-s", str(speed), "--stdin", "--stdout"]

    def write(self, event: Event) -> None:
        """Say the event's sentence into a pipe."""
        given = time.time()
        with subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(as_told(event).sentence.encode())
            process.stdin.close()
            process.stdout.read(HEADER)
            while (sample := process.stdout.read(2)) == b"\0\0":
                pass
            heard = time.time()
            process.kill()
        if not sample:
            raise SystemExit("espeak-ng gave no sound")
        self.caption_ms.append((given - event.captured_at) * 1e3)
        self.voice_ms.append((heard - given) * 1e3)
        self.total_ms.append((heard - event.captured_at) * 1e3)

    def close(self) -> None:
        """Nothing to free."""


@click.command()
@click.argument("video")
@click.option("--sentences", default=40, show_default=True)
@click.option("--note", help="What else the machine was doing, for the record.")
@click.option("--out", type=click.Path(path_type=Path))
def main(video: str, sentences: int, note: str | None, out: Path | None) -> None:
    """Caption VIDEO in real time, over and over, and time each sentence."""
    profile = load_profile("assistive")
    captioner: Any = edgecap.load(threads=stream_threads())
    sink = FirstSound(profile.speech.speed)
    # Every caption is told, so that a short clip gives enough of them.
    options = profile.stream_options(gate="none", min_interval=0.5)
    with edgecap.open_source(video, loop=True) as source:
        pipeline = Pipeline(
            source,
            captioner,
            sinks=[sink],
            options=options,
            decoding=profile.decoding_options(),
            prepare=preparation(profile, source),
            tell=Narrator(profile).tell,
        )
        for _ in pipeline:
            if len(sink.total_ms) >= sentences + 2:
                pipeline.stop()
    record: dict[str, Any] = {
        "command": command("benchmarks/first_word.py"),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "engine": captioner.engine_choice.engine,
        "threads": captioner.engine.threads,
        "note": note,
        "sentences": len(sink.total_ms) - 2,
        **{
            name: spread(np.array(values[2:]))  # the first two warm up
            for name, values in (
                ("capture_to_sink_ms", sink.caption_ms),
                ("sink_to_first_sound_ms", sink.voice_ms),
                ("capture_to_first_sound_ms", sink.total_ms),
            )
        },
    }
    text = json.dumps(record, indent=1)
    click.echo(text)
    if out is not None:
        write_atomically(out, text + "\n")


if __name__ == "__main__":
    main()
