"""What may be said of a list of times: percentiles, spread, drift, and the ratio of two lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from edgecap.bench.usage import Usage

P90_NEEDS = 10  # samples from which a percentile is told at all
P99_NEEDS = 100
P99_WANTS = 1000  # with fewer a 99th percentile hangs on fewer than ten samples
MOST_SPREAD = 0.25  # interquartile range over median of work that is the same each time
MOST_DRIFT = 0.05  # of the median from the first half to the second
MOST_OTHERS = 20.0  # percent of a core that other programs may take
BLOCK_S = 1.0  # neighbours of so long are drawn together: they share the machine's moods
DRAWS = 1000
MOST_AT_ONCE = 2_000_000  # redrawn samples in memory
LEAST_BLOCKS = 5  # with fewer an interval means nothing


class Summary(msgspec.Struct, frozen=True):
    """A list of times in milliseconds.

    p90, p99 : None where there are too few samples to tell
    spread : interquartile range over median
    drift : median of the second half over that of the first, less 1
    """

    count: int
    p50: float
    p90: float | None
    p99: float | None
    max: float
    mean: float
    spread: float
    drift: float


def summarize(values: Sequence[float] | npt.NDArray[np.float64]) -> Summary:
    """Figures of at least one finite time, rounded to 0.1 microseconds."""
    times = np.asarray(values, np.float64)
    if times.ndim != 1 or not len(times) or not np.isfinite(times).all():
        raise ValueError(f"{times.shape} times with {np.isfinite(times).sum()} finite ones")
    low, middle, high = np.percentile(times, (25, 50, 75))
    half = len(times) // 2
    first = float(np.median(times[:half])) if half else 0.0

    def percentile(share: float, least: int) -> float | None:
        return round(float(np.percentile(times, share)), 4) if len(times) >= least else None

    return Summary(
        count=len(times),
        p50=round(float(middle), 4),
        p90=percentile(90, P90_NEEDS),
        p99=percentile(99, P99_NEEDS),
        max=round(float(times.max()), 4),
        mean=round(float(times.mean()), 4),
        spread=round(float((high - low) / middle), 4) if middle > 0 else 0.0,
        drift=round(float(np.median(times[half:])) / first - 1, 4) if first > 0 else 0.0,
    )


def restless(stages: Mapping[str, Summary], usage: Usage | None) -> list[str]:
    """Why a machine was too restless for a verdict, in words; empty where it was quiet.

    The encoder's time is looked at: its work is the same for every frame, so what changes there is
    the machine.
    """
    encode = stages.get("encode")
    told = []
    if encode is not None and encode.spread > MOST_SPREAD:
        told.append(
            f"the encoder's time spreads by {encode.spread:.0%} of its median, "
            f"over {MOST_SPREAD:.0%}"
        )
    if encode is not None and abs(encode.drift) > MOST_DRIFT:
        told.append(
            f"the encoder's median drifted by {encode.drift:+.1%} from the first half to the "
            f"second, over {MOST_DRIFT:.0%}"
        )
    others = None if usage is None else usage.others_percent
    if others is not None and others > MOST_OTHERS:
        told.append(f"other programs took {others:.0f} % of a core, over {MOST_OTHERS:.0f} %")
    return told


@dataclass(frozen=True)
class Ratio:
    """median(a) / median(b): above 1 means that b is faster. low, high : 95 % of the draws."""

    value: float
    low: float
    high: float


def ratio_of_medians(
    a: npt.NDArray[np.float64], b: npt.NDArray[np.float64], seed: int = 0
) -> Ratio | None:
    """The ratio of two lists' medians with a bootstrap interval; None with too few samples.

    a, b : milliseconds in the order they were measured. Blocks of neighbours are drawn instead of
        single samples, since slow captions come in groups (Kuensch 1989, the moving block
        bootstrap; blocks here go round the end, Politis and Romano 1992).
    """
    rng = np.random.default_rng(seed)
    medians = [_medians(np.asarray(times, np.float64), rng) for times in (a, b)]
    if medians[0] is None or medians[1] is None:
        return None
    low, high = np.percentile(medians[0] / medians[1], (2.5, 97.5))
    return Ratio(float(np.median(a) / np.median(b)), float(low), float(high))


def _medians(
    times: npt.NDArray[np.float64], rng: np.random.Generator
) -> npt.NDArray[np.float64] | None:
    """Medians of redrawn lists; None with too few samples or without time in them."""
    count = len(times)
    if count < P90_NEEDS or np.median(times) <= 0:
        return None
    # As many neighbours as take BLOCK_S, but enough blocks to draw from.
    block = int(np.clip(BLOCK_S * 1e3 / times.mean(), 1, max(1, count // (2 * LEAST_BLOCKS))))
    blocks = -(-count // block)
    inside = np.arange(block)
    found = np.empty(DRAWS)
    at_once = max(1, MOST_AT_ONCE // count)
    for begin in range(0, DRAWS, at_once):
        end = min(begin + at_once, DRAWS)
        starts = rng.integers(0, count, (end - begin, blocks, 1))
        places = (starts + inside).reshape(end - begin, -1)[:, :count] % count
        found[begin:end] = np.median(times[places], axis=1)
    return found if (found > 0).all() else None
