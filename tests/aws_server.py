"""A real server that speaks S3, EC2 and IAM on 127.0.0.1, in a process of its own.

Not a thread of the tests': moto brings Flask with it, and vLLM (0.32, `triton_utils/dispatcher.py`) asks
every object of every loaded module for its `__dict__` when it starts on a CPU, at which Flask's proxies raise
"Working outside of application context". No engine could be started in that process afterwards.
"""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

# Read by boto3 and by pyarrow's S3 alike. The last: else both ask a metadata service that is not there.
KEYS = {
    "AWS_ACCESS_KEY_ID": "tests",
    "AWS_SECRET_ACCESS_KEY": "tests",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@contextlib.contextmanager
def aws_server() -> Iterator[int]:
    """Its port, until the block is left; what was stored in it goes with it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(port, server, "moto's server")
        yield port
    finally:
        server.kill()
        server.wait()


def wait_for(port: int, server: subprocess.Popen[bytes], name: str) -> None:
    """Returns when something listens on the port."""
    until = time.monotonic() + 120
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert server.poll() is None, f"{name} ended with {server.returncode}"
            assert time.monotonic() < until, f"{name} does not answer"
            time.sleep(0.1)
