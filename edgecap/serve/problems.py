"""Answers that say what went wrong: JSON with one clear line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiohttp import web


class Problem(Exception):
    """Ends a request with ``{"error": line}``.

    status : of HTTP, such as 415
    retry : seconds after which the client may try again
    """

    def __init__(
        self,
        status: int,
        line: str,
        *,
        retry: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(line)
        self.status, self.line = status, line
        self.headers = dict(headers or {})
        if retry is not None:
            self.headers["Retry-After"] = str(retry)

    def response(self) -> web.Response:
        """The answer."""
        return answer({"error": self.line}, status=self.status, headers=self.headers)


def answer(
    values: Any, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """A JSON answer that no cache keeps."""
    import msgspec

    return web.Response(
        body=msgspec.json.encode(values),
        status=status,
        content_type="application/json",
        headers={"Cache-Control": "no-store", **(headers or {})},
    )
