"""Guards of the server: which addresses it answers, to whom, and how much it reads."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
LOOPBACK = ("127.0.0.1", "localhost", "::1")
HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)
"""Of every answer: the browser loads nothing from anywhere else."""


class Guard:
    """An ASGI layer around the server.

    It answers the page's own addresses alone. A server on this machine alone answers to this machine's names, so that
    no other site can reach it by a name of its own. Requests that change something must come from the page itself.
    """

    def __init__(self, app: Any, *, prefixes: tuple[str, ...], local: bool):
        """
        Args:
          app: the layer below.
          prefixes: of the addresses that exist, beside "/".
          local: whether the server is for this machine alone.
        """
        self._app, self._prefixes, self._local = app, prefixes, local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        refused = self._refused(scope)
        if refused is not None:
            await _answer(send, *refused)
            return

        async def with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *HEADERS]
            await send(message)

        await self._app(scope, receive, with_headers)

    def _refused(self, scope: Scope) -> tuple[int, str] | None:
        """Status and message for a request that isn't answered; None for others."""
        path = scope.get("path", "")
        if scope["type"] != "http" or not (path == "/" or path.startswith(self._prefixes)):
            return 404, "there is no such address"
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get("host", "")
        if self._local and (urlsplit(f"//{host}").hostname or "") not in LOOPBACK:
            return 403, "this server is for its own machine alone"
        origin = headers.get("origin")
        if scope["method"] not in ("GET", "HEAD") and origin is not None and urlsplit(origin).netloc != host:
            return 403, "another site asked for this"
        return None


async def _answer(send: Send, status: int, message: str) -> None:
    body = message.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *HEADERS]})
    await send({"type": "http.response.body", "body": body})
