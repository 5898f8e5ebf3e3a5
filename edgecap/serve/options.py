"""Options of the server: frozen, validated once."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

from edgecap.runtime.errors import OptionsError

TOKEN_VARIABLE = "EDGECAP_TOKEN"
LEAST_TOKEN = 16  # characters
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class ServeOptions:
    """Where the server listens, who may ask, and how much. Times are in seconds, sizes in bytes."""

    host: str = "127.0.0.1"
    port: int = 8765
    token: str | None = None  # needed beyond loopback
    hosts: tuple[str, ...] = ()  # names that the Host header may hold, beside those of loopback
    max_bytes: int = 20_000_000  # of a posted picture
    max_pixels: int = 40_000_000
    queue: int = 64  # pictures that wait for the captioner
    batch: int = 1  # pictures captioned together, of those that wait: on a CPU it gains little
    uploads: int = 8  # pictures of max_bytes that may be in memory while they come in
    rate: str = "500/second"  # requests of one client
    connections: int = 256  # at once, of all clients
    viewers: int = 32  # clients of the events
    previews: int = 8  # clients of the moving preview
    preview_rate: float = 10.0  # pictures per second in it
    pictures: bool = True  # whether pictures of cameras are shown
    history: int = 200  # captions that are kept, with their thumbnails
    header_timeout: float = 10.0  # from the first byte, or the connection, to the end of headers
    body_timeout: float = 30.0
    idle_timeout: float = 60.0  # of a kept connection, until its next request
    write_timeout: float = 20.0  # of a client that does not read
    stuck: float = 30.0  # silence of cameras or captioner after which the server is not healthy

    def __post_init__(self) -> None:
        if not self.host:
            raise OptionsError("no host is given; give 127.0.0.1, 0.0.0.0 or an address of yours")
        for name, low, high in (
            ("port", 0, 65535),
            ("max_bytes", 1000, 1 << 30),
            ("max_pixels", 1000, 100_000_000),
            ("queue", 1, 10_000),
            ("batch", 1, 64),
            ("uploads", 1, 1000),
            ("connections", 4, 100_000),
            ("viewers", 1, 10_000),
            ("previews", 1, 1000),
            ("history", 1, 10_000),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise OptionsError(f"{name} is {value!r}; give a whole number from {low} to {high}")
        for name in (
            "preview_rate", "header_timeout", "body_timeout", "idle_timeout", "write_timeout",
            "stuck",
        ):  # fmt: skip
            value = getattr(self, name)
            if isinstance(value, bool) or not 0.01 <= value <= 1e6:
                raise OptionsError(f"{name} is {value!r}; give a number from 0.01")
        _check_rate(self.rate)
        if self.token is not None and len(self.token) < LEAST_TOKEN:
            raise OptionsError(
                f"the token has {len(self.token)} characters; give at least {LEAST_TOKEN}, "
                "such as what `openssl rand -hex 24` prints"
            )
        if self.token is None and not self.loopback:
            raise OptionsError(
                f"{self.host} can be reached from other machines and no token is given; give "
                f"--token-file FILE or set {TOKEN_VARIABLE}, or listen on 127.0.0.1"
            )

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether a name or address is this machine's own."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() in LOOPBACK_NAMES


def find_token(token: str | None, file: str | os.PathLike[str] | None) -> str | None:
    """The token as given, out of a file, or of the environment variable EDGECAP_TOKEN.

    Raises OptionsError for both, and for a file that cannot be read or is empty.
    """
    if token is not None and file is not None:
        raise OptionsError("both a token and a token file are given; give one of them")
    if file is not None:
        try:
            text = Path(file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not text"
            raise OptionsError(
                f"the token file {os.fspath(file)} cannot be read: {reason}"
            ) from None
        if not text:
            raise OptionsError(f"the token file {os.fspath(file)} is empty; write a token into it")
        return text
    found = os.environ.get(TOKEN_VARIABLE) if token is None else token
    return found or None


def _check_rate(rate: str) -> None:
    from limits import parse

    try:
        parse(rate)
    except ValueError:
        raise OptionsError(
            f"rate is {rate!r}; give requests and a time, such as 500/second or 600/minute"
        ) from None
