"""Prometheus metrics of the generate stage, through Ray: every node's metrics agent exports them.

Calls come by the thousand a second, so they are added up here and handed to Ray every few seconds
(`flush`). This module knows names and labels; it does not know engines or rollouts, and it is no
account: what a run has and what it cost is in the run folder.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from music_ray.engines.base import Completion
from music_ray.progress import say

CALL_SECONDS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 102.4, 204.8)
"""Upper bounds of the histogram's buckets in seconds."""
REPORT_SECONDS = 3.0
"""How often `flush` should be called. Ray itself sends its metrics to the agent every 10 seconds."""

_COUNTERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "music_ray_rollouts_begun_total": ("Rollouts begun; one that was lost is begun again.", ("run",)),
    "music_ray_rollouts_total": ("Finished rollout rows.", ("run", "status", "reason")),
    "music_ray_calls_total": ("Answered engine calls.", ("run", "role")),
    "music_ray_errors_total": ("Engine calls that failed, retries included.", ("run", "role", "error")),
    "music_ray_tokens_total": ("Tokens; cached ones are among the prompt's.", ("run", "kind")),
    "music_ray_engine_seconds_total": ("Sum over calls of what they took.", ("run", "role")),
    "music_ray_shards_total": ("Shards written.", ("run",)),
    "music_ray_shard_rows_total": ("Rows in written shards.", ("run",)),
}
_told: set[str] = set()
"""What this process has already said about metrics that can't be sent."""


@dataclass(slots=True)
class _Calls:
    """The calls of one role since the last flush."""

    prompt: int = 0
    cached: int = 0
    completion: int = 0
    seconds: list[float] = field(default_factory=list)


class Metrics:
    """One process's counters of one run. Not thread-safe: all methods belong on one event loop.

    Where Ray can't export metrics, that is said once and everything here does nothing.
    """

    def __init__(self, run_name: str) -> None:
        self.run_name = run_name
        self.problem = _why_not()
        """Empty, or why nothing is exported."""
        self._calls: defaultdict[str, _Calls] = defaultdict(_Calls)
        self._counts: Counter[tuple[str, ...]] = Counter()
        self._in_flight = 0
        self._histograms: dict[str, Any] = {}
        if self.problem:
            if self.problem not in _told:
                _told.add(self.problem)
                say(f"metrics: nothing is exported to Prometheus ({self.problem})")
            return
        from ray.util import metrics

        self._counters = {
            name: metrics.Counter(name, text, labels) for name, (text, labels) in _COUNTERS.items()
        }
        self._gauge = metrics.Gauge("music_ray_in_flight", "Rollouts that are being made.", ("run",))

    def count_call(self, role: str, completion: Completion, seconds: float) -> None:
        """One answered engine call.

        Args:
            role: assistant, user, contrast or judge.
            seconds: from asking to answer, waiting for a place in the engine included.
        """
        if self.problem:
            return
        calls = self._calls[role]
        calls.prompt += completion.prompt_tokens
        calls.cached += completion.cached_tokens
        calls.completion += completion.completion_tokens
        calls.seconds.append(seconds)

    def count_error(self, role: str, error: str) -> None:
        """One engine call that failed.

        Args:
            error: one of a few names, such as the exception's class; never a message.
        """
        self._add("music_ray_errors_total", role, error)

    def row_begun(self) -> None:
        """One rollout that goes to the engines: those that are never finished were paid for as well."""
        self._add("music_ray_rollouts_begun_total")

    def count_row(self, status: str, reason: str) -> None:
        """One finished rollout; the reason is empty where there is none."""
        self._add("music_ray_rollouts_total", status, reason)

    def shard_written(self, rows: int) -> None:
        """One shard that lies in the run folder."""
        self._add("music_ray_shards_total")
        self._add("music_ray_shard_rows_total", amount=rows)

    def in_flight(self, number: int) -> None:
        """How many rollouts are being made right now."""
        self._in_flight = number

    def flush(self) -> None:
        """Hands to Ray what came since the last time: three microseconds for each call."""
        if self.problem:
            return
        calls, self._calls = self._calls, defaultdict(_Calls)
        for role, one in calls.items():
            self._flush_calls(role, one)
        counts, self._counts = self._counts, Counter()
        for (name, *values), amount in counts.items():
            self._send(name, amount, *values)
        self._gauge.set(self._in_flight, {"run": self.run_name})

    def _add(self, name: str, *values: str, amount: int = 1) -> None:
        if not self.problem:
            self._counts[name, *values] += amount

    def _flush_calls(self, role: str, calls: _Calls) -> None:
        for kind in ("prompt", "cached", "completion"):
            self._send("music_ray_tokens_total", getattr(calls, kind), kind)
        self._send("music_ray_calls_total", len(calls.seconds), role)
        self._send("music_ray_engine_seconds_total", sum(calls.seconds), role)
        observe = self._histogram(role).observe
        for seconds in calls.seconds:
            observe(seconds)

    def _send(self, name: str, amount: float, *values: str) -> None:
        if amount > 0:  # Ray refuses 0
            labels = _COUNTERS[name][1]
            self._counters[name].inc(amount, dict(zip(labels, (self.run_name, *values), strict=True)))

    def _histogram(self, role: str) -> Any:
        """The role's histogram, whose labels are set once and not for each value."""
        if role not in self._histograms:
            from ray.util.metrics import Histogram

            self._histograms[role] = Histogram(
                "music_ray_call_seconds", "What engine calls took.", list(CALL_SECONDS), ("run", "role")
            ).set_default_tags({"run": self.run_name, "role": role})
        return self._histograms[role]


def _why_not() -> str:
    """Why Ray can't export metrics from this process; empty when it can."""
    ray = sys.modules.get("ray")  # not imported here: without Ray that would be seconds for nothing
    if ray is None or not ray.is_initialized():
        return "Ray is not running in this process"
    here = ray.get_runtime_context().get_node_id()
    ports = [node["MetricsExportPort"] for node in ray.nodes() if node["NodeID"] == here]
    if any(port > 0 for port in ports):
        return ""
    return "this node's Ray exports none: RAY_enable_metrics_collection is off, or ray[default] is missing"
