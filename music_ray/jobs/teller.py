"""Says how a job goes: a line every few seconds, in a terminal and in a job log alike."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from music_ray.capacity import Waiting
from music_ray.jobs.board import DRAIN, FLUSH, REPORT_SECONDS
from music_ray.jobs.watch import Stop, Watch
from music_ray.progress import duration, say
from music_ray.visible import on_one_line

TELL_SECONDS = 10.0


class Teller:
    """Follows the board from a thread of the driver until it is left; asks the watches on the way.

    Args:
        unit: what a row is called, e.g. 'rollouts'.
        total: rows there are; done: those of earlier starts.
        keep: called with the totals every few seconds, to record what is used.
    """

    def __init__(
        self,
        board: Any,
        watches: Sequence[Watch],
        *,
        name: str,
        unit: str,
        total: int,
        done: int,
        stall_seconds: float,
        keep: Callable[[dict[str, Any]], None] = lambda totals: None,
    ) -> None:
        self._keep = keep
        self._board, self._watches = board, watches
        self._name, self._unit, self._total, self._before = name, unit, total, done
        self.stall_seconds = stall_seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"{name}-progress", daemon=True)
        self._started = time.monotonic()
        self._first_answer: float | None = None
        self._last_calls = 0
        self._last_answer = self._started
        self._stall_said = 0.0
        self._asked = False
        """Whether any row has been in an engine yet."""
        self._deaths_said = 0
        self._failed_starts_said = 0
        self.errors: Counter[str] = Counter()
        """Error rows of this start by reason; the driver counts them."""
        self.stop: Stop | None = None
        """Why the job ends early, as soon as a watch says so."""
        self.failed: Exception | None = None
        """What ended the thread, which the driver raises."""
        self.totals: dict[str, Any] = {}
        """Board.totals as last seen."""

    def __enter__(self) -> Teller:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join(timeout=5)

    def end(self, stop: Stop) -> None:
        """Ends the job early: the first reason counts, and all actors get its word.

        Draining may still become flushing, as by Ctrl-C.
        """
        if self.stop is None:
            self.stop = stop
        elif self.stop.directive == DRAIN and stop.directive == FLUSH:
            self.stop = Stop(self.stop.error, FLUSH)
        else:
            return
        self._board.direct.remote(self.stop.directive)

    def look(self, timeout: float = 5.0) -> dict[str, Any]:
        """Asks the board now."""
        import ray

        self.totals = ray.get(self._board.totals.remote(), timeout=timeout)
        return self.totals

    def _run(self) -> None:
        try:
            self._tell()
        except Exception as error:  # the driver raises it: a job is not followed in silence
            self.failed = error

    def _tell(self) -> None:
        from ray.exceptions import GetTimeoutError, RayError

        waiting = Waiting(self._name)
        while not self._over.wait(TELL_SECONDS):
            try:
                totals = self.look()
                no_room = waiting.news() if self._first_answer is None else []
            except GetTimeoutError:  # a busy machine: the next time
                continue
            except RayError:  # Ray is on its way down; the driver's main thread says why
                return
            self.record(totals)
            now = time.monotonic()
            for line in (*self.news(totals, now), *no_room, self.line(totals, now)):
                say(line)
            for watch in self._watches:
                if self.stop is None and (stop := watch.on_totals(totals)):
                    self.end(stop)

    def record(self, totals: dict[str, Any]) -> None:
        """Keeps what is used so far; a store that stumbles does not end the job."""
        try:
            self._keep(totals)
        except OSError as error:  # the next one replaces it; engines that can't write shards will say so
            say(f"{self._name}: what is used could not be recorded ({error})")

    def line(self, totals: dict[str, Any], now: float) -> str:
        """How far, how fast, how long still."""
        made = totals.get("ok", 0) + totals.get("error", 0)
        parts = [f"{self._name}: {min(self._before + made, self._total)}/{self._total} {self._unit}"]
        calls = totals.get("calls", 0)
        if not calls and self._first_answer is None:
            return f"{parts[0]} · engines starting · {duration(now - self._started)} so far"
        if self._first_answer is None:
            self._first_answer = now - REPORT_SECONDS
        working = max(now - self._first_answer, REPORT_SECONDS)
        parts.append(f"{made / working:.2f}/s")
        parts.append(f"{calls} calls")
        prompt = totals.get("prompt", 0)
        # Of a job that generates none, such as scoring, those that it reads.
        if tokens := totals.get("completion", prompt):
            parts.append(f"{tokens} tokens, {tokens / working:.0f}/s")
        if prompt:
            parts.append(f"cache {totals.get('cached', 0) / prompt:.0%}")
        if errors := self.errors.copy():  # the driver adds to it meanwhile
            parts.append("errors: " + ", ".join(f"{name} {n}" for name, n in errors.most_common(3)))
        parts.append(f"{totals['alive']} engine(s), {totals.get('in_flight', 0)} in flight")
        left = self._total - self._before - made
        if made and left > 0:
            parts.append(f"{duration(left * working / made)} left")
        parts.append(f"{duration(now - self._started)} so far")
        return " · ".join(parts)

    def silent_seconds(self, now: float) -> float:
        """Since an engine last answered, or since rows first waited for one; 0 while engines start."""
        return now - self._last_answer if self._asked else 0.0

    def news(self, totals: dict[str, Any], now: float) -> list[str]:
        """What is new: engines that died or did not start (each cause once), and that nothing happens."""
        said = [
            f"{self._name}: an engine died ({reason}); its {self._unit} are tried again"
            for reason in totals["deaths"][self._deaths_said :]
        ]
        self._deaths_said = len(totals["deaths"])
        failed = list(totals["failed_starts"].items())
        said += [
            f"{self._name}: an engine could not be started on {where} ({on_one_line(reason)}): "
            "it is tried again"
            for reason, where in failed[self._failed_starts_said :]
        ]
        self._failed_starts_said = len(failed)
        if not self._asked and (totals.get("in_flight") or totals.get("calls")):
            self._asked, self._last_answer = True, now
        if totals.get("calls", 0) != self._last_calls:
            self._last_calls, self._last_answer, self._stall_said = totals["calls"], now, 0.0
        silent = self.silent_seconds(now)
        if silent >= max(self.stall_seconds, 2 * self._stall_said):
            self._stall_said = silent
            said.append(
                f"{self._name}: stalled: no engine has answered for {duration(silent)}; {totals['alive']} "
                f"engine(s) heard of, {totals.get('in_flight', 0)} {self._unit} in flight (Ctrl-C keeps what "
                "is finished, and the same command goes on)"
            )
        return said
