"""The server: the page's files and addresses on Gradio's, images in as bytes, answers out as JSON."""

import json
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tunevlseg_jax.demonstration.actions import Demo
from tunevlseg_jax.demonstration.guards import LOOPBACK, Guard
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.optional import import_gradio

COOKIE = "tunevlseg_demo"
PAGES = Path(__file__).parent / "pages"
KINDS = {".html": "text/html; charset=utf-8", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
PREFIXES = ("/pages/", "/state", "/examples/", "/segment", "/download", "/corrections", "/training")
Work = Callable[[Any, str, bytes], Any]
"""The work of an address: from the request, the user's token and the body to JSON or to the bytes of a file."""


def serve(demo: Demo, host: str, port: int | None) -> tuple[Any, str]:
    """Starts the server in a thread.

    Args:
      demo: what it shows.
      host: address to listen on.
      port: to listen on; None for the first free one from 7860.

    Returns:
      The server and its address.

    Raises:
      UserError: Gradio isn't installed, or the port is taken.
    """
    gradio = import_gradio("python -m tunevlseg_jax.demo")
    server = gradio.Server(title="tunevlseg_jax", docs_url=None, redoc_url=None, openapi_url=None)
    add_routes(server, demo)
    server.add_middleware(Guard, prefixes=PREFIXES, local=host in LOOPBACK)
    try:
        _, address, _ = server.launch(
            server_name=host,
            server_port=port,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            ssr_mode=False,
            run_history=False,
            enable_monitoring=False,
            mcp_server=False,
            pwa=False,
            _frontend=False,
        )
    except OSError as error:
        raise UserError(
            f"can't listen on {host}:{port or 7860}: {error}; choose another --port", "unreachable-port"
        ) from error
    return server, address


def add_routes(server: Any, demo: Demo) -> None:
    """Adds the page's addresses to a FastAPI application."""
    from fastapi import Request, Response  # pyright: ignore[reportMissingImports] # of the extra `demo`

    files = {path.name: (path.read_bytes(), KINDS[path.suffix]) for path in PAGES.iterdir() if path.suffix in KINDS}

    @server.get("/")
    def page(request: Request) -> Response:
        content, kind = files["page.html"]
        response = Response(content, media_type=kind)
        if not request.cookies.get(COOKIE):
            response.set_cookie(COOKIE, secrets.token_urlsafe(24), httponly=True, samesite="strict", max_age=10**7)
        return response

    @server.get("/pages/{name}")
    def file(name: str) -> Response:
        if name not in files:
            return Response("there is no such file", 404)
        return Response(files[name][0], media_type=files[name][1])

    for (method, path), work in _works(demo).items():
        server.add_api_route(path, _handler(work, 3 * demo.limits.bytes), methods=[method])


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
    from fastapi import Request, Response  # pyright: ignore[reportMissingImports]
    from fastapi.concurrency import run_in_threadpool  # pyright: ignore[reportMissingImports]

    async def handle(request: Request) -> Response:
        token = request.cookies.get(COOKIE) or ""
        try:
            body = await _body(request, most)
            result = await run_in_threadpool(work, request, token, body)
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
