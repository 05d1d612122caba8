"""Metrics: exact values at a real Ray's metrics port, what one call costs, and no silence where none are."""

import json
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from music_ray.engines.base import Completion
from music_ray.jobs import metrics

COMPLETION = Completion("text", "stop", prompt_tokens=500, cached_tokens=300, completion_tokens=100)

_COUNTING = """
import json, time, urllib.request
from music_ray.config.load import resolve_config
from music_ray.ray_session import ensure_ray
ensure_ray(resolve_config({"name": "r", "ray": {"num_cpus": 1, "object_store_gib": 0.1}}))
import ray
from music_ray.engines.base import Completion
from music_ray.jobs.metrics import _COUNTERS, Metrics
from ray.util.metrics import Counter

@ray.remote(num_cpus=0)
class Counting:
    def count(self):
        metrics = Metrics("red")
        for number in range(40):
            metrics.count_call("assistant", Completion("a", "stop", 100, 64, 20), 0.3)
            if number % 10 == 9:
                metrics.flush()
        for _ in range(5):
            metrics.count_call("user", Completion("a", "stop", 50, 0, 8), 1000.0)
        metrics.count_error("user", "RequestError")
        for _ in range(7):
            metrics.row_begun()
        for reason in ["", "", "", "context_full"]:
            metrics.count_row("ok", reason)
        metrics.count_row("error", "empty_reply")
        metrics.shard_written(4)
        metrics.shard_written(1)
        metrics.in_flight(7)
        metrics.flush()
        metrics.in_flight(3)
        metrics.flush()
        return metrics.problem

    def cost(self):
        metrics, completion = Metrics("timed"), Completion("a", "stop", 100, 64, 20)
        started = time.process_time()
        for _ in range(20_000):
            metrics.count_call("assistant", completion, 0.5)
        metrics.flush()
        ours = time.process_time() - started
        counter = Counter("one_more", tag_keys=("run",))
        started = time.process_time()
        for _ in range(20_000):
            counter.inc(1.0, {"run": "timed"})
        return ours / (time.process_time() - started)

actor = Counting.remote()
problem = ray.get(actor.count.remote())
costs = [ray.get(actor.cost.remote()) for _ in range(5)]
address = f"http://127.0.0.1:{ray.nodes()[0]['MetricsExportPort']}/metrics"
names = [*_COUNTERS, "music_ray_in_flight", "music_ray_call_seconds_count"]
lines, until = [], time.monotonic() + 120
while time.monotonic() < until:
    time.sleep(11)  # Ray sends every 10 seconds, and not all in one go
    page = urllib.request.urlopen(address, timeout=60).read().decode()
    before, lines = lines, [line for line in page.splitlines() if "music_ray" in line]
    if lines == before and all(f"ray_{name}{{" in page for name in names):
        break
print(json.dumps({"problem": problem, "costs": costs, "lines": lines}))
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What an actor of a local Ray counted, as Prometheus would read it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment["HOME"] = str(tmp_path_factory.mktemp("home"))
    done = subprocess.run(
        [sys.executable, "-c", _COUNTING], env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def values(exported: dict, name: str, run: str = "red") -> dict[tuple[str, ...], float]:
    """Value by our own labels, without `run`, in the order of their names; Ray adds others."""
    found = {}
    for line in exported["lines"]:
        match = re.fullmatch(rf"{name}\{{(.*)\}} (\S+)", line)
        if match is None:
            continue
        labels = dict(re.findall(r'(\w+)="([^"]*)"', match[1]))
        if labels.pop("run") == run:
            ours = sorted(labels.keys() & {"status", "reason", "kind", "role", "error", "le"})
            found[tuple(labels[key] for key in ours)] = float(match[2])
    return found


@pytest.mark.slow
def test_the_port_shows_exactly_what_was_counted(exported: dict) -> None:
    assert exported["problem"] == ""
    assert values(exported, "ray_music_ray_rollouts_total") == {
        ("", "ok"): 3, ("context_full", "ok"): 1, ("empty_reply", "error"): 1,
    }  # fmt: skip
    assert values(exported, "ray_music_ray_rollouts_begun_total") == {(): 7}
    assert values(exported, "ray_music_ray_tokens_total") == {
        ("prompt",): 4250, ("cached",): 2560, ("completion",): 840,
    }  # fmt: skip
    assert values(exported, "ray_music_ray_calls_total") == {("assistant",): 40, ("user",): 5}
    assert values(exported, "ray_music_ray_errors_total") == {("RequestError", "user"): 1}
    assert values(exported, "ray_music_ray_engine_seconds_total") == {
        ("assistant",): pytest.approx(12.0), ("user",): 5000.0,
    }  # fmt: skip
    assert values(exported, "ray_music_ray_shards_total") == {(): 2}
    assert values(exported, "ray_music_ray_shard_rows_total") == {(): 5}
    assert values(exported, "ray_music_ray_in_flight") == {(): 3}


@pytest.mark.slow
def test_calls_fall_into_the_buckets_of_their_seconds(exported: dict) -> None:
    buckets = values(exported, "ray_music_ray_call_seconds_bucket")
    assistant = {bound: count for (bound, role), count in buckets.items() if role == "assistant"}
    assert [float(bound) for bound in assistant] == [*metrics.CALL_SECONDS, float("inf")]
    assert (assistant["0.2"], assistant["0.4"], assistant["+Inf"]) == (0, 40, 40)
    assert (buckets["204.8", "user"], buckets["+Inf", "user"]) == (0, 5)
    assert values(exported, "ray_music_ray_call_seconds_count") == {("assistant",): 40, ("user",): 5}


@pytest.mark.slow
def test_a_call_costs_less_than_two_increments(exported: dict) -> None:
    """Handed to Ray one by one, a call is six of them: 1.2 was measured."""
    assert statistics.median(exported["costs"]) < 2


def test_without_ray_it_says_so_once_and_does_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "_told", set())
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    for _ in range(3):
        silent = metrics.Metrics("r")
        silent.count_call("assistant", COMPLETION, 0.5)
        silent.count_error("assistant", "RequestError")
        silent.row_begun()
        silent.count_row("ok", "")
        silent.shard_written(5)
        silent.in_flight(2)
        silent.flush()
    assert silent.problem == "Ray is not running in this process"
    assert capsys.readouterr().out == (
        "metrics: nothing is exported to Prometheus (Ray is not running in this process)\n"
    )


def test_the_how_to_names_every_metric() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "how-to" / "monitoring.md").read_text()
    names = [*metrics._COUNTERS, "music_ray_in_flight", "music_ray_call_seconds"]
    assert [name for name in names if f"`ray_{name}`" not in page] == []
