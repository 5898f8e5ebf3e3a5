"""How a peer is asked for captions: a process each, a line of JSON for a question and an answer.

Only the standard library and numpy, so that it runs in every peer's own environment; where it is
asked to resize, this project too. A peer is a file beside this one with a class that has ``load``
and ``caption``, and ends with ``serve(Class)``. What a peer prints goes to standard
error; standard output is the protocol's.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import numpy as np


class Peer(Protocol):
    """A captioner as its users run it.

    packages : what its version is told of
    step_ms : milliseconds of a decoder step in the last caption, where the peer can tell; a peer
        that cannot has no such field
    """

    packages: tuple[str, ...]

    def load(self, model: Path, threads: int) -> None:
        """Read the model. It may convert it first; that is not part of any time."""

    def caption(self, pixels: np.ndarray, beams: int, tokens: int) -> list[int]:
        """Exactly ``tokens`` token ids of the best caption, the start token not counted.

        pixels : uint8 RGB [S, S, 3]; scaling and normalisation are the peer's
        """


def serve(make: Callable[[], Peer]) -> None:
    """Answer questions on standard input until it ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--variant", default="")
    given = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a library that prints must not be taken for an answer

    def answer(**fields: Any) -> None:
        answers.write(json.dumps(fields) + "\n")
        answers.flush()

    peer = make()
    if given.variant:
        peer.variant = given.variant  # type: ignore[attr-defined]
    begin = time.perf_counter()
    try:
        peer.load(given.model, given.threads)
    except Exception as error:
        answer(error=f"{type(error).__name__}: {str(error)[:400]}")
        return
    answer(load_s=time.perf_counter() - begin, versions=_versions(peer.packages))
    for line in sys.stdin:
        question = json.loads(line)
        pixels, side = np.load(question["picture"]), question.get("side")
        begin = time.perf_counter()
        try:
            if side:
                pixels = _resized(pixels, side)
            said = peer.caption(pixels, question["beams"], question["tokens"])
        except Exception as error:
            answer(error=f"{type(error).__name__}: {str(error)[:400]}")
            continue
        ms = (time.perf_counter() - begin) * 1e3
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        step = getattr(peer, "step_ms", None)
        answer(
            tokens=[int(token) for token in said], ms=ms, step_ms=step, peak_rss_mb=round(peak, 1)
        )


def _resized(pixels: np.ndarray, side: int) -> np.ndarray:
    """A photograph as this project's models take it, inside the time of every peer."""
    from edgecap.runtime.image import resize_image

    return resize_image(pixels, side)


def _versions(packages: tuple[str, ...]) -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
