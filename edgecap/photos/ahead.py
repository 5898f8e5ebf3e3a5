"""Pictures are read by several threads ahead of the captioner, which takes them in batches."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import numpy as np

from edgecap.photos.walk import Photograph
from edgecap.runtime.caption import Caption
from edgecap.runtime.captioner import MAX_BATCH, Captioner
from edgecap.runtime.decoding.options import DecodingOptions
from edgecap.runtime.errors import EdgeCapError, ImageError
from edgecap.runtime.image import RGB

Job = TypeVar("Job")
Result = TypeVar("Result")


def ahead(
    jobs: Iterable[Job], read: Callable[[Job], Result], *, workers: int | None = None, most: int = 0
) -> Iterator[tuple[Job, Result | EdgeCapError]]:
    """Each job with what ``read`` makes of it, in their order, read by threads meanwhile.

    read : an ``EdgeCapError`` that it raises is the job's result; others end the whole
    workers : threads; by default the cores at hand, at most 8
    most : how many jobs are begun before they are asked for; by default 2 batches and 1 a thread
    """
    workers = workers or min(os.cpu_count() or 1, 8)
    most = most or 2 * MAX_BATCH + workers
    waiting: deque[tuple[Job, Future[Result]]] = deque()
    rest = iter(jobs)
    with ThreadPoolExecutor(workers, thread_name_prefix="edgecap-read") as pool:
        try:
            while True:
                for job in islice(rest, most - len(waiting)):
                    waiting.append((job, pool.submit(read, job)))
                if not waiting:
                    return
                job, future = waiting.popleft()
                try:
                    result: Result | EdgeCapError = future.result()
                except EdgeCapError as error:
                    result = error
                yield job, result
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def describe(
    captioner: Captioner, pictures: Sequence[RGB], options: DecodingOptions
) -> list[Caption]:
    """Captions of pictures as ``Captioner.prepare`` gives them, at most ``MAX_BATCH``."""
    return captioner.decode(captioner.engine.encode(np.stack(pictures)), options)


def caption_photographs(
    captioner: Captioner,
    photographs: Iterable[Photograph],
    options: DecodingOptions,
    *,
    workers: int | None = None,
) -> Iterator[tuple[Photograph, Caption | EdgeCapError]]:
    """Each photograph, in order, with its caption or with why it cannot be read."""
    batch: list[tuple[Photograph, RGB | EdgeCapError]] = []
    readable = 0

    def read(photograph: Photograph) -> RGB:
        try:
            return captioner.prepare(photograph.path)
        except MemoryError:
            raise ImageError(f"{photograph.path} does not fit into memory; scale it down") from None

    for photograph, pixels in ahead(photographs, read, workers=workers):
        batch.append((photograph, pixels))
        readable += not isinstance(pixels, EdgeCapError)
        if readable == MAX_BATCH or len(batch) == 4 * MAX_BATCH:
            yield from _captioned(captioner, batch, options)
            batch, readable = [], 0
    yield from _captioned(captioner, batch, options)


def _captioned(
    captioner: Captioner,
    batch: Sequence[tuple[Photograph, RGB | EdgeCapError]],
    options: DecodingOptions,
) -> Iterator[tuple[Photograph, Caption | EdgeCapError]]:
    pictures = [pixels for _, pixels in batch if not isinstance(pixels, EdgeCapError)]
    captions = iter(describe(captioner, pictures, options) if pictures else ())
    for photograph, pixels in batch:
        yield photograph, pixels if isinstance(pixels, EdgeCapError) else next(captions)
