"""Does a lost RTSP camera cost anything? Ends a real server again and again under one stream.

    python benchmarks/stream_reconnect.py --losses 200 --out RECORD.json

The server is GStreamer's, as in the tests, killed by SIGKILL and started again on the same port.
After each loss the stream must give frames again. Threads, file descriptors and resident memory of
the reading process are sampled after each recovery. Exit code 1: a loss was not recovered, or
threads or descriptors grew, or memory grew by over 5 MB after the first twenty losses.
"""

from __future__ import annotations

import json
import subprocess
import threading
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click
import psutil
from record import command, machine, write_atomically

from edgecap.runtime.streams import open_source
from edgecap.runtime.streams.sources import camera

SERVER = Path(__file__).parents[1] / "tests" / "runtime" / "streams" / "rtsp_server.py"
WARM_UP = 20  # losses
LIMIT_MB = 5.0
FRAMES = 3  # that must come after each loss


@click.command()
@click.option("--losses", type=int, default=200, show_default=True)
@click.option("--python", default="/usr/bin/python3", help="A Python with GStreamer's bindings.")
@click.option("--out", type=click.Path(path_type=Path), help="Where the JSON record goes.")
def main(losses: int, python: str, out: Path | None) -> None:
    """Lose a camera --losses times and record what that left behind."""
    camera.FIRST_DELAY, camera.LONGEST_DELAY = 0.1, 0.5  # the point is the number, not the waiting
    server, port = start(python, 0)
    samples: list[dict[str, Any]] = []
    recovered = 0
    process = psutil.Process()
    seconds: list[float] = []
    begun = time.monotonic()
    with open_source(
        f"rtsp://127.0.0.1:{port}/camera", reconnects=1000, read_timeout=5.0
    ) as source:
        opened = threading.Event()
        source.listener = lambda kind, _: opened.set() if kind == "open" else None
        assert source.read() is not None
        for _ in range(losses):
            opened.clear()
            server.kill()
            server.communicate()
            lost = time.monotonic()
            server, _ = start(python, port)
            while not opened.is_set():  # frames of before may come first
                if source.read() is None:
                    break
            if all(source.read() is not None for _ in range(FRAMES)):
                recovered += 1
            seconds.append(time.monotonic() - lost)
            samples.append(
                {
                    "threads": process.num_threads(),
                    "descriptors": process.num_fds(),
                    "rss_mb": round(process.memory_info().rss / 1e6, 3),
                }
            )
    server.kill()
    server.communicate()
    first = samples[min(WARM_UP, len(samples) - 1)]
    later = samples[min(WARM_UP, len(samples) - 1) :]
    growth = {name: round(max(each[name] for each in later) - first[name], 3) for name in first}
    record = {
        "command": command("benchmarks/stream_reconnect.py"),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "losses": losses,
        "recovered": recovered,
        "minutes": round((time.monotonic() - begun) / 60.0, 1),
        "longest_recovery_s": round(max(seconds), 2),
        "after_warm_up": first,
        "at_the_end": samples[-1],
        "most_above_warm_up": growth,
        "limit_mb": LIMIT_MB,
        "samples": samples[:: max(1, losses // 50)],
    }
    if out is not None:
        write_atomically(out, json.dumps(record, indent=1) + "\n")
    click.echo(json.dumps({key: value for key, value in record.items() if key != "samples"}))
    grown = growth["threads"] > 0 or growth["descriptors"] > 0 or growth["rss_mb"] > LIMIT_MB
    if recovered < losses or grown:
        raise SystemExit(1)


def start(python: str, port: int) -> tuple[subprocess.Popen[str], int]:
    """A server on ``port`` (0: any free one), ready to be asked."""
    server = subprocess.Popen(
        [python, str(SERVER), "--port", str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert server.stdout is not None
    return server, int(server.stdout.readline())


if __name__ == "__main__":
    main()
