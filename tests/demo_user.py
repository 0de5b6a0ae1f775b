"""Asks a demo as a browser does."""

import base64
import http.cookiejar
import json
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

import cv2
import numpy as np


class User:
    """A browser without a window, with a cookie of its own."""

    def __init__(self, address: str):
        self.address = address
        self._opener = urllib.request.build_opener(
            urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()), urllib.request.ProxyHandler({})
        )
        self.ask("GET", "/")

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None, **query: Any
    ) -> tuple[int, bytes]:
        """The status and the body of an answer."""
        address = f"{self.address}{path}"
        if query:
            address += f"?{urllib.parse.urlencode(query, doseq=True)}"
        request = urllib.request.Request(address, body, headers or {}, method=method)
        try:
            with self._opener.open(request, timeout=120) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def json(self, method: str, path: str, body: Any = None, **query: Any) -> dict[str, Any]:
        """The object of an answer, which must succeed; a body that isn't bytes is sent as JSON."""
        sent = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        status, content = self.ask(method, path, sent, **query)
        assert status == 200, content
        return json.loads(content)


def picture(seed: int, size: tuple[int, int] = (60, 80)) -> np.ndarray:
    """(height, width, 3) uint8 of smooth noise."""
    rng = np.random.default_rng(seed)
    return cv2.resize(rng.integers(0, 256, (6, 8, 3)).astype(np.uint8), size[::-1], interpolation=cv2.INTER_CUBIC)


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image[..., ::-1] if image.ndim == 3 else image)[1].tobytes()


def of_url(url: str) -> bytes:
    """The bytes of a data URL."""
    return base64.b64decode(url.split(",", 1)[1])
