"""A small server that answers as the Hugging Face hub does where `music-ray push` asks it.

It keeps repositories in memory: commits are applied at once or not at all, large files go through the LFS
batch endpoint and a PUT. What each request was, and what it carried as a token, is recorded.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_a-test-token"


@dataclass
class Repo:
    """What one repository holds."""

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)


@dataclass
class Hub:
    """The server's state and what it was asked."""

    url: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    """By 'datasets/OWNER/NAME' or 'models/OWNER/NAME'."""
    uploads: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    refuse: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Answers that are errors: a part of 'METHOD /path' → (status, message)."""


@contextmanager
def serve_hub() -> Iterator[Hub]:
    """The hub on a free port of 127.0.0.1."""
    hub = Hub()

    class Handler(_Handler):
        state = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    state: Hub

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def log_message(self, *_: Any) -> None:
        pass

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = self._chunks()
        path = self.path.partition("?")[0]
        request = f"{self.command} {path}"
        self.state.requests.append(request)
        for part, (status, message) in self.state.refuse.items():
            if part in request:
                return self._answer(status, {"error": message}, {"X-Error-Message": message})
        if path.startswith("/lfs-store/"):
            self.state.uploads[path.rpartition("/")[2]] = body
            return self._answer(200, {})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            message = "Invalid username or password."
            return self._answer(401, {"error": message}, {"X-Error-Message": message})
        return self._route(path, body)

    def _chunks(self) -> bytes:
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _route(self, path: str, body: bytes) -> None:
        words = path.strip("/").split("/")
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            return self._answer(200, {"errors": [], "warnings": []})
        if path.endswith(".git/info/lfs/objects/batch"):
            return self._batch(json.loads(body))
        name = "/".join(words[1:4])
        repo = self.state.repos.get(name)
        if repo is None:
            return self._answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        if words[4:5] == ["preupload"]:
            files = json.loads(body)["files"]
            modes = {True: "lfs", False: "regular"}
            return self._answer(200, {"files": [
                {"path": one["path"], "shouldIgnore": False,
                 "uploadMode": modes[one["path"].endswith((".parquet", ".safetensors"))]}
                for one in files
            ]})  # fmt: skip
        if words[4:5] == ["commit"]:
            return self._commit(name, repo, body)
        return self._answer(200, {
            "id": "/".join(words[2:4]), "private": repo.private, "sha": "0" * 40, "tags": [],
            "siblings": [{"rfilename": file} for file in repo.files],
        })  # fmt: skip

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked.get('type', 'model')}s/{asked['organization']}/{asked['name']}"
        private = asked.get("visibility") == "private" or asked.get("private") is True
        self.state.repos[name] = Repo(private)
        shown = name.removeprefix("models/")
        self._answer(
            200, {"url": f"{self.state.url}/{shown}", "name": f"{asked['organization']}/{asked['name']}"}
        )

    def _batch(self, asked: dict[str, Any]) -> None:
        self._answer(200, {"transfer": "basic", "objects": [
            {"oid": one["oid"], "size": one["size"],
             "actions": {"upload": {"href": f"{self.state.url}/lfs-store/{one['oid']}"}}}
            for one in asked["objects"]
        ]})  # fmt: skip

    def _commit(self, name: str, repo: Repo, body: bytes) -> None:
        files = dict(repo.files)
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                repo.commits.append(value["summary"])
            elif entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                content = self.state.uploads[value["oid"]]
                assert hashlib.sha256(content).hexdigest() == value["oid"]
                files[value["path"]] = content
            elif entry["key"] == "deletedFile":
                del files[value["path"]]
        repo.files = files
        number = f"{len(repo.commits):040d}"
        shown = name.removeprefix("models/")
        self._answer(200, {"commitUrl": f"{self.state.url}/{shown}/commit/{number}", "commitOid": number})

    def _answer(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        for key, one in ({"Content-Type": "application/json"} | (headers or {})).items():
            self.send_header(key, one)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
