"""vLLM's own processes, for real: what their death does to requests, and what ours does to them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from music_ray.config import EngineConfig, SamplingConfig
from music_ray.engines.base import EngineDeadError, Prompt, RequestError
from music_ray.engines.vllm_local import VllmEngine
from tests.engines.tiny_model import make_tiny_model

pytestmark = [pytest.mark.slow, pytest.mark.faults]
REPOSITORY = Path(__file__).resolve().parents[2]
LONG = SamplingConfig(temperature=0.0, max_tokens=400)
SHORT = SamplingConfig(temperature=0.0, max_tokens=12)
GONE_SECONDS = 15.0


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


def start(model: str, arrangement: str, split: int = 1) -> VllmEngine:
    return VllmEngine(
        EngineConfig(
            model=model, arrangement=arrangement, tensor_parallel_size=split, max_model_len=512,
            max_num_seqs=8, kv_cache_gib=0.25, enforce_eager=True,
        )
    )  # fmt: skip


def question(number: int) -> Prompt:
    return Prompt([{"role": "user", "content": f"Question {number}"}])


def vllm_processes(root: psutil.Process) -> list[psutil.Process]:
    """vLLM names its processes; parents come before their children."""
    return [one for one in root.children(recursive=True) if one.name().startswith("VLLM::")]


async def ask_and_kill(engine: VllmEngine, victim: psutil.Process) -> list[object]:
    """40 long requests, five times what runs at once; the victim dies while they run."""
    asked = [asyncio.create_task(engine.generate(question(number), LONG, number)) for number in range(40)]
    await asyncio.sleep(1.0)
    victim.kill()
    return await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), timeout=60)


def killed(engine: VllmEngine, victim: psutil.Process) -> None:
    """Kills the victim; nobody waits for ever, later requests fail at once, and no process is left."""
    ours = [psutil.Process(one.pid) for one in vllm_processes(psutil.Process())]
    outcomes = asyncio.run(ask_and_kill(engine, victim))
    dead = [one for one in outcomes if isinstance(one, EngineDeadError)]
    answered = [one for one in outcomes if not isinstance(one, BaseException)]
    assert len(dead) + len(answered) == 40 and len(dead) >= 32
    began = time.monotonic()
    with pytest.raises(EngineDeadError):
        asyncio.run(asyncio.wait_for(engine.generate(question(99), SHORT, 1), timeout=20))
    assert time.monotonic() - began < 10
    engine.close()
    gone_in_time(ours)


def gone_in_time(processes: list[psutil.Process]) -> None:
    assert psutil.wait_procs(processes, timeout=GONE_SECONDS)[1] == []


@pytest.mark.parametrize("which", ["core", "worker"])
def test_requests_learn_that_a_process_of_the_engine_was_killed(tiny: str, which: str) -> None:
    engine = start(tiny, "subprocess")
    core, worker = vllm_processes(psutil.Process())
    # More than one event loop may ask, one after the other.
    texts = [asyncio.run(engine.generate(question(1), SHORT, 1)).text for _ in range(2)]
    assert texts[0] == texts[1]
    with pytest.raises(RequestError):  # refused by vLLM; the engine goes on
        asyncio.run(engine.core.answer([10**9], engine.params(SHORT, 1)))
    assert asyncio.run(engine.generate(question(1), SHORT, 1)).text == texts[0]
    killed(engine, core if which == "core" else worker)


def test_two_workers_on_the_cpu_write_what_one_process_writes(tiny: str) -> None:
    alone = start(tiny, "in_process")
    expected = asyncio.run(alone.generate(question(1), SHORT, 1))
    with pytest.raises(RequestError):
        asyncio.run(alone.core.answer([10**9], alone.params(SHORT, 1)))
    assert asyncio.run(alone.generate(question(1), SHORT, 1)).text == expected.text
    alone.close()
    both = start(tiny, "subprocess", split=2)
    assert asyncio.run(both.generate(question(1), SHORT, 1)).text == expected.text
    workers = [one for one in vllm_processes(psutil.Process()) if "Worker" in one.name()]
    assert len(workers) == 2
    killed(both, workers[1])


@pytest.fixture
def holder(tiny: str, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    """A process with an engine in it."""
    command = [sys.executable, "-m", "tests.engines.engine_process", tiny, *request.param]
    process = subprocess.Popen(
        command, cwd=REPOSITORY, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    yield process
    process.kill()
    process.wait()


def until_ready(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Waits for the engine; all that its process has started."""
    assert process.stdout is not None
    assert "ready\n" in iter(process.stdout.readline, "")
    return psutil.Process(process.pid).children(recursive=True)


@pytest.mark.parametrize("holder", [("subprocess", "1"), ("in_process", "2")], indirect=True)
def test_nothing_outlives_a_process_that_was_killed(holder: subprocess.Popen[str]) -> None:
    started = until_ready(holder)
    # The core and its worker or two workers, a tracker of shared memory, and the watcher.
    assert len(started) >= 4 and len([one for one in started if one.name().startswith("VLLM::")]) == 2
    holder.kill()
    gone_in_time(started)


@pytest.mark.parametrize("holder", [("subprocess", "1")], indirect=True)
def test_nothing_outlives_a_process_that_was_killed_while_it_started(holder: subprocess.Popen[str]) -> None:
    process = psutil.Process(holder.pid)
    deadline = time.monotonic() + 120
    # The core's process exists but imports still; it has not got its title yet.
    while len(process.children(recursive=True)) < 3 and time.monotonic() < deadline:
        time.sleep(0.1)
    started = process.children(recursive=True)
    assert len(started) >= 3
    holder.kill()
    gone_in_time(started)


@pytest.mark.parametrize("holder", [("subprocess", "1")], indirect=True)
def test_an_engine_that_was_not_closed_ends_with_its_process(holder: subprocess.Popen[str]) -> None:
    started = until_ready(holder)
    assert holder.stdin is not None
    holder.stdin.write("\n")
    holder.stdin.flush()
    assert holder.wait(timeout=40) == 0
    gone_in_time(started)
