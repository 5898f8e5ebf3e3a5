"""How many threads a graph runs with."""

from __future__ import annotations

import os
from pathlib import Path

from edgecap.runtime.errors import OptionsError

MAX_THREADS = 4


def thread_count(threads: int | None) -> int:
    """``threads`` after a check; by default the physical cores at hand, at most 4."""
    if threads is None:
        return min(physical_cores(), MAX_THREADS)
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= 256:
        raise OptionsError(f"threads is {threads!r}; give a whole number from 1 to 256")
    return threads


def physical_cores() -> int:
    """Physical cores that this process may run on."""
    try:
        usable = os.sched_getaffinity(0)
    except AttributeError:  # only Linux tells
        return os.cpu_count() or 1
    cores = set()
    for cpu in usable:
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            cores.add(siblings.read_text())
        except OSError:
            cores.add(str(cpu))
    return max(1, len(cores))
