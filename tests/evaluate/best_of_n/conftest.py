"""Best-of-N without Ray: the same workers on the same rows, and the same shards."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from music_ray.config import EngineConfig, RunConfig
from music_ray.config.load import resolve_config
from music_ray.engines.base import Prompt
from music_ray.engines.scripted import ScriptedEngine
from music_ray.evaluate.best_of_n import conversations
from music_ray.evaluate.best_of_n.run import run_best_of_n
from music_ray.jobs.job import Job, load_worker
from music_ray.jobs.metrics import Metrics
from music_ray.judge import job as judging
from music_ray.judge import worker as judge_worker
from music_ray.ray_session import worker_config
from music_ray.rundir import RunDir
from music_ray.schema import to_table
from tests.evaluate.best_of_n.rules import TOOLS, CountingUp, RuleScorer

Script = Callable[[str, str], str]


class Here:
    """Stands where the driver of a job on Ray stands."""

    def __init__(self) -> None:
        self.jobs: list[tuple[str, int]] = []
        """Name of each job and how many rows it had to do."""
        self.configs: list[RunConfig] = []
        """With what each job was configured."""
        self.only = 10**9
        """So many rows of the next job are done, then it is interrupted."""

    def run_job(
        self,
        run: RunDir,
        job: Job,
        inputs: list[str],
        done: np.ndarray,
        *,
        total: int,
        watches: Sequence[Any],
    ) -> None:
        config = worker_config(job.config or run.config)
        config = RunConfig.model_validate_json(config.model_dump_json())
        rows = [row for path in inputs for row in _rows(run, path) if row["id"] not in set(done.tolist())]
        self.jobs.append((job.name.partition("-")[0], len(rows)))
        self.configs.append(config)
        rows, interrupted = rows[: self.only], len(rows) > self.only
        self.only = 10**9

        async def work() -> list[Any]:
            worker = load_worker(job.worker)(config, job.run_epoch, job.payload, Metrics("t"))
            return list(await asyncio.gather(*(worker.work(row) for row in rows)))

        made = asyncio.run(work())
        run.write_table(to_table(made, job.schema), *job.folder, f"e{job.run_epoch:04d}-here.parquet")
        for watch in watches:
            stop = watch.on_results(
                [row.id for row in made], [row.status for row in made], [row.reason for row in made]
            )
            if stop is not None:
                raise stop.error
        if interrupted:
            raise KeyboardInterrupt


def _rows(run: RunDir, path: str) -> list[dict[str, Any]]:
    with run.open_parquet(path) as file:
        return file.read().to_pylist()


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Here:
    """Jobs are done in this process."""
    driver = Here()
    for module in (conversations, judging):
        monkeypatch.setattr(module, "run_job", driver.run_job)
        monkeypatch.setattr(module, "ensure_ray", lambda config: None)
        monkeypatch.setattr(module, "check_pool", lambda *arguments: None)
    CountingUp.said.clear()
    RuleScorer.asked.clear()
    return driver


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Callable[[Script], list[str]]:
    """judge(script): every judge from now on answers by it; the list of prompts that it gets comes back.

    The script gets what conversations A and B hold apart from what both begin with. A judge whose model is
    named as a keyword answers by that script instead.
    """

    def use(script: Script, **others: Script) -> list[str]:
        asked: list[str] = []

        def make_engine(config: EngineConfig) -> ScriptedEngine:
            own = others.get(config.model, script)

            def answer(prompt: Prompt, sampling: Any, seed: int) -> str:
                text = prompt.messages[0]["content"]
                asked.append(text)
                parts = text.split("\n# ")
                a, b = (next(one for one in parts if one.startswith(f"Conversation {name}")) for name in "AB")
                return own(a, b)

            return ScriptedEngine(answer)

        monkeypatch.setattr(judge_worker, "make_engine", make_engine)
        return asked

    return use


def more_words(a: str, b: str) -> str:
    """A judge that likes the longer conversation."""
    left, right = a.count("word"), b.count("word")
    return f"<verdict>{'A' if left > right else 'B' if right > left else 'tie'}</verdict>"


@pytest.fixture
def make_model(tmp_path: Path) -> Callable[..., str]:
    """make_model(rule, …): the folder of a reward model that follows a rule."""

    def make(rule: str, **settings: Any) -> str:
        folder = tmp_path / rule
        folder.mkdir(exist_ok=True)
        (folder / "rule.json").write_text(json.dumps({"rule": rule, **settings}))
        return str(folder)

    return make


@pytest.fixture
def write_prompts(tmp_path: Path) -> Callable[..., str]:
    """write_prompts(row, …): a JSON-lines file; bytes are written as they are."""

    def write(*rows: Any, name: str = "prompts.jsonl") -> str:
        lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
        (tmp_path / name).write_bytes(b"".join(line + b"\n" for line in lines))
        return str(tmp_path / name)

    return write


@pytest.fixture
def go(tmp_path: Path, here: Here, make_model: Any) -> Callable[..., dict[str, Any]]:
    """go(prompts, models=…, n=…, …): the command in this process, its section best_of_n in part."""

    def run(
        prompts: str, models: Sequence[str] = ("longest", "shortest"), out: str = "out", **sections: Any
    ) -> dict[str, Any]:
        names = ("generate", "engine", "assistant", "user", "evaluate", "seed")
        others = {name: sections.pop(name) for name in names if name in sections}
        values = {
            "name": "t",
            "engine": {"kind": "scripted", "model": "speaker"},
            "evaluate": {"bootstrap_samples": 100},
            "best_of_n": {"prompts": prompts, "turns": 2, "repeat": 0, **sections},
        }
        folders = [one if "/" in one else make_model(one) for one in models]
        return run_best_of_n(resolve_config({**values, **others}), folders, str(tmp_path / out), TOOLS)

    return run
