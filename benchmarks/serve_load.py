"""Does the server stand a load? Many clients post photographs; latencies, errors and its memory.

    python benchmarks/serve_load.py ../shared/data/flickr8k/images --minutes 5 \\
        --out benchmarks/records/serve_load.json

The server is a process of its own with its defaults. Exit code 1: an answer was not 200, or its
memory grew by more than the limit after the first minute.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, BinaryIO

import aiohttp
import click
import numpy as np
import psutil
from record import command, machine, spread, write_atomically

LIMIT_MB = 20.0  # growth allowed after the first minute
WARM_UP = 60.0  # seconds
START = 60.0  # seconds
READY = re.compile(rb"answers at (http://\S+)")


@click.command()
@click.argument("photographs", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--clients", type=int, default=32, show_default=True)
@click.option("--minutes", type=float, default=5.0, show_default=True)
@click.option("--count", type=int, default=500, show_default=True, help="Photographs in turn.")
@click.option("--batch", type=int, default=1, show_default=True, help="See `edgecap serve`.")
@click.option("--beside", default="", help="What else ran on the machine, for the record.")
@click.option("--out", type=click.Path(path_type=Path), help="Where the JSON record goes.")
def main(
    photographs: Path,
    clients: int,
    minutes: float,
    count: int,
    batch: int,
    beside: str,
    out: Path | None,
) -> None:
    """Post the JPEGs of PHOTOGRAPHS in turn from --clients connections for --minutes."""
    pictures = [path.read_bytes() for path in sorted(photographs.rglob("*.jpg"))[:count]]
    with tempfile.TemporaryFile() as log:
        serve = [sys.executable, "-m", "edgecap", "serve", "--port", "0", "--batch", str(batch)]
        server = subprocess.Popen(serve, stderr=log)
        try:
            address = started(server, log)
            figures = asyncio.run(load(address, pictures, clients, minutes, server.pid))
        finally:
            server.terminate()
            code = server.wait(60)
    record: dict[str, Any] = {
        "command": command("benchmarks/serve_load.py"),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "beside": beside or "nothing",
        "photographs": len(pictures),
        "bytes_mean": round(sum(map(len, pictures)) / len(pictures)),
        "clients": clients,
        "batch": batch,
        "server_exit_code": code,
        **figures,
    }
    if out is not None:
        write_atomically(out, json.dumps(record, indent=1, allow_nan=False) + "\n")
    click.echo(json.dumps({k: v for k, v in record.items() if k != "rss_samples_s_mb"}, indent=1))
    if record["errors"] or record.get("growth_mb", 0.0) > LIMIT_MB:
        raise SystemExit(1)


def started(server: subprocess.Popen[bytes], log: BinaryIO) -> str:
    """The server's address, once it says that it answers."""
    until = time.monotonic() + START
    while time.monotonic() < until and server.poll() is None:
        if found := READY.search(os.pread(log.fileno(), 1 << 16, 0)):
            return found.group(1).decode()
        time.sleep(0.1)
    raise SystemExit(f"the server did not start in {START:g} s")


async def load(
    address: str, pictures: list[bytes], clients: int, minutes: float, pid: int
) -> dict[str, Any]:
    """Post until the time is over; the figures."""
    latencies: list[float] = []
    ended: list[float] = []
    stages: list[dict[str, float]] = []
    batches: Counter[int] = Counter()
    errors: Counter[str] = Counter()
    samples: list[tuple[float, float]] = []
    process = psutil.Process(pid)
    begun = time.monotonic()
    end = begun + minutes * 60.0

    async def client(session: aiohttp.ClientSession, number: int) -> None:
        index = number
        while time.monotonic() < end:
            body = pictures[index % len(pictures)]
            index += clients
            begin = time.perf_counter()
            try:
                async with session.post(
                    "v1/caption", data=body, headers={"Content-Type": "image/jpeg"}
                ) as response:
                    answer = await response.json()
            except (aiohttp.ClientError, asyncio.TimeoutError) as error:
                errors[type(error).__name__] += 1
                continue
            latencies.append((time.perf_counter() - begin) * 1e3)
            if response.status != 200 or not answer["text"]:
                errors[str(response.status)] += 1
                continue
            stages.append(answer["latency_ms"])
            batches[answer["batch"]] += 1
        ended.append(time.monotonic())

    async def sample() -> None:
        while time.monotonic() < end:
            rss = process.memory_info().rss / 1e6
            samples.append((round(time.monotonic() - begun, 1), round(rss, 3)))
            await asyncio.sleep(5.0)

    connector = aiohttp.TCPConnector(limit=clients)
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(address, connector=connector, timeout=timeout) as session:
        await asyncio.gather(sample(), *(client(session, n) for n in range(clients)))
        async with session.get("metrics") as response:
            metrics = await response.text()
    seconds = max(ended) - begun
    later = [(moment, rss) for moment, rss in samples if moment >= WARM_UP]
    growth = {}
    if later:
        growth = {
            "rss_after_first_minute_mb": later[0][1],
            "rss_most_mb": max(rss for _, rss in later),
            "growth_mb": round(max(rss for _, rss in later) - later[0][1], 3),
            "limit_mb": LIMIT_MB,
        }
    names = stages[0] if stages else {}
    return {
        "seconds": round(seconds, 1),
        "captions": len(stages),
        "errors": sum(errors.values()),
        "errors_by_kind": dict(errors),
        "captions_per_second": round(len(stages) / seconds, 2),
        "latency_ms": {**spread(np.array(latencies)), "most": round(max(latencies), 3)},
        "stage_median_ms": {
            name: round(float(np.median([stage[name] for stage in stages])), 3) for name in names
        },
        "pictures_by_batch": {str(size): n for size, n in sorted(batches.items())},
        "counted_by_the_server": float(
            re.findall(r'^edgecap_captions_total\{source="http"\} (\S+)', metrics, re.M)[0]
        ),
        "rss_start_mb": samples[0][1],
        **growth,
        "rss_samples_s_mb": samples,
    }


if __name__ == "__main__":
    main()
