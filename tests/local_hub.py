"""A Hugging Face hub on this machine: repositories, commits, large files and downloads, as huggingface_hub asks."""

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "hf_test"
LARGE = (".safetensors", ".png")
"""Endings of the files that are uploaded beside the commit, as LFS."""


@dataclass
class Repository:
    """The files of a repository after its last commit, by path."""

    files: dict[str, bytes] = field(default_factory=dict)
    private: bool = True

    @property
    def sha(self) -> str:
        """Of the last commit."""
        digests = (f"{path} {hashlib.sha1(content).hexdigest()}" for path, content in sorted(self.files.items()))
        return hashlib.sha1("\n".join(digests).encode()).hexdigest()


@dataclass
class Hub:
    """The hub's content, and what it was asked for.

    Attributes:
      address: of its endpoint.
      repositories: by id.
      gated: ids that need accepted terms.
      objects: uploaded large files, by sha256.
      downloaded: paths of files that were asked for.
    """

    address: str
    repositories: dict[str, Repository] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    objects: dict[str, bytes] = field(default_factory=dict)
    downloaded: list[str] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    """Answers huggingface_hub's requests."""

    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *arguments: object) -> None:
        """Prints nothing."""

    def do_POST(self) -> None:
        """Creates repositories, and takes commits."""
        body = (
            self.rfile.read(int(self.headers.get("Content-Length") or 0)) if "Content-Length" in self.headers else b""
        )
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = self._chunks()
        path = self.path.partition("?")[0]
        if path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._json({"error": "Invalid credentials in Authorization header"}, 401)
        elif path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            private = asked.get("visibility", "private" if asked.get("private") else "public") == "private"
            self.hub.repositories.setdefault(name, Repository(private=private))
            self._json({"url": f"{self.hub.address}/{name}", "id": name, "name": name})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", path):
            files = [
                {"path": one["path"], "shouldIgnore": False, "oid": None}
                | {"uploadMode": "lfs" if one["path"].endswith(LARGE) else "regular"}
                for one in json.loads(body)["files"]
            ]
            self._json({"files": files})
        elif path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**one, "actions": {"upload": {"href": f"{self.hub.address}/lfs/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            self._json({"transfer": "basic", "objects": objects})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
            self._commit(match[1], body)
        else:
            self._json({"error": f"no {path}"}, 404)

    def do_PUT(self) -> None:
        """Takes a large file."""
        content = self.rfile.read(int(self.headers["Content-Length"]))
        digest = hashlib.sha256(content).hexdigest()
        assert self.path == f"/lfs/{digest}"
        self.hub.objects[digest] = content
        self._send(200)

    def do_HEAD(self) -> None:
        """As GET, without the content."""
        self.do_GET()

    def do_GET(self) -> None:
        """Describes repositories, and sends files."""
        path = self.path.partition("?")[0]
        if path.startswith("/lfs/"):
            self._send(200, self.hub.objects[path.removeprefix("/lfs/")])
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", path):
            self._describe(match[1], match[2])
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            self._file(self.hub.repositories[match[1]], match[2])
        else:
            self._json({"error": f"no {path}"}, 404)

    def _describe(self, name: str, what: str | None) -> None:
        if name in self.hub.gated:
            self._json({"error": "gated"}, 403, {"X-Error-Code": "GatedRepo"})
        elif name not in self.hub.repositories:
            self._json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        elif self.hub.repositories[name].private and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._json({"error": "Invalid username or password."}, 401, {"X-Error-Code": "RepoNotFound"})
        elif what == "tree":
            self._json([_entry(path, content) for path, content in self.hub.repositories[name].files.items()])
        else:
            repository = self.hub.repositories[name]
            siblings = [{"rfilename": path} for path in repository.files]
            about = {"id": name, "modelId": name, "sha": repository.sha, "siblings": siblings, "tags": []}
            self._json(about | {"private": repository.private, "downloads": 0, "likes": 0})

    def _file(self, repository: Repository, path: str) -> None:
        content = repository.files[path]
        headers = {"X-Repo-Commit": repository.sha, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}
        self.hub.downloaded.append(path)
        if not path.endswith(LARGE):
            self._send(200, content, headers)
            return
        digest = hashlib.sha256(content).hexdigest()
        self.hub.objects[digest] = content
        linked = {"X-Linked-ETag": f'"{digest}"', "X-Linked-Size": str(len(content))}
        elsewhere = self.hub.address.replace("127.0.0.1", "localhost")  # the hub's files are on another host
        self._send(302, b"", headers | linked | {"Location": f"{elsewhere}/lfs/{digest}"})

    def _commit(self, name: str, body: bytes) -> None:
        repository = self.hub.repositories[name]
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                repository.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                repository.files[value["path"]] = self.hub.objects[value["oid"]]
        address = f"{self.hub.address}/{name}/commit/{repository.sha}"
        self._json({"success": True, "commitOid": repository.sha, "commitUrl": address, "hookOutput": ""})

    def _chunks(self) -> bytes:
        """The body of a request whose length isn't known at its beginning."""
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def _json(self, value: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        message = {"X-Error-Message": value["error"]} if isinstance(value, dict) and "error" in value else {}
        given = {"Content-Type": "application/json", **message, **(headers or {})}
        self._send(status, json.dumps(value).encode(), given)

    def _send(self, status: int, content: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _entry(path: str, content: bytes) -> dict[str, object]:
    """A file of a repository's tree."""
    entry: dict[str, object] = {"type": "file", "path": path, "size": len(content)}
    entry["oid"] = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    if path.endswith(LARGE):
        entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return entry


@contextlib.contextmanager
def running() -> Iterator[Hub]:
    """A hub that answers until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub = Handler.hub = Hub(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
