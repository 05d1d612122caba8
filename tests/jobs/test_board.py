"""What the board remembers of actors and of rows in flight, and what the teller makes of it."""

import pytest

from music_ray.errors import StageError
from music_ray.jobs.board import DRAIN, FLUSH, GO_ON, Board
from music_ray.jobs.teller import Teller
from music_ray.jobs.watch import ErrorRate, Stop


def test_sums_are_over_all_actors_and_the_word_reaches_each(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("music_ray.jobs.board.time.monotonic", lambda: clock[0])
    board = Board()
    assert board.report("a", {}) == GO_ON
    clock[0] = 110.0
    board.report("b", {"calls": 5, "ok": 1})
    assert board.report("a", {"calls": 7}) == GO_ON
    totals = board.totals()
    assert (totals["calls"], totals["ok"], totals["actors"], totals["alive"]) == (12, 1, 2, 2)
    assert totals["engine_seconds"] == 10.0 and totals["obeyed"] == 2
    board.direct(DRAIN)
    assert board.report("a", {"calls": 7}) == DRAIN
    assert board.totals()["obeyed"] == 0
    board.report("a", {"calls": 7}, DRAIN)
    board.report("b", {"calls": 5, "ok": 1, "in_flight": 4})
    assert board.totals()["in_flight"] == 4
    clock[0] = 130.0  # b has said nothing for 20 s
    board.report("a", {"calls": 9}, DRAIN)
    assert (board.totals()["obeyed"], board.totals()["alive"], board.totals()["calls"]) == (1, 1, 14)
    assert "in_flight" not in board.totals()


def test_a_row_that_did_not_come_out_is_a_suspect_until_it_ends():
    board = Board()
    assert board.begin([1, 2, 3]) == (GO_ON, False, {})
    board.end([3])
    assert board.begin([1, 2, 3]) == (GO_ON, True, {1: (1, 0), 2: (1, 0)})  # its actor was killed
    board.enter(1)
    board.engine_died([1], "boom")
    assert board.begin([1, 2]) == (GO_ON, True, {1: (2, 1), 2: (1, 0)})
    board.end([1, 2])
    assert board.begin([1, 2]) == (GO_ON, True, {})
    assert board.begin([4]) == (GO_ON, False, {})
    assert board.totals()["deaths"] == ["boom"] and board.totals()["tasks"] == 2
    board.direct(FLUSH)
    assert board.begin([5]) == (FLUSH, False, {})


def test_failed_starts_are_counted_from_the_last_task_that_was_begun():
    board = Board()
    assert board.start_failed("no tokenizer there", "a") == 0  # nothing has worked yet
    assert board.totals()["failed_starts"] == {}
    board.begin([1])
    assert [board.start_failed("the hub is away", where) for where in "bc"] == [1, 2]
    board.begin([2])
    assert board.start_failed("disk full", "c") == 1
    assert board.totals()["failed_starts"] == {"the hub is away": "b", "disk full": "c"}


class Word:
    """Stands where the board's Ray handle stands: keeps the word."""

    def __init__(self):
        self.given = []
        self.direct = self

    def remote(self, directive):
        self.given.append(directive)


def teller(board=None, **options):
    settings = {"name": "generate", "unit": "rollouts", "total": 100, "done": 10, "stall_seconds": 60}
    made = Teller(board, [], **{**settings, **options})
    made._started = made._last_answer = 0.0
    made._asked = True
    return made


TOTALS = {"alive": 2, "obeyed": 2, "deaths": [], "failed_starts": {}}


def test_a_line_says_how_far_how_fast_and_how_long_still():
    told = teller()
    assert told.line(TOTALS, 30.0) == "generate: 10/100 rollouts · engines starting · 30 s so far"
    counts = {
        "calls": 40,
        "completion": 900,
        "prompt": 1000,
        "cached": 750,
        "ok": 8,
        "error": 2,
        "in_flight": 16,
    }
    told.line({**TOTALS, "calls": 1}, 63.0)
    told.errors.update({"request_refused": 2})
    assert told.line({**TOTALS, **counts}, 80.0) == (
        "generate: 20/100 rollouts · 0.50/s · 40 calls · 900 tokens, 45/s · cache 75% · "
        "errors: request_refused 2 · 2 engine(s), 16 in flight · 2 min 40 s left · 1 min 20 s so far"
    )


def test_a_job_that_generates_nothing_tells_the_tokens_that_it_reads():
    """What a scoring worker counts (tests/score/test_worker.py)."""
    told = teller(name="score", unit="conversations")
    told.line({**TOTALS, "calls": 1}, 63.0)
    counts = {"calls": 40, "prompt": 1200, "cached": 300, "ok": 40}
    assert told.line({**TOTALS, **counts}, 80.0) == (
        "score: 50/100 conversations · 2.00/s · 40 calls · 1200 tokens, 60/s · cache 25% · "
        "2 engine(s), 0 in flight · 25 s left · 1 min 20 s so far"
    )


def test_without_any_tokens_none_are_told():
    told = teller()
    told.line({**TOTALS, "calls": 1}, 63.0)
    assert told.line({**TOTALS, "calls": 10, "ok": 10}, 80.0) == (
        "generate: 20/100 rollouts · 0.50/s · 10 calls · 2 engine(s), 0 in flight · "
        "2 min 40 s left · 1 min 20 s so far"
    )


def test_a_stall_is_said_once_and_again_after_twice_the_time():
    told = teller()
    told.line({**TOTALS, "calls": 5}, 10.0)
    assert told.news({**TOTALS, "calls": 5}, 10.0) == []
    stuck = {**TOTALS, "calls": 5, "in_flight": 7}
    said = [now for now in range(20, 320, 10) if told.news(stuck, float(now))]
    assert said == [70, 130, 250]
    assert told.news({**stuck, "calls": 6}, 330.0) == []
    line = told.news({**stuck, "calls": 6}, 390.0)
    assert line[0].startswith(
        "generate: stalled: no engine has answered for 1 min 00 s; 2 engine(s) heard of, 7"
    )


def test_no_stall_while_engines_start_but_one_when_they_never_answer():
    told = teller()
    told._asked = False
    assert told.news({**TOTALS, "calls": 0}, 900.0) == []
    waiting = {**TOTALS, "calls": 0, "in_flight": 3}
    assert told.news(waiting, 910.0) == []
    assert told.news(waiting, 970.0)[0].startswith("generate: stalled: no engine has answered for 1 min 00 s")


def test_each_death_is_said_once():
    told = teller()
    assert told.news({**TOTALS, "deaths": ["oom"]}, 1.0) == [
        "generate: an engine died (oom); its rollouts are tried again"
    ]
    assert told.news({**TOTALS, "deaths": ["oom"]}, 2.0) == []


def test_a_start_that_failed_is_said_once_for_each_cause():
    told = teller()
    failed = {"the hub is away\ntry later": "node-7"}
    assert told.news({**TOTALS, "failed_starts": failed}, 1.0) == [
        "generate: an engine could not be started on node-7 (the hub is away␊try later): it is tried again"
    ]
    assert told.news({**TOTALS, "failed_starts": failed}, 2.0) == []
    assert told.news({**TOTALS, "failed_starts": {**failed, "disk full": "node-8"}}, 3.0) == [
        "generate: an engine could not be started on node-8 (disk full): it is tried again"
    ]


def test_the_first_reason_to_stop_counts():
    board = Word()
    told = teller(board)
    told.end(Stop(StageError("first"), DRAIN))
    told.end(Stop(StageError("second"), DRAIN))
    assert str(told.stop.error) == "first" and board.given == [DRAIN]
    told.end(Stop(StageError("Ctrl-C"), FLUSH))  # draining may take long
    assert str(told.stop.error) == "first" and told.stop.directive == FLUSH and board.given == [DRAIN, FLUSH]


@pytest.mark.parametrize(("errors", "stops"), [(5, False), (6, True)])
def test_too_many_errors_stop_a_run_and_are_named(errors, stops):
    watch = ErrorRate(0.5, 10, "runs/x/rollouts")
    assert watch.on_results([1] * 6, ["error"] * 6, ["a"] * 6) is None  # too few rows to judge by
    watch = ErrorRate(0.5, 10, "runs/x/rollouts")
    statuses = ["error"] * errors + ["ok"] * (10 - errors)
    reasons = ["rate_limited"] * (errors - 1) + ["context_full"] + [""] * (10 - errors)
    stop = watch.on_results(range(10), statuses, reasons)
    assert (stop is not None) == stops
    if stop:
        assert str(stop.error).startswith(
            "6 of 10 rows failed (rate_limited 5, context_full 1), generate.max_error_rate is 0.5: mend "
        )
        assert stop.directive == FLUSH
