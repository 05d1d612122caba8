"""Pair files, models that are a table, and a scorer that keeps to the files of the real one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from music_ray.config.load import resolve_config
from music_ray.data_files import RawRow
from music_ray.errors import InputError
from music_ray.evaluate.sides import Tools
from music_ray.rundir import RunDir


def messages(*texts: str) -> list[dict[str, str]]:
    """A conversation of these texts, the user first."""
    roles = ("user", "assistant")
    return [{"role": roles[index % 2], "content": text} for index, text in enumerate(texts)]


def write_jsonl(path: Path, *rows: Any) -> str:
    """Rows as a JSON-lines file; bytes are written as they are."""
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return str(path)


class TableScorer:
    """Scores a conversation by its last reply, from scores.json in the model's folder; words are tokens.

    What it reads and writes is what `music-ray score` reads and writes; tests/evaluate/test_command.py runs
    the real one.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        """Model and data of each call."""
        self.words: list[Sequence[str]] = []
        self.checked: list[tuple[str, list[str]]] = []
        """Digest and words of each check that a model can be scored with."""

    def check_model(self, folder: str) -> Any:
        if not (Path(folder) / "scores.json").exists():
            raise InputError(f"{folder} is no reward model")
        return SimpleNamespace(digest=f"digest of {Path(folder).name}")

    def check_scoring(self, model: Any, out: str, words: Sequence[str]) -> None:
        self.checked.append((model.digest, list(words)))

    def score(self, model: str, data: str, out: str, words: Sequence[str]) -> RunDir:
        self.calls.append((model, data))
        self.words.append(words)
        table = json.loads((Path(model) / "scores.json").read_text())
        run = RunDir(resolve_config({"name": Path(out).name, "runs_dir": str(Path(out).parent)}))
        rows = []
        for number, row in enumerate(pq.read_table(data).to_pylist()):
            for column in ("messages",) if "messages" in row else ("chosen", "rejected"):
                text = row[column][-1]["content"]
                score = table.get(text, 0.0)
                tokens = sum(len(one["content"].split()) for one in row[column])
                reason = "" if score is not None else "over_length"
                rows.append({"id": row["id"], "row": number, "column": column, "score": score,
                             "num_tokens": tokens, "reason": reason})  # fmt: skip
        run.write_table(pa.Table.from_pylist(rows), "scores", "part-00000-of-00001.parquet")
        return run


@pytest.fixture
def scorer() -> TableScorer:
    return TableScorer()


@pytest.fixture
def tools(scorer: TableScorer) -> Tools:
    """The tools of an evaluation, with the table scorer and no hub."""

    def no_hub(dataset: str, revision: str | None, split: str, key: str) -> Iterator[RawRow]:
        raise InputError(f"no hub for {dataset}")
        yield

    return Tools(scorer.check_model, scorer.check_scoring, score=scorer.score, hub_rows=no_hub)


@pytest.fixture
def make_model(tmp_path: Path) -> Callable[..., str]:
    """make_model(name, {last reply: score or None}): the folder of a model that is a table."""

    def make(name: str, scores: dict[str, float | None]) -> str:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "scores.json").write_text(json.dumps(scores))
        return str(folder)

    return make
