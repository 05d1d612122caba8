"""A proxy before an S3 server that fails on purpose: a seeded share of all requests, or every one.

It counts requests by what they are to S3. Some faults strike before the server has seen the request, and
some after the server has carried it out, so that who tries again does it twice.
"""

from __future__ import annotations

import contextlib
import http.client
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.aws_server import KEYS, aws_server

FAULTS = ("500", "503", "cut request", "500 though done", "answer lost", "answer cut")
_REFUSALS = {
    "403": (403, "AccessDenied"),
    "500": (500, "InternalError"),
    "503": (503, "SlowDown"),
    "no bucket": (404, "NoSuchBucket"),
    "no upload": (404, "NoSuchUpload"),
}


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes


class FlakyStore(ThreadingHTTPServer):
    """Use as a context manager; `port` is its own."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, behind: int, share: float = 0.0, seed: int = 0) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind = behind
        self.share = share
        """Of all requests, so many fail."""
        self.always = ""
        """The fault that every request meets, e.g. '503'."""
        self.next: dict[str, list[str]] = {}
        """The faults that the next requests of a kind meet, by kind."""
        self.delay = 0.0
        """Seconds that every request waits."""
        self.requests: Counter[str] = Counter()
        """By kind; repeated ones count again."""
        self.faults: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._lock = threading.Lock()

    @property
    def port(self) -> int:
        """Where it listens on 127.0.0.1."""
        return int(self.server_address[1])

    def fault_for(self, kind: str) -> str:
        """Counts a request, and draws what befalls it; '' for nothing."""
        with self._lock:
            self.requests[kind] += 1
            fault = self.always or (self.next[kind].pop(0) if self.next.get(kind) else "")
            if not fault and self._random.random() < self.share:
                fault = self._random.choice(FAULTS)
            if fault:
                self.faults[fault] += 1
            return fault

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections break all the time here; nothing of it is worth a traceback."""


@contextlib.contextmanager
def flaky_store(behind: int, share: float = 0.0, seed: int = 0) -> Iterator[FlakyStore]:
    """A running proxy before the server on that port."""
    store = FlakyStore(behind, share, seed)
    threading.Thread(target=store.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield store
    finally:
        store.shutdown()
        store.server_close()


def uri_of(port: int, path: str) -> str:
    """The URI of a place in the store on that port."""
    return f"s3://{path}?endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"


@contextlib.contextmanager
def bucket_server() -> Iterator[int]:
    """A real S3 server that holds `bucket`, whose keys this process and its children have; its port."""
    with aws_server() as port, pytest.MonkeyPatch.context() as patch:
        for name, value in KEYS.items():
            patch.setenv(name, value)
        _make_bucket(port, "bucket")
        yield port


def _make_bucket(port: int, name: str) -> None:
    import pyarrow.fs as pafs

    fs, path = pafs.FileSystem.from_uri(uri_of(port, name) + "&allow_bucket_creation=true")
    fs.create_dir(path)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: FlakyStore

    def handle_one_request(self) -> None:
        with contextlib.suppress(ConnectionError):
            return super().handle_one_request()
        self.close_connection = True

    def do_any(self) -> None:
        """One request, with what befalls it."""
        fault = self.server.fault_for(self._kind())
        if fault == "cut request":
            self.rfile.read(int(self.headers.get("Content-Length") or 0) // 2)
            return self._cut()
        body = self._body()
        if self.server.delay:
            time.sleep(self.server.delay)
        if fault in _REFUSALS:
            return self._send(_error(fault))
        answer = self._forward(body)
        if fault == "500 though done":
            return self._send(_error("500"))
        if fault == "answer lost":
            return self._cut()
        if fault == "answer cut":
            self._send(answer, len(answer.body) // 2)
            return self._cut()
        return self._send(answer)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_any

    def _kind(self) -> str:
        query = self.path.partition("?")[2]
        if self.command == "GET" and ("list-type" in query or "prefix" in query):
            return "LIST"
        if self.command == "PUT" and self.headers.get("x-amz-copy-source"):
            return "COPY"
        if "uploadId=" in query:
            return {"PUT": "PART", "POST": "COMPLETE", "DELETE": "ABORT"}.get(self.command, self.command)
        if self.command == "POST":
            return "UPLOAD" if "uploads" in query else "DELETE"
        return self.command

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _forward(self, body: bytes) -> _Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.behind, timeout=60)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        dropped = {"connection", "content-length", "expect", "transfer-encoding"}
        for name, value in self.headers.items():
            if name.lower() not in dropped:
                connection.putheader(name, value)
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        found = connection.getresponse()
        content = found.read()
        headers = [
            (name, value)
            for name, value in found.getheaders()
            if name.lower() not in {"connection", "transfer-encoding", "content-length"}
        ]
        length = found.getheader("Content-Length") if self.command == "HEAD" else None
        connection.close()
        return _Answer(found.status, [*headers, ("Content-Length", length or str(len(content)))], content)

    def _send(self, answer: _Answer, only: int | None = None) -> None:
        self.send_response_only(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD" and answer.status != 204:
            self.wfile.write(answer.body[:only])

    def _cut(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


def _error(fault: str) -> _Answer:
    number, code = _REFUSALS[fault]
    body = f"<Error><Code>{code}</Code><Message>On purpose.</Message></Error>".encode()
    return _Answer(number, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))], body)
