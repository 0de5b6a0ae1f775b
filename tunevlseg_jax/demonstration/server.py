"""The server: the page's files and addresses, images in as bytes, answers out as JSON."""

import json
import secrets
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tunevlseg_jax.demonstration.actions import Demo
from tunevlseg_jax.demonstration.guards import LOOPBACK, Guard
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.optional import import_web_server

COOKIE = "tunevlseg_demo"
PORTS = range(7860, 7960)
BACKLOG = 128
"""Connections that may wait for the server."""
PAGES = Path(__file__).parent / "pages"
KINDS = {".html": "text/html; charset=utf-8", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
PREFIXES = ("/pages/", "/state", "/examples", "/segment", "/download", "/corrections", "/training")
Work = Callable[[Any, str, bytes], Any]
"""The work of an address: from the request, the user's token and the body to JSON or to the bytes of a file."""


def serve(demo: Demo, host: str, port: int | None) -> str:
    """Starts the server in a thread, which ends with the process.

    Args:
      demo: what it shows.
      host: address to listen on.
      port: to listen on; None for the first free one of PORTS.

    Returns:
      Its address.

    Raises:
      UserError: a package of the server isn't installed, or the port is taken.
    """
    uvicorn = import_web_server("python -m tunevlseg_jax.demo")
    listening = _listen(host, port)
    settings = uvicorn.Config(
        application(demo, local=host in LOOPBACK), lifespan="off", ws="none", log_config=None, server_header=False
    )
    threading.Thread(
        target=uvicorn.Server(settings).run, kwargs={"sockets": [listening]}, name="server", daemon=True
    ).start()
    return f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}/"


def _listen(host: str, port: int | None) -> socket.socket:
    """A socket that takes connections already.

    Raises:
      UserError: the port is taken, or there is no such address here.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    failure: OSError | None = None
    for number in (port,) if port is not None else PORTS:
        try:
            return socket.create_server((host, number), family=family, backlog=BACKLOG)
        except OSError as error:
            failure = error
    where = f"{host}:{port}" if port is not None else f"{host}, on any port from {PORTS[0]} to {PORTS[-1]}"
    raise UserError(f"can't listen on {where}: {failure}; choose another --port", "unreachable-port") from failure


def application(demo: Demo, *, local: bool) -> Any:
    """The page's addresses as an ASGI application; `local` is that of `Guard`."""
    from starlette.applications import Starlette  # pyright: ignore[reportMissingImports] # of the extra `demo`
    from starlette.middleware import Middleware  # pyright: ignore[reportMissingImports]
    from starlette.requests import Request  # pyright: ignore[reportMissingImports]
    from starlette.responses import Response  # pyright: ignore[reportMissingImports]
    from starlette.routing import Route  # pyright: ignore[reportMissingImports]

    files = {path.name: (path.read_bytes(), KINDS[path.suffix]) for path in PAGES.iterdir() if path.suffix in KINDS}

    async def page(request: Request) -> Response:
        content, kind = files["page.html"]
        response = Response(content, media_type=kind)
        if not request.cookies.get(COOKIE):
            response.set_cookie(COOKIE, secrets.token_urlsafe(24), httponly=True, samesite="strict", max_age=10**7)
        return response

    async def file(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in files:
            return Response("there is no such file", 404)
        return Response(files[name][0], media_type=files[name][1])

    routes = [Route("/", page), Route("/pages/{name}", file)]
    for (method, path), work in _works(demo).items():
        routes.append(Route(path, _handler(work, 3 * demo.limits.bytes), methods=[method]))
    return Starlette(routes=routes, middleware=[Middleware(Guard, prefixes=PREFIXES, local=local)])


def _works(demo: Demo) -> dict[tuple[str, str], Work]:
    """The work of each method and path."""

    def of(token: str) -> Any:
        return demo.sessions.of(token)

    def segment(request: Any, token: str, body: bytes) -> Any:
        query = request.query_params
        return demo.segment(of(token), body, query.getlist("phrase"), query.getlist("model"))

    def download(request: Any, token: str, body: bytes) -> bytes:
        query = request.query_params
        phrases, names, least = query.getlist("phrase"), query.getlist("model"), query.get("threshold", "0.5")
        return demo.download(of(token), body, query.get("name", ""), phrases, names, least)

    return {
        ("GET", "/state"): lambda request, token, body: demo.state(of(token)),
        ("GET", "/examples"): lambda request, token, body: demo.examples_shown(),
        ("GET", "/examples/{number}"): lambda request, token, body: demo.example(request.path_params["number"]),
        ("POST", "/segment"): segment,
        ("POST", "/download"): download,
        ("POST", "/corrections"): lambda request, token, body: demo.correct(of(token), body),
        ("DELETE", "/corrections/{number}"): lambda request, token, body: demo.forget(
            of(token), request.path_params["number"]
        ),
        ("GET", "/training"): lambda request, token, body: of(token).progress(),
        ("POST", "/training"): lambda request, token, body: demo.start(token, body),
        ("DELETE", "/training"): lambda request, token, body: demo.cancel(of(token)),
    }


def _handler(work: Work, most: int) -> Any:
    """The handler of an address, in a thread of the pool; a mistake is answered by its message and code."""
    from starlette.concurrency import run_in_threadpool  # pyright: ignore[reportMissingImports]
    from starlette.requests import ClientDisconnect, Request  # pyright: ignore[reportMissingImports]
    from starlette.responses import Response  # pyright: ignore[reportMissingImports]

    async def handle(request: Request) -> Response:
        token = request.cookies.get(COOKIE) or ""
        try:
            body = await _body(request, most)
            result = await run_in_threadpool(work, request, token, body)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        except UserError as error:
            content, kind = json.dumps({"error": str(error), "code": error.code}), "application/json"
            return Response(content, 400, media_type=kind)
        if isinstance(result, bytes):
            return Response(result, media_type="application/octet-stream")
        return Response(json.dumps(result), media_type="application/json")

    return handle


async def _body(request: Any, most: int) -> bytes:
    """The body of a request, of which no more than `most` bytes are kept.

    Raises:
      UserError: it has more.
    """
    parts, size = list[bytes](), 0
    async for part in request.stream():
        size += len(part)
        if size <= most:
            parts.append(part)
    if size > most:
        raise UserError(f"the request has more than {most / 2**20:.0f} MiB; save the image smaller", "out-of-range")
    return b"".join(parts)
