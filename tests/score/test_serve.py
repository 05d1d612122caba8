"""`music-ray serve` for real: the printed commands, the scores, the token, and what is left of it."""

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from music_ray.chat import ChatFormat
from music_ray.errors import InputError
from music_ray.score.gate import TOKEN_VARIABLE
from music_ray.score.model import ScoringModel
from music_ray.score.serve import instructions, run_serve, server_command
from tests.reward.conftest import conversation
from tests.score.conftest import make_conversations

REPOSITORY = Path(__file__).resolve().parents[2]
GONE_SECONDS = 30.0


# -- without vLLM ----------------------------------------------------------------------------------


def test_a_port_in_use_is_refused_before_anything_starts(reward_folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            InputError,
            match=rf"^port {port} of 127.0.0.1 can't be used \(Address already in use\): choose another with",
        ):
            run_serve(str(reward_folder), port)


def test_the_command_line_serves_raw_rewards_on_this_machine_alone(
    reward_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "a-token-of-some-length")
    model = ScoringModel(str(reward_folder), "Gemma2ForSequenceClassification", "float32", 256, "0" * 16)
    command = server_command(model, 8123, ["engine.enforce_eager=true"])
    pairs = set(itertools.pairwise(command))
    assert command[1:3] == ["-m", "vllm.entrypoints.launchers.api_server.entry"]
    for pair in (
        ("--model", str(reward_folder)),
        ("--host", "127.0.0.1"),
        ("--port", "8123"),
        ("--runner", "pooling"),
        ("--convert", "classify"),
        ("--dtype", "float32"),
        ("--max-model-len", "256"),
        ("--load-format", "safetensors"),
        ("--middleware", "music_ray.score.gate.RequireToken"),
    ):
        assert pair in pairs
    assert json.loads(command[command.index("--pooler-config") + 1]) == {
        "task": "classify",
        "use_activation": False,
    }
    assert "--enforce-eager" in command and "--no-enable-chunked-prefill" in command
    assert not [word for word in command if "a-token" in word or "trust" in word or "api-key" in word]


def test_the_instructions_hold_no_token() -> None:
    own, made_up = instructions(8123, None), instructions(8123, Path("/cache/serve-8123.token"))
    assert f'export {TOKEN_VARIABLE}="$(cat /cache/serve-8123.token)"' in made_up
    assert [line for line in made_up if line not in own] == [made_up[2]]
    assert f'-H "Authorization: Bearer ${TOKEN_VARIABLE}"' in "\n".join(own)


# -- with vLLM -------------------------------------------------------------------------------------


@dataclass
class Serving:
    """A server that runs."""

    process: subprocess.Popen[str]
    port: int
    said: list[str]
    token_file: Path

    def post(self, path: str, body: Any, token: str | None = None) -> tuple[int, Any]:
        token = self.token_file.read_text() if token is None else token
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            json.dumps(body).encode(),
            {"Content-Type": "application/json", "Authorization": f"Bearer {token}"},
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=60) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())


@pytest.fixture(scope="module")
def serving(reward_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    cache = tmp_path_factory.mktemp("cache")
    command = [sys.executable, "-m", "music_ray", "serve", str(reward_folder), "--port", str(port)]
    command += ["engine.kv_cache_gib=0.1", "engine.enforce_eager=true", "engine.max_num_seqs=8"]
    environment = {name: value for name, value in os.environ.items() if name != TOKEN_VARIABLE}
    process = subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env=environment | {"MUSIC_RAY_CACHE": str(cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    said: list[str] = []
    for line in process.stdout:
        said.append(line.rstrip("\n"))
        if line.startswith("the score is"):
            break
    one = Serving(process, port, said, cache / f"serve-{port}.token")
    assert process.poll() is None and one.token_file.exists(), "\n".join(said)
    yield one
    process.kill()
    process.wait()


def score_of(answer: tuple[int, Any]) -> float:
    status, body = answer
    assert status == 200, body
    return body["data"][0]["probs"][0]


@pytest.mark.slow
def test_the_printed_commands_work_as_they_are(serving: Serving, plain_rewards) -> None:
    script = [line for line in serving.said if line.startswith(("export", "curl", "  -"))]
    done = subprocess.run(["bash", "-c", "\n".join(script)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    example = conversation("What is the capital of France?", "Paris.")
    assert json.loads(done.stdout)["data"][0]["probs"] == pytest.approx(plain_rewards([example]), abs=1e-4)


@pytest.mark.slow
def test_messages_and_token_ids_give_the_scores_of_hugging_face(
    serving: Serving, reward_folder: Path, plain_rewards
) -> None:
    chat = ChatFormat.load(str(reward_folder))
    made = make_conversations(8)
    expected = plain_rewards(made)
    ids = [chat.conversation_ids(one) for one in made]
    for one, reward, tokens in zip(made, expected, ids, strict=True):
        status, body = serving.post("/classify", {"messages": one})  # raw without being asked for
        assert (status, body["usage"]["prompt_tokens"]) == (200, len(tokens)), "BOS stands once"
        assert body["data"][0]["probs"][0] == pytest.approx(reward, abs=1e-4)
    _, body = serving.post("/classify", {"input": ids, "use_activation": False})
    assert [one["probs"][0] for one in body["data"]] == pytest.approx(expected, abs=1e-4)
    _, body = serving.post("/pooling", {"input": ids})
    assert [one["data"][0] for one in body["data"]] == pytest.approx(expected, abs=1e-4)
    # Why it is messages or ids: a text gets a second BOS, and another score.
    text = {"input": chat.render(made[0])}
    assert abs(score_of(serving.post("/classify", text)) - expected[0]) > 1e-3
    once = serving.post("/classify", text | {"add_special_tokens": False})
    assert score_of(once) == pytest.approx(expected[0], abs=1e-4)


@pytest.mark.slow
def test_nobody_gets_in_without_the_token_and_it_is_on_no_command_line(serving: Serving) -> None:
    token = serving.token_file.read_text()
    for path in ("/classify", "/pooling", "/score", "/v1/models", "/invocations", "/metrics", "/tokenize"):
        assert serving.post(path, {"messages": conversation("a", "b")}, token="wrong")[0] == 401, path
    assert serving.post("/classify", {"messages": conversation("a", "b")})[0] == 200
    processes = [psutil.Process(serving.process.pid), *psutil.Process(serving.process.pid).children(True)]
    assert len(processes) >= 3 and not [one for one in processes if token in " ".join(one.cmdline())]
    listening = {
        one.laddr.port: one.laddr.ip
        for process in processes
        for one in process.net_connections(kind="inet")
        if one.status == psutil.CONN_LISTEN
    }
    assert serving.port in listening and set(listening.values()) == {"127.0.0.1"}
    assert token not in "\n".join(serving.said)


@pytest.mark.slow
def test_a_refused_conversation_is_an_answer_and_the_server_goes_on(serving: Serving) -> None:
    status, body = serving.post("/classify", {"messages": conversation("a", "b")[::-1]})
    assert status == 400 and "roles must alternate" in json.dumps(body)
    assert serving.post("/classify", {"messages": conversation("a " * 400, "b")})[0] == 400
    assert serving.post("/classify", {"messages": conversation("a", "b")})[0] == 200


@pytest.mark.slow
def test_when_it_is_killed_nothing_is_left(serving: Serving) -> None:
    """Last in the file: it ends the server of the others."""
    left = psutil.Process(serving.process.pid).children(recursive=True)
    assert len(left) >= 2
    serving.process.send_signal(signal.SIGKILL)
    serving.process.wait()
    _, alive = psutil.wait_procs(left, timeout=GONE_SECONDS)
    assert alive == []


@pytest.mark.slow
@pytest.mark.faults
def test_an_interrupt_ends_it_in_order(reward_folder: Path, tmp_path: Path) -> None:
    """While it starts: what it has begun ends with it, and so does the file with the token."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if name != TOKEN_VARIABLE}
    process = subprocess.Popen(
        [sys.executable, "-m", "music_ray", "serve", str(reward_folder), "--port", str(port)],
        cwd=REPOSITORY,
        env=environment | {"MUSIC_RAY_CACHE": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 120
    while len(psutil.Process(process.pid).children(recursive=True)) < 2:  # the server and the watcher
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
    time.sleep(2)
    left = psutil.Process(process.pid).children(recursive=True)
    assert (tmp_path / f"serve-{port}.token").exists()
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and said.endswith("serve: ending\n")
    assert psutil.wait_procs(left, timeout=GONE_SECONDS)[1] == []
    assert not list(tmp_path.iterdir())
