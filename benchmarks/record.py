"""What every benchmark record holds: command, machine, and figures that are not averages."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

MACHINE = ("cpu", "cores", "memory_gb", "system", "python")


def paired(
    ours: Callable[[], object],
    peer: Callable[[], object],
    rounds: int,
    warm_up: int = 5,
    pause_s: float = 0.0,
) -> dict[str, float]:
    """Time two calls in turn, so that a change of the machine's speed hits both.

    pause_s : before each call, so that threads of the other one's library have stopped spinning

    Returns milliseconds (median and 99th percentile of each) and the median of peer / ours.
    """
    times = np.zeros((rounds + warm_up, 2))
    for row in times:
        for column, call in enumerate((ours, peer)):
            time.sleep(pause_s)
            begin = time.perf_counter()
            call()
            row[column] = (time.perf_counter() - begin) * 1e3
    kept = times[warm_up:]
    return {
        **{f"ours_{name}_ms": value for name, value in spread(kept[:, 0]).items()},
        **{f"peer_{name}_ms": value for name, value in spread(kept[:, 1]).items()},
        "ratio_median": round(float(np.median(kept[:, 1] / kept[:, 0])), 2),
        "rounds": rounds,
    }


def spread(values: np.ndarray) -> dict[str, float]:
    """Median and 99th percentile."""
    return {
        "median": round(float(np.median(values)), 3),
        "p99": round(float(np.percentile(values, 99)), 3),
    }


def command(script: str) -> str:
    """How this was started, with the folders of absolute paths left out."""
    words = [Path(word).name if os.path.isabs(word) else word for word in sys.argv[1:]]
    return shlex.join(["python", script, *words])


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    from edgecap.bench.machine import this_machine

    found = this_machine()
    return {name: getattr(found, name) for name in MACHINE}


def write_atomically(path: Path, text: str) -> None:
    """Write in one move, in a folder that is made where there is none."""
    from edgecap.runtime.files import replacing

    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(text.encode())
