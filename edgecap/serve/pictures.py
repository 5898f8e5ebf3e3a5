"""A posted picture: its bytes out of the request, checked before a pixel is decoded."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from aiohttp import BodyPartReader, web
from aiohttp.http_exceptions import HttpProcessingError

from edgecap.serve.options import ServeOptions
from edgecap.serve.problems import Problem

# What runtime/image.py reads, and what clients send that do not know.
TYPES = ("image/jpeg", "image/png", "image/webp", "image/bmp", "image/gif", "image/tiff")
ALIASES = ("image/jpg", "image/x-ms-bmp", "image/pjpeg", "application/octet-stream")
FIELD = "picture"
CHUNK = 1 << 16
MAGIC = (b"\xff\xd8", b"\x89PNG", b"BM", b"GIF8", b"II*\0", b"MM\0*")


class Uploads:
    """Takes pictures in while what is in memory stays under a bound."""

    def __init__(self, options: ServeOptions) -> None:
        self._options = options
        self._room = options.uploads * options.max_bytes

    @asynccontextmanager
    async def take(self, request: web.Request) -> AsyncIterator[bytes]:
        """The picture of a request, as body or as the form field ``picture``.

        Raises ``Problem``: 411 to 415, 408 where it comes too slowly, 503 where too many come.
        """
        most = self._options.max_bytes
        multipart = request.content_type == "multipart/form-data"
        if not multipart and request.content_type not in (*TYPES, *ALIASES):
            raise Problem(
                415,
                f"Content-Type is {request.content_type!r}; give one of {', '.join(TYPES)}, or "
                f"multipart/form-data with a field {FIELD!r}",
            )
        extra = 4096 if multipart else 0  # boundaries and headers of parts
        size = most + extra if request.content_length is None else request.content_length
        if size > most + extra:
            raise too_large(size, most)
        if size > self._room:
            raise Problem(503, "too many pictures are coming in at once", retry=1)
        self._room -= size
        try:
            reading = _from_form(request, most) if multipart else _from_body(request, most)
            try:
                data = await asyncio.wait_for(reading, self._options.body_timeout)
            except asyncio.TimeoutError:
                raise Problem(
                    408,
                    f"the picture did not come within {self._options.body_timeout:g} s",
                    headers={"Connection": "close"},
                ) from None
            yield data
        finally:
            self._room += size


def too_large(size: int | None, most: int) -> Problem:
    """413 for a picture of too many bytes."""
    given = "more" if size is None else f"{size}"
    return Problem(413, f"the picture has {given} bytes; at most {most} are taken: scale it down")


async def _from_body(request: web.Request, most: int) -> bytes:
    data = bytearray()
    async for chunk in request.content.iter_chunked(CHUNK):
        data += chunk
        if len(data) > most:
            raise too_large(None, most)
    return bytes(data)


async def _from_form(request: web.Request, most: int) -> bytes:
    try:
        reader = await request.multipart()
        while (part := await reader.next()) is not None:
            if not isinstance(part, BodyPartReader) or part.name != FIELD:
                raise Problem(
                    400,
                    f"the form has a field {getattr(part, 'name', None)!r}; give one field "
                    f"{FIELD!r} that holds a picture",
                )
            data = bytearray()
            while chunk := await part.read_chunk(CHUNK):
                data += chunk
                if len(data) > most:
                    raise too_large(None, most)
            return bytes(data)
    except (HttpProcessingError, ValueError, AssertionError, LookupError) as error:
        raise Problem(400, f"the form is damaged: {' '.join(str(error).split())}") from None
    raise Problem(400, f"the form has no field {FIELD!r}; give one that holds a picture")


def check_picture(data: bytes, most: int) -> None:
    """Refuse what is no picture (415) or declares more than ``most`` pixels (413).

    Damage that shows only while decoding is told of by ``load_image``.
    """
    import imagesize

    if not data:
        raise Problem(400, f"the request is empty; give a picture: {', '.join(TYPES)}")
    if not data.startswith(MAGIC) and not (data[:4] == b"RIFF" and data[8:12] == b"WEBP"):
        raise Problem(415, f"the {len(data)} bytes are no picture; give {', '.join(TYPES)}")
    width = height = -1
    with suppress(Exception):  # it raises many kinds on damaged headers
        width, height = imagesize.get(io.BytesIO(data))
    if width < 1 or height < 1:
        raise Problem(400, "the picture is damaged or cut short: it does not say its size")
    if width * height > most:
        raise Problem(
            413,
            f"the picture declares {width} x {height} pixels; at most {most / 1e6:g} megapixels "
            "are taken: scale it down",
        )
