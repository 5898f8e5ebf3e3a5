"""Who may ask: the token, the names a browser may call us by, and where its requests come from."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from aiohttp import web

from edgecap.serve.options import ServeOptions, is_loopback
from edgecap.serve.problems import Problem, answer

COOKIE = "edgecap"
WEEK = 7 * 24 * 3600
SAFE = ("GET", "HEAD", "OPTIONS")
# What a browser needs to show the login form, and what says nothing of pictures or captions.
OPEN = ("/", "/login", "/healthz", "/openapi.json")
OPEN_FOLDER = "/console/"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Access:
    """Decides about each request before anything else looks at it; raises ``Problem``."""

    def __init__(self, options: ServeOptions) -> None:
        from limits import parse
        from limits.storage import MemoryStorage
        from limits.strategies import MovingWindowRateLimiter

        self._options = options
        self._token = None if options.token is None else options.token.encode()
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._rate = parse(options.rate)
        self._logins = parse("10/minute")
        self._hosts = {name.lower() for name in options.hosts}

    def check(self, request: web.Request) -> None:
        """Host, origin, rate and token, in this order."""
        self._check_host(request)
        self._check_origin(request)
        if request.path != "/healthz" and not self._limiter.hit(self._rate, client_of(request)):
            raise Problem(
                429, f"more than {self._options.rate} came from your address; wait", retry=1
            )
        if not self._may(request):
            raise Problem(
                401,
                "the token is missing or wrong; send the header Authorization: Bearer TOKEN",
                headers={"WWW-Authenticate": 'Bearer realm="edgecap"'},
            )

    async def login(self, request: web.Request) -> web.Response:
        """``POST /login`` with the token as JSON or form: a cookie for browsers."""
        if self._token is None:
            return answer({"ok": True})
        if not self._limiter.hit(self._logins, "login", client_of(request)):
            raise Problem(429, "too many attempts to log in; wait a minute", retry=60)
        try:
            given = await request.json() if _is_json(request) else await request.post()
            token = given["token"]
        except (ValueError, KeyError, TypeError):
            raise Problem(400, 'the token is missing; send {"token": "..."}') from None
        if not isinstance(token, str) or not self._equal(token.strip(), self._token):
            raise Problem(401, "the token is wrong")
        response = answer({"ok": True})
        response.set_cookie(
            COOKIE,
            self._cookie(),
            max_age=WEEK,
            httponly=True,
            samesite="Strict",
            secure=request.secure,
            path="/",
        )
        return response

    async def logout(self, request: web.Request) -> web.Response:
        """``POST /logout``: the cookie goes."""
        response = answer({"ok": True})
        response.del_cookie(COOKIE, path="/")
        return response

    def _may(self, request: web.Request) -> bool:
        if self._token is None or request.path in OPEN or request.path.startswith(OPEN_FOLDER):
            return True
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        if kind.lower() == "bearer" and self._equal(token.strip(), self._token):
            return True
        cookie = request.cookies.get(COOKIE)
        return cookie is not None and self._equal(cookie, self._cookie().encode())

    def _cookie(self) -> str:
        """Derived from the token, so that it holds over restarts and ends with the token."""
        assert self._token is not None
        return hmac.new(self._token, b"edgecap console", hashlib.sha256).hexdigest()

    @staticmethod
    def _equal(given: str, wanted: bytes) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), wanted)

    def _check_host(self, request: web.Request) -> None:
        """A page that made its name point to this machine must not read our answers."""
        if not self._options.loopback and not self._hosts:
            return
        name = host_name(request.headers.get("Host", ""))
        if is_loopback(name) or name in self._hosts or name == self._options.host.lower():
            return
        raise Problem(
            421, f"the Host header names {name[:100]!r}, not this server; see --allow-host"
        )

    def _check_origin(self, request: web.Request) -> None:
        """Another site's page must not post here with a browser's cookies or from its machine."""
        if request.method in SAFE:
            return
        origin = request.headers.get("Origin")
        site = request.headers.get("Sec-Fetch-Site", "none")
        foreign = site not in ("none", "same-origin")
        if origin is not None:
            foreign = foreign or urlsplit(origin).netloc != request.headers.get("Host", "")
        if foreign:
            raise Problem(403, "a page of another site asked for this; only the console may")


def client_of(request: web.Request) -> str:
    """The address of who asks."""
    return request.remote or "unknown"


def host_name(header: str) -> str:
    """The name in a Host header, without its port."""
    try:
        return (urlsplit(f"//{header}").hostname or "").lower()
    except ValueError:
        return ""


def _is_json(request: web.Request) -> bool:
    return request.content_type == "application/json"
