"""What a run takes of the machine: processor, memory, GPU; and who else is busy meanwhile."""

from __future__ import annotations

import resource
import threading
import time
from pathlib import Path
from types import TracebackType

import msgspec
import psutil

from edgecap.bench.gpu import Gpu
from edgecap.doctor.machine import text_of

PERIOD = 0.5  # seconds between looks
STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")


class Usage(msgspec.Struct, frozen=True):
    """Of one run. Percent of processor are of one core: 200 are two cores all the time.

    cpu_percent : of this process
    others_percent : of everything else on this machine, stolen time of a virtual machine included
    peak_rss_mb : most resident megabytes of this process since before the model was loaded
    gpu_percent, gpu_memory_mb : mean use and most memory; None without a GPU that tells
    """

    cpu_percent: float
    others_percent: float | None
    peak_rss_mb: float
    gpu_percent: float | None = None
    gpu_memory_mb: float | None = None


class Watch:
    """Looks at the machine inside a ``with`` block; ``usage`` then tells."""

    def __init__(self, gpu: Gpu | None = None) -> None:
        self._gpu = gpu
        self._done = threading.Event()
        self._thread: threading.Thread | None = None
        self._uses: list[float] = []
        self._memories: list[float] = []
        self._begin = self._own = self._all = 0.0
        self.usage: Usage | None = None

    def __enter__(self) -> Watch:
        if self._gpu is not None:  # without one nothing has to be looked at meanwhile
            self._thread = threading.Thread(target=self._work, name="usage", daemon=True)
            self._thread.start()
        self._begin, self._own, self._all = time.monotonic(), time.process_time(), busy_seconds()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        seconds = max(time.monotonic() - self._begin, 1e-9)
        own = time.process_time() - self._own
        everything = busy_seconds() - self._all
        self._done.set()
        if self._thread is not None:
            self._thread.join()
        self.usage = Usage(
            cpu_percent=round(100 * own / seconds, 1),
            # The kernel counts in ticks of 10 ms: a short run cannot tell who else was busy.
            others_percent=(
                round(max(0.0, 100 * (everything - own) / seconds), 1) if seconds >= 1 else None
            ),
            peak_rss_mb=round(peak_megabytes(), 1),
            gpu_percent=_mean(self._uses),
            gpu_memory_mb=max(self._memories, default=None),
        )

    def _work(self) -> None:
        assert self._gpu is not None
        while not self._done.wait(PERIOD):
            use, memory = self._gpu.use(), self._gpu.memory_mb()
            if use is not None:
                self._uses.append(use)
            if memory is not None:
                self._memories.append(round(memory, 1))


def busy_seconds() -> float:
    """Processor seconds that this machine's cores were not idle, or not to be had."""
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    # Guests are in user time already.
    return float(
        sum(times) - idle - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    )


def reset_peak() -> bool:
    """Let the kernel count the peak of resident memory anew; False where it does not."""
    try:
        CLEAR.write_text("5")
    except OSError:
        return False
    return True


def peak_megabytes() -> float:
    """Most resident megabytes since ``reset_peak``, or since the start where that does nothing."""
    for line in text_of(STATUS).splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def _mean(values: list[float]) -> float | None:
    return round(sum(values) / len(values), 1) if values else None
