"""Posted pictures to captions: a bounded queue, decoding beside it, batches on one thread."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecap.runtime.caption import Caption
from edgecap.runtime.captioner import Captioner
from edgecap.runtime.decoding.options import DecodingOptions
from edgecap.serve.pictures import check_picture
from edgecap.serve.problems import Problem

# Query -> the option of decoding and its type.
OPTIONS: dict[str, tuple[str, type]] = {
    "beams": ("beams", int),
    "max_tokens": ("max_new_tokens", int),
    "min_tokens": ("min_new_tokens", int),
    "length_penalty": ("length_penalty", float),
    "no_repeat_ngram_size": ("no_repeat_ngram_size", int),
    "repetition_penalty": ("repetition_penalty", float),
}
MOST_BEAMS = 16  # memory and time grow with them
DECODERS = 2  # pictures that are decoded at once: each may take 3 bytes a pixel


@dataclass
class Job:
    """A picture that waits: uint8 [S, S, 3] RGB. Times are moments on ``time.perf_counter``."""

    pixels: npt.NDArray[np.uint8]
    options: DecodingOptions
    queued: float
    answer: Future[Described] = field(default_factory=Future)


@dataclass(frozen=True)
class Described:
    """A caption and its milliseconds: ``queue`` until its batch began, and how many were in it."""

    caption: Caption
    queue: float
    encode: float
    decode: float
    batch: int


class PostedPictures:
    """Captions pictures one batch at a time; what waits together is encoded together.

    captioner : what captions; streams may use the same one
    waiting : most pictures that wait; more are refused with 503
    batch : most pictures that are captioned together
    max_pixels : of a picture, checked before it is decoded
    """

    def __init__(self, captioner: Captioner, *, waiting: int, batch: int, max_pixels: int) -> None:
        self.captioner = captioner
        self.done = 0
        self.refused = 0
        self.busy_since: float | None = None  # on time.monotonic, while a batch is worked on
        self._max_pixels = max_pixels
        self._most, self._batch = waiting, batch
        self._taken = 0  # pictures between their acceptance and their answer
        self._queue: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._decoders = ThreadPoolExecutor(DECODERS, thread_name_prefix="picture decoder")
        self._thread = threading.Thread(target=self._work, name="captions of requests", daemon=True)

    def start(self) -> None:
        """Start the worker."""
        self._thread.start()

    def close(self) -> None:
        """Answer what waits, then end."""
        self._decoders.shutdown(wait=True, cancel_futures=True)
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    @property
    def waiting(self) -> int:
        """Pictures that were accepted and have no answer yet."""
        return self._taken

    async def describe(self, data: bytes, options: DecodingOptions) -> tuple[Described, float]:
        """The caption of a picture file, and the milliseconds that its decoding took.

        Raises ``Problem`` (503 when too many wait, 413, 415) and ``ImageError``. Belongs to the
        event loop's thread.
        """
        if self._taken >= self._most:
            self.refused += 1
            raise Problem(
                503, f"{self._most} pictures wait already; try again in a second", retry=1
            )
        self._taken += 1
        try:
            begin = time.perf_counter()
            check_picture(data, self._max_pixels)
            loop = asyncio.get_running_loop()
            pixels = await loop.run_in_executor(self._decoders, self._decode, data)
            job = Job(pixels, options, time.perf_counter())
            self._queue.put(job)
            described = await asyncio.wrap_future(job.answer)
            return described, (job.queued - begin) * 1e3
        finally:
            self._taken -= 1

    def _decode(self, data: bytes) -> npt.NDArray[np.uint8]:
        return self.captioner.prepare(data)

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            jobs = [job]
            ending = False
            while len(jobs) < self._batch and not ending:
                try:
                    more = self._queue.get_nowait()
                except queue.Empty:
                    break
                ending = more is None
                if more is not None:
                    jobs.append(more)
            alive = [job for job in jobs if job.answer.set_running_or_notify_cancel()]
            # Pictures with other options are another batch: a search has one set of them.
            groups: dict[DecodingOptions, list[Job]] = {}
            for job in alive:
                groups.setdefault(job.options, []).append(job)
            for group in groups.values():
                self._describe(group)
            if ending:
                return

    def _describe(self, jobs: Sequence[Job]) -> None:
        self.busy_since = time.monotonic()
        try:
            begin = time.perf_counter()
            encoded = self.captioner.engine.encode(np.stack([job.pixels for job in jobs]))
            ready = time.perf_counter()
            captions = self.captioner.decode(encoded, jobs[0].options)
            end = time.perf_counter()
        except Exception as error:
            for job in jobs:
                job.answer.set_exception(error)
            return
        finally:
            self.busy_since = None
        self.done += len(jobs)
        for job, caption in zip(jobs, captions, strict=True):
            job.answer.set_result(
                Described(
                    caption,
                    queue=(begin - job.queued) * 1e3,
                    encode=(ready - begin) * 1e3,
                    decode=(end - ready) * 1e3,
                    batch=len(jobs),
                )
            )


def decoding_of(captioner: Captioner, query: Any) -> DecodingOptions:
    """Decoding options out of a request's query; raises ``Problem`` (400) for bad ones."""
    from edgecap.runtime.errors import OptionsError

    given: dict[str, Any] = {}
    for name, text in query.items():
        if name not in OPTIONS:
            raise Problem(400, f"there is no option {name!r}; give one of {', '.join(OPTIONS)}")
        option, kind = OPTIONS[name]
        try:
            given[option] = kind(text)
        except ValueError:
            what = "a whole number" if kind is int else "a number"
            raise Problem(400, f"{name} is {text!r}; give {what}") from None
    if given.get("beams", 1) > MOST_BEAMS:
        raise Problem(400, f"beams is {given['beams']}; give a whole number from 1 to {MOST_BEAMS}")
    try:
        return captioner.options(**given)
    except OptionsError as error:
        raise Problem(400, str(error)) from None
