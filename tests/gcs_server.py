"""A real server that speaks Google's storage API on 127.0.0.1, in a process of its own, and keys for it."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.aws_server import wait_for

# By itself it answers one request at a time: one whose answer is being read would hold up all others.
_PROGRAM = """
import http.server
http.server.HTTPServer = http.server.ThreadingHTTPServer
from gcp_storage_emulator.__main__ import main
main()
"""


@contextlib.contextmanager
def gcs_server(folder: Path) -> Iterator[int]:
    """Its port, until the block is left; it holds `bucket` in memory.

    This process and its children have a service account's key, with which Google's SDK signs its requests
    itself: without one it would look for a machine's role.
    """
    port = _free_port()
    command = [sys.executable, "-c", _PROGRAM, "start", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--in-memory", "--default-bucket", "bucket"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(port, server, "the emulator")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(write_key(folder / "key.json")))
            yield port
    finally:
        server.kill()
        server.wait()


def gcs_uri(port: int, path: str, options: str = "") -> str:
    """The URI of a place in the store on that port."""
    return f"gs://{path}?endpoint_override=127.0.0.1:{port}&scheme=http{options}"


def write_key(path: Path) -> Path:
    """A service account's key file that nobody gave out."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    account = {
        "type": "service_account",
        "project_id": "tests",
        "private_key_id": "1",
        "private_key": text,
        "client_email": "tests@tests.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": "http://127.0.0.1:1/nobody-is-asked",
    }
    path.write_text(json.dumps(account))
    return path


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
