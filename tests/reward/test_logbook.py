"""The training's logs: complete, without the steps that a resume repeats, in a folder or an object store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from music_ray.reward.logbook import EVALUATIONS, LOG, PAIRS, Logbook, count_pairs, read_log
from music_ray.reward.metrics import GroupResult, StepResult
from music_ray.reward.order import PairOrder
from music_ray.reward.validate import SuiteResult, ValidationResult
from tests.reward.zero3_ranks import object_store, sent_objects


def result(loss: float = 0.5, mfu: float | None = None, sources: int = 1) -> StepResult:
    group = GroupResult(pairs=2, loss=loss, accuracy=0.5, margin=0.125)
    return StepResult(
        loss=loss,
        accuracy=0.5,
        margin=0.125,
        chosen_reward=0.25,
        rejected_reward=0.125,
        gradient_norm=1.0,
        learning_rate=2e-6,
        pairs=2,
        tokens=60,
        seconds=2.0,
        chosen_reward_std=0.1,
        rejected_reward_std=0.2,
        tokens_per_second=30.0,
        pairs_per_second=1.0,
        padding_share=0.0,
        shared_share=1 / 3,
        mfu=mfu,
        by_origin={"D": group},
        by_source={f"source-{number:02d}": group for number in range(sources)},
    )


def evaluation(step: int, *, is_best: bool = True) -> ValidationResult:
    suite = SuiteResult(accuracy=0.75, loss=1 / 3, margin=0.5, num_pairs=4, num_dropped=1)
    return ValidationResult(step, {"music": suite}, is_best)


def test_a_line_says_all_of_a_step_with_eight_digits(make_run: Any, gemma2_folder: Path) -> None:
    run = make_run(gemma2_folder)
    book = Logbook(run, 0)
    book.add(1, result(loss=1 / 3), ["pair-007", "pair-002"])
    book.add_evaluation(evaluation(1))
    book.close()
    [line] = read_log(run)
    assert (line["step"], line["loss"], line["shared_share"], line["mfu"]) == (
        1,
        0.33333333,
        0.33333333,
        None,
    )
    assert line["by_origin"] == {"D": {"pairs": 2, "loss": 0.33333333, "accuracy": 0.5, "margin": 0.125}}
    assert read_log(run, PAIRS) == [{"step": 1, "ids": ["pair-007", "pair-002"]}]
    assert read_log(run, EVALUATIONS) == [
        {
            "step": 1,
            "suites": {
                "music": {
                    "accuracy": 0.75,
                    "loss": 0.33333333,
                    "margin": 0.5,
                    "num_pairs": 4,
                    "num_dropped": 1,
                }
            },
            "best": True,
        }
    ]


@pytest.mark.parametrize("remote", [False, True], ids=["folder", "object store"])
def test_a_resume_takes_out_what_it_repeats(
    make_run: Any, gemma2_folder: Path, monkeypatch: pytest.MonkeyPatch, remote: bool
) -> None:
    if remote:
        monkeypatch.setattr("music_ray.rundir.open_filesystem", object_store)
    run = make_run(gemma2_folder)
    assert run.is_local != remote
    book = Logbook(run, 0)
    for step in (1, 2, 3):
        book.add(step, result(loss=step), [f"pair-{step}"])
        book.add_evaluation(evaluation(step))
    book.close()
    if not remote:  # killed in the middle of a line
        with Path(run.path(*PAIRS)).open("a") as file:
            file.write('{"step": 4, "ids": ["pa')
    book = Logbook(run, 2)
    assert [line["step"] for line in read_log(run)] == [1, 2]
    book.add(3, result(loss=30), ["pair-30"])
    book.close()
    assert [(line["step"], line["loss"]) for line in read_log(run)] == [(1, 1.0), (2, 2.0), (3, 30.0)]
    assert [line["ids"] for line in read_log(run, PAIRS)] == [["pair-1"], ["pair-2"], ["pair-30"]]
    assert [line["step"] for line in read_log(run, EVALUATIONS)] == [1, 2]


def test_the_ids_say_that_an_epoch_saw_every_pair_once(make_run: Any, gemma2_folder: Path) -> None:
    run = make_run(gemma2_folder)
    ids = [f"pair-{number}" for number in range(9)]
    order = PairOrder(ids, seed=3, pairs_per_step=4)
    book = Logbook(run, 0)
    for step in range(5):
        if step == 3:  # killed after three steps, resumed from the second
            book.close()
            book = Logbook(run, 2)
            book.add(3, result(), [ids[index] for index in order.step(2)])
        book.add(step + 1, result(), [ids[index] for index in order.step(step)])
    book.close()
    seen = count_pairs(run)
    # 20 pairs of a stream of 9: two epochs and two pairs of the third.
    assert sorted(seen) == sorted(ids)
    assert sorted(seen.values()) == [2] * 7 + [3] * 2


def test_an_object_store_gets_a_log_only_when_it_has_grown(
    make_run: Any, gemma2_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("music_ray.rundir.open_filesystem", object_store)
    run = make_run(gemma2_folder)
    book = Logbook(run, 0)
    book.add(1, result(), ["pair-1"])
    book.flush()
    book.flush()
    book.close()
    sent = [name for name in sent_objects(run) if name.endswith(".jsonl")]
    assert sent == ["logs/train.jsonl", "logs/pairs.jsonl"]
    assert not run.exists(*EVALUATIONS)  # nothing was evaluated


def test_tensorboard_shows_steps_groups_and_evaluations(make_run: Any, gemma2_folder: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = make_run(gemma2_folder)
    book = Logbook(run, 0)
    book.add(1, result(loss=0.75, mfu=0.5, sources=23))
    book.add_evaluation(evaluation(1))
    book.close()
    board = EventAccumulator(run.path("logs", "tensorboard"))
    board.Reload()
    tags = set(board.Tags()["scalars"])
    assert {"train/loss", "train/mfu", "train/tokens_per_second", "train/shared_share"} <= tags
    assert {"origin/D/accuracy", "source/source-00/margin", "evaluation/music/loss"} <= tags
    assert not tags & {"train/step", "train/pairs", "source/source-20/loss"}
    [event] = board.Scalars("train/loss")
    assert (event.step, event.value) == (1, 0.75)


def test_lines_are_plain_json(make_run: Any, gemma2_folder: Path) -> None:
    run = make_run(gemma2_folder)
    book = Logbook(run, 0)
    for step in (1, 2):
        book.add(step, result(), [f"\u2028a pair\nof step {step}"])
        book.add_evaluation(evaluation(step))
    book.close()
    constants: list[str] = []  # NaN and Infinity, which Python writes and no other reader of JSON knows
    for parts in (LOG, PAIRS, EVALUATIONS):
        text = Path(run.path(*parts)).read_text()
        assert text.endswith("}\n") and text.isascii()  # a line ends where str.splitlines ends it
        lines = [json.loads(line, parse_constant=constants.append) for line in text.splitlines()]
        assert [line["step"] for line in lines] == [1, 2]
    assert constants == []
