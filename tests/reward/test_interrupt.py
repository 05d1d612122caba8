"""Ctrl-C while the workers train: what was done is in a checkpoint, and the training goes on from it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from music_ray.config.load import dump_config
from music_ray.reward import checkpoint
from music_ray.reward.interrupt import STOP, forget_interrupt, save_before_the_end
from music_ray.reward.logbook import PAIRS, read_log
from music_ray.rundir import RunDir
from tests.reward.reference import losses_of
from tests.reward.zero3_ranks import call_ranks, outcome, train


@pytest.mark.slow
def test_all_ranks_save_and_end_after_the_same_step_and_go_on_as_if_nothing_had_happened(
    make_run: Any, gemma2_folder: Path
) -> None:
    settings = {"checkpoint_every": 4}
    straight = make_run(gemma2_folder, name="straight", **settings)
    assert train(straight, 2) == [0, 0]
    stopped = make_run(gemma2_folder, name="stopped", **settings)
    stopped.write_text("", *STOP)
    assert train(stopped, 2) == [0, 0]
    assert outcome(stopped) == {"status": "interrupted", "step": 1}
    assert checkpoint.complete_steps(stopped) == [1]
    assert not stopped.exists("model")
    forget_interrupt(stopped)
    assert train(stopped, 2) == [0, 0]
    assert outcome(stopped)["resumed_from"] == 1
    assert losses_of(stopped) == pytest.approx(losses_of(straight), abs=1e-5)
    assert read_log(stopped, PAIRS) == read_log(straight, PAIRS)


@pytest.mark.slow
def test_rank_0_looks_for_all_and_not_after_every_step(
    make_run: Any, tmp_path: Path, gemma2_folder: Path
) -> None:
    run = make_run(gemma2_folder)
    assert call_ranks(_watch, 2, run.config.model_dump_json(), str(tmp_path)) == [0, 0]
    assert {(tmp_path / f"{rank}.txt").read_text() for rank in range(2)} == {"[False, False, True]"}
    assert run.read_text(*STOP) == "saving"  # the driver sees that it is heard


def _watch(config: str, folder: str) -> None:
    import torch.distributed as dist

    from music_ray.config import RunConfig
    from music_ray.reward.interrupt import InterruptWatch

    run = RunDir(RunConfig.model_validate_json(config))
    watch = InterruptWatch(run)
    said = [watch.wanted()]
    if dist.get_rank() == 0:
        run.write_text("", *STOP)
    dist.barrier()
    said.append(watch.wanted())  # rank 0 looked a moment ago
    time.sleep(2.1 if dist.get_rank() == 0 else 0)
    said.append(watch.wanted())
    Path(folder, f"{dist.get_rank()}.txt").write_text(str(said))


def never(over: threading.Event) -> None:
    raise AssertionError("there is nothing to wait for")


def write_log(run: RunDir, step: int) -> None:
    run.write_text(f'{{"step": {step}, "loss": 1.0}}\n', "logs", "train.jsonl")


def test_where_nothing_would_be_lost_it_ends_at_once(
    make_run: Any, gemma2_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(gemma2_folder)
    ended = threading.Event()
    save_before_the_end(run, ended, never)  # no step is done
    write_log(run, 2)
    run.write_text("{}", "checkpoints", "step-000002", "index.json")
    save_before_the_end(run, ended, never)  # the last one is saved
    write_log(run, 3)
    ended.set()
    save_before_the_end(run, ended, never)  # the workers have ended
    ended.clear()
    taken_over = threading.Event()
    taken_over.set()
    monkeypatch.setattr("music_ray.run_lock.TAKEN_OVER", taken_over)
    save_before_the_end(run, ended, never)  # the run is another driver's
    assert not run.exists(*STOP)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ((), "train: no checkpoint could be saved (the workers are gone)"),
        (
            ('{"status": "failed", "message": "the disk is full"}', "checkpoints", "outcome.json"),
            "train: no checkpoint could be saved (the disk is full)",
        ),
        (("{}", "checkpoints", "step-000003", "index.json"), "train: the checkpoint of step 3 is saved"),
    ],
)
def test_what_became_of_it_is_said(
    make_run: Any,
    gemma2_folder: Path,
    capsys: pytest.CaptureFixture[str],
    written: tuple[str, ...],
    said: str,
) -> None:
    run = make_run(gemma2_folder)
    write_log(run, 3)

    def follow(over: threading.Event) -> None:
        assert run.exists(*STOP)
        if written:
            run.write_text(*written)

    save_before_the_end(run, threading.Event(), follow)
    assert capsys.readouterr().out.splitlines() == [
        "train: saving a checkpoint before it ends; Ctrl-C again ends it at once, without",
        said,
    ]
    forget_interrupt(run)
    assert not run.exists(*STOP)


@pytest.mark.parametrize(("answer", "is_given_up"), [("", True), ("saving", False)])
def test_where_nobody_answers_and_no_step_is_made_it_ends_after_a_while(
    make_run: Any, gemma2_folder: Path, monkeypatch: pytest.MonkeyPatch, answer: str, is_given_up: bool
) -> None:
    """Found by make chaos: a node was away for long, and its workers could not come back to save."""
    monkeypatch.setattr("music_ray.reward.interrupt._LOOK_EVERY_SECONDS", 0.05)
    monkeypatch.setattr("music_ray.reward.interrupt._PATIENCE_SECONDS", 2.0)
    run, ended = make_run(gemma2_folder), threading.Event()
    write_log(run, 3)

    def follow(over: threading.Event) -> None:
        run.write_text(answer, *STOP)
        for step in (4, 5, 6):  # steps that are made are waited for
            assert not over.wait(1.0)
            write_log(run, step)
        assert over.wait(10.0 if is_given_up else 4.0) == is_given_up
        ended.set()
        assert over.wait(10.0)

    save_before_the_end(run, ended, follow)


DRIVER = """
import signal, sys
from music_ray import cli
from music_ray.config.load import load_config
from music_ray.reward.train import run_train
from music_ray.rundir import RunDir

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv = ["music-ray"]
cli.app = lambda standalone_mode: run_train(RunDir(load_config(CONFIG, []))) and 0
cli.main()
"""


@pytest.mark.slow
@pytest.mark.faults
def test_ctrl_c_in_the_driver(make_run: Any, gemma2_folder: Path, tmp_path: Path) -> None:
    run = make_run(gemma2_folder, steps=2000, checkpoint_every=2000, learning_rate=1e-4)
    place = tmp_path / "config.yaml"
    place.write_text(dump_config(run.config))

    def until_step(steps: int, *signals_after: int) -> tuple[int, str]:
        command = [sys.executable, "-c", DRIVER.replace("CONFIG", repr(str(place)))]
        driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        while driver.poll() is None and not any(line["step"] >= steps for line in read_log(run)):
            time.sleep(0.1)
        for number in signals_after:
            os.kill(driver.pid, number)
            time.sleep(0.2)
        said, _ = driver.communicate(timeout=120)
        return driver.returncode, said

    code, said = until_step(5, signal.SIGINT)
    assert code == 130, said
    [saved] = checkpoint.complete_steps(run)
    assert saved >= 5 and f"train: the checkpoint of step {saved} is saved\n" in said
    code, said = until_step(saved + 5, signal.SIGINT)
    assert code == 130 and f"train: going on from the checkpoint of step {saved}\n" in said, said
    assert checkpoint.complete_steps(run)[-1] >= saved + 5
    assert [line["step"] for line in read_log(run)] == list(range(1, checkpoint.complete_steps(run)[-1] + 1))
    before = checkpoint.complete_steps(run)
    code, said = until_step(before[-1] + 5, signal.SIGINT, signal.SIGINT)
    assert code == 130 and "train: the checkpoint of" not in said, said
    assert said.endswith("music-ray: interrupted: the same command goes on from here\n")
