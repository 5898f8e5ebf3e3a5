"""Whole cold processes: `import edgecap`, and `edgecap caption photo.jpg` to its last line.

python benchmarks/cold_start.py --out benchmarks/records/cold_start.json
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
from record import command, machine, spread, write_atomically
from skimage import data


@click.command()
@click.option("--runs", default=15, show_default=True)
@click.option("--out", type=click.Path(path_type=Path))
def main(runs: int, out: Path | None) -> None:
    """Time processes from their start to their end, and read their peak memory."""
    with tempfile.TemporaryDirectory() as folder:
        photograph = f"{folder}/cat.jpg"
        cv2.imwrite(photograph, data.cat()[..., ::-1])
        python = sys.executable
        record: dict[str, Any] = {
            "command": command("benchmarks/cold_start.py"),
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "machine": machine(),
            "python_alone": processes([python, "-c", "pass"], runs),
            "import_edgecap": processes([python, "-c", "import edgecap"], runs),
            "caption_photo": processes([python, "-m", "edgecap", "caption", photograph], runs),
        }
    text = json.dumps(record, indent=1)
    click.echo(text)
    if out is not None:
        write_atomically(out, text + "\n")


def processes(words: list[str], runs: int) -> dict[str, Any]:
    """Wall seconds and peak resident megabytes of ``runs`` processes after one warm-up."""
    walls, peaks = [], []
    for _ in range(runs + 1):
        begin = time.perf_counter()
        child = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        walls.append(time.perf_counter() - begin)
        peaks.append(usage.ru_maxrss * 1024 / 1e6)
        if status:
            raise SystemExit(f"{words}: status {status}")
    # A child's peak counts what it shared with this process before exec: smaller peaks are hidden.
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    figures: dict[str, Any] = {"wall_s": spread(np.array(walls[1:]))}
    if min(peaks) > 1.1 * own:
        figures["peak_rss_mb"] = spread(np.array(peaks[1:]))
    return figures


if __name__ == "__main__":
    main()
