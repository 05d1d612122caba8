"""Held-out pairs scored while training: which, how often, and which step is the best by them."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from music_ray.chat import ChatFormat
from music_ray.config.load import apply_overrides, resolve_config
from music_ray.errors import ConfigError, InputError, StageError
from music_ray.reward.checkpoint_index import complete_steps
from music_ray.reward.data import PairTokens
from music_ray.reward.logbook import EVALUATIONS, read_log
from music_ray.reward.validate import Validation, best_step, check_held_out, evaluation_line
from music_ray.rundir import RunDir
from music_ray.schema import PAIR_SCHEMA, PreferencePair, content_id, to_table
from tests.reward.conftest import make_pair
from tests.reward.zero3_ranks import call_ranks, train


class CountingScorer:
    """Rewards by a rule on the token ids; remembers which pairs were scored, in which batches."""

    def __init__(self, rule: Any = len) -> None:
        self.rule = rule
        self.batches: list[list[str]] = []

    def score(self, pairs: PairTokens, batch: Sequence[int]) -> Any:
        self.batches.append([pairs.ids[index] for index in batch])
        sides = [pairs.sides(index) for index in batch]
        return torch.tensor([[float(self.rule(pair[side])) for pair in sides] for side in (0, 1)])


def hold_out(run: RunDir, **suites: Iterable[PreferencePair]) -> None:
    """Writes held-out suites into a run folder."""
    for name, pairs in suites.items():
        run.write_table(to_table(list(pairs), PAIR_SCHEMA), "mix", "held_out", f"{name}.parquet")


@pytest.fixture
def chat(gemma2_folder: Path) -> ChatFormat:
    return ChatFormat.load(str(gemma2_folder))


PREFERENCES = [make_pair(number) for number in range(20, 33)]
MUSIC = [make_pair(number) for number in range(40, 45)]


def test_every_pair_is_scored_once_and_the_averages_are_exact(
    make_run: Any, gemma2_folder: Path, chat: ChatFormat
) -> None:
    run = make_run(gemma2_folder)
    hold_out(run, preferences=PREFERENCES, music=MUSIC)
    scorer = CountingScorer()
    result = Validation(run, chat, scorer).evaluate(2)
    # 13 and 5 pairs in batches of train.pairs_per_step: no pair is there twice to fill a batch.
    assert [len(batch) for batch in scorer.batches] == [6, 6, 1, 5]
    names = [name for batch in scorer.batches for name in batch]
    assert sorted(names) == sorted(pair.id for pair in [*PREFERENCES, *MUSIC])
    for name, pairs in (("preferences", PREFERENCES), ("music", MUSIC)):
        gaps = [
            len(chat.conversation_ids(pair.chosen)) - len(chat.conversation_ids(pair.rejected))
            for pair in pairs
        ]
        assert 0 in gaps or name == "music"  # a tie counts as wrong
        suite = result.suites[name]
        assert suite.accuracy == pytest.approx(sum(gap > 0 for gap in gaps) / len(gaps))
        assert suite.margin == pytest.approx(sum(gaps) / len(gaps))
        assert suite.loss == pytest.approx(sum(math.log1p(math.exp(-gap)) for gap in gaps) / len(gaps))
        assert (suite.num_pairs, suite.num_dropped) == (len(pairs), 0)


def test_the_sample_is_the_first_by_hash_and_over_long_pairs_are_counted(
    make_run: Any, gemma2_folder: Path, chat: ChatFormat
) -> None:
    run = make_run(gemma2_folder, evaluate_pairs=8, max_tokens=24)
    hold_out(run, preferences=PREFERENCES)
    scorer = CountingScorer()
    suite = Validation(run, chat, scorer).evaluate(2).suites["preferences"]
    sample = sorted(PREFERENCES, key=lambda pair: content_id(["evaluate", pair.id]))[:8]
    longest = [
        max(len(chat.conversation_ids(side)) for side in (pair.chosen, pair.rejected)) for pair in sample
    ]
    assert 0 < sum(length > 24 for length in longest) < 8
    fitting = [pair.id for pair, length in zip(sample, longest, strict=True) if length <= 24]
    assert [name for batch in scorer.batches for name in batch] == fitting
    assert (suite.num_pairs, suite.num_dropped) == (len(fitting), 8 - len(fitting))


def test_due_every_few_steps_and_after_the_last(make_run: Any, gemma2_folder: Path, chat: ChatFormat) -> None:
    run = make_run(gemma2_folder, steps=7, evaluate_every=3)
    hold_out(run, music=MUSIC)
    validation = Validation(run, chat, CountingScorer())
    assert [step for step in range(1, 8) if validation.due(step)] == [3, 6, 7]


def test_nothing_held_out_or_nothing_asked_for_is_never_due(
    make_run: Any, gemma2_folder: Path, chat: ChatFormat
) -> None:
    run = make_run(gemma2_folder)
    assert check_held_out(run) == "train: no pair is held out, so nothing is evaluated while training"
    assert not Validation(run, chat, CountingScorer()).due(4)
    off = make_run(gemma2_folder, name="off", evaluate_every=None)
    hold_out(off, music=MUSIC)
    assert check_held_out(off) is None
    assert not Validation(off, chat, CountingScorer()).due(4)


def test_the_driver_says_what_will_be_scored(make_run: Any, gemma2_folder: Path) -> None:
    run = make_run(gemma2_folder, evaluate_pairs=8, evaluate_every=3)
    hold_out(run, preferences=PREFERENCES, music=MUSIC)
    assert check_held_out(run) == (
        "train: 8 held-out pairs of preferences and 5 held-out pairs of music are scored every 3 steps"
    )


def test_what_cannot_be_found_is_refused_before_the_start(
    make_run: Any, gemma2_folder: Path, chat: ChatFormat
) -> None:
    run = make_run(gemma2_folder, best_by="music_accuracy")
    hold_out(run, preferences=PREFERENCES, music=[])
    with pytest.raises(InputError) as caught:
        check_held_out(run)
    assert str(caught.value) == (
        "train.best_by=music_accuracy, but no pair of music is held out: raise mix.held_out_fraction, or "
        "set train.best_by=mean"
    )
    with pytest.raises(InputError) as caught:
        check_held_out(make_run(gemma2_folder, name="empty", export="best"))
    assert str(caught.value) == (
        "train.export=best, but no pair is held out to find the best by: raise data.held_out_fraction or "
        "mix.held_out_fraction, or set train.export=last"
    )
    long = make_run(gemma2_folder, name="long", export="best", max_tokens=16)
    hold_out(long, music=[make_pair(44)])
    with pytest.raises(InputError) as caught:
        Validation(long, chat, CountingScorer())
    assert str(caught.value) == (
        "train.export=best, but no held-out pair can be scored (dropped: over_length 1): raise "
        "train.max_tokens, or set train.export=last"
    )
    with pytest.raises(ConfigError) as problem:
        resolve_config(apply_overrides({"name": "x"}, ["train.export=best", "train.evaluate_every=null"]))
    assert str(problem.value) == (
        "train.export=best needs evaluations to find the best checkpoint by: set train.evaluate_every, or "
        "train.export=last"
    )


def test_rewards_that_are_no_numbers_stop_the_run(
    make_run: Any, gemma2_folder: Path, chat: ChatFormat
) -> None:
    run = make_run(gemma2_folder)
    hold_out(run, music=MUSIC)
    bad = chat.conversation_ids(MUSIC[3].chosen)
    scorer = CountingScorer(lambda ids: math.nan if ids.tolist() == bad else len(ids))
    with pytest.raises(StageError) as caught:
        Validation(run, chat, scorer).evaluate(2)
    assert str(caught.value) == (
        "rewards of held-out pairs (music: pair-043) are not finite numbers: look at them in mix/held_out, "
        "lower train.learning_rate, or train in float32"
    )


# -- the best --------------------------------------------------------------------------------------


def scores(**suites: tuple[float, float]) -> dict[str, Any]:
    return {
        name: {"accuracy": accuracy, "loss": loss, "margin": 0.0, "num_pairs": 10, "num_dropped": 0}
        for name, (accuracy, loss) in suites.items()
    }


THREE = {
    2: scores(preferences=(0.8, 0.50), music=(0.6, 0.70)),
    4: scores(preferences=(0.7, 0.60), music=(0.7, 0.40)),
    6: scores(preferences=(0.6, 0.40), music=(0.7, 0.50)),
}


@pytest.mark.parametrize(
    ("best_by", "best"),
    [("mean", 4), ("preferences_accuracy", 2), ("music_accuracy", 4), ("loss", 6)],
)
def test_the_best_by_each_measure(best_by: str, best: int) -> None:
    # mean: 0.7, 0.7, 0.65, and the loss decides; music: 0.6, 0.7, 0.7, and its own loss decides.
    assert best_step(THREE, best_by) == best


def test_of_equals_the_earlier_one_stays_the_best() -> None:
    assert best_step({2: THREE[4], 4: THREE[4]}, "mean") == 2
    assert best_step({}, "mean") is None


def test_evaluations_on_other_pairs_are_not_compared() -> None:
    fewer = {name: {**suite, "num_pairs": 3} for name, suite in scores(music=(1.0, 0.0)).items()}
    assert best_step({2: fewer, 4: scores(music=(0.5, 0.7))}, "mean") == 4


def test_a_resume_knows_the_best_from_the_checkpoints(
    make_run: Any, gemma2_folder: Path, chat: ChatFormat
) -> None:
    run = make_run(gemma2_folder)
    hold_out(run, music=MUSIC)
    perfect, worst = CountingScorer(lambda ids: -content_id(ids.tolist())), CountingScorer(lambda ids: 0)
    first = Validation(run, chat, perfect)
    assert first.best_step is None and first.evaluate(2).is_best and first.best_step == 2
    _write_index(run, 2, first.scores_at(2))
    _write_index(run, 3, None)  # not evaluated
    again = Validation(run, chat, worst)
    assert again.best_step == 2
    assert not again.evaluate(4).is_best
    assert (again.best_step, again.scores_at(3)) == (2, None)


def _write_index(run: RunDir, step: int, evaluation: Any) -> None:
    index = {"format": 1, "step": step, "seed": 5, "pairs_per_step": 6, "fingerprint": "", "world_size": 1}
    index |= {"parameters": {}, "evaluation": evaluation}
    run.write_text(json.dumps(index), "checkpoints", f"step-{step:06d}", "index.json")


def test_the_line_for_a_person(make_run: Any, gemma2_folder: Path) -> None:
    suites = scores(preferences=(0.8125, 0.51234), music=(0.6, 0.7))
    suites["music"]["num_dropped"] = 2
    line = {"step": 3, "suites": suites, "best": True}
    assert evaluation_line(line, make_run(gemma2_folder).config.train) == (
        "train: held-out pairs after step 3/4 · preferences: accuracy 0.812, loss 0.5123, margin +0.000 "
        "(10 pairs) · music: accuracy 0.600, loss 0.7000, margin +0.000 (10 pairs, 2 left out) · the best "
        "so far"
    )


# -- on real ranks ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_any_number_of_ranks_scores_the_same(make_run: Any, gemma2_folder: Path, tmp_path: Path) -> None:
    """13 and 5 pairs do not divide by 2 or 3 ranks; nothing is scored twice to fill them."""
    from music_ray.reward.train import prepare
    from music_ray.reward_model import head_seed, load_reward_model, score

    run = make_run(gemma2_folder)
    hold_out(run, preferences=PREFERENCES, music=MUSIC)
    task, _ = prepare(run)
    found = []
    for world_size in (1, 2, 3):
        file = tmp_path / f"{world_size}.json"
        assert call_ranks(_evaluate_rank, world_size, task, str(file)) == [0] * world_size
        found.append(json.loads(file.read_text()))
    chat = ChatFormat.load(str(gemma2_folder))
    model = load_reward_model(str(gemma2_folder), head_seed=head_seed(5))
    for name, pairs in (("preferences", PREFERENCES), ("music", MUSIC)):
        sides = [chat.conversation_ids(side) for pair in pairs for side in (pair.chosen, pair.rejected)]
        rewards = score(model, sides)
        gaps = [one - other for one, other in zip(rewards[::2], rewards[1::2], strict=True)]
        for scored in found:
            assert scored[name]["accuracy"] == sum(gap > 0 for gap in gaps) / len(gaps)
            assert scored[name]["margin"] == pytest.approx(sum(gaps) / len(gaps), abs=1e-5)


def _evaluate_rank(task: dict[str, Any], file: str) -> None:
    import torch.distributed as dist

    from music_ray.config import RunConfig
    from music_ray.reward.passes import Passes, Rank
    from music_ray.reward.zero3 import build_engine, prepare_process

    run = RunDir(RunConfig.model_validate(task["config"]))
    train = run.config.train
    prepare_process(train)
    engine = build_engine(
        train, task["model"], head_seed=task["head_seed"], pad_token_id=task["pad_token_id"]
    )
    rank = Rank(dist.get_rank(), dist.get_world_size(), torch.device("cpu"))
    passes = Passes(train, engine, rank, task["pad_token_id"])
    validation = Validation(run, ChatFormat.load(task["model"]), passes)
    validation.evaluate(2)
    everywhere: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everywhere, validation.scores_at(2))
    assert all(one == everywhere[0] for one in everywhere)
    if dist.get_rank() == 0:
        Path(file).write_text(json.dumps(everywhere[0]))


@pytest.mark.slow
def test_the_best_checkpoint_is_what_is_exported(make_run: Any, gemma2_folder: Path) -> None:
    """The held-out pairs are turned round, so what is learnt makes the model worse on them."""
    settings = {"steps": 4, "evaluate_every": 1, "checkpoint_every": 100, "keep_checkpoints": 1}
    run = make_run(gemma2_folder, best_by="loss", export="best", **settings)
    hold_out(run, preferences=map(_turned_round, PREFERENCES), music=map(_turned_round, MUSIC))
    assert train(run, 2) == [0, 0]
    lines = read_log(run, EVALUATIONS)
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    losses = [sum(suite["loss"] for suite in line["suites"].values()) / 2 for line in lines]
    best = losses.index(min(losses)) + 1
    assert best < 4, losses  # else nothing is shown here
    assert complete_steps(run) == [best, 4]
    assert [line["best"] for line in lines] == [loss == min(losses[: n + 1]) for n, loss in enumerate(losses)]
    assert _held_out_loss(run, gemma2_folder) == pytest.approx(min(losses), abs=1e-4)
    # Asked for the last weights after all, the finished run exports them from the checkpoints.
    run = RunDir(
        run.config.model_copy(update={"train": run.config.train.model_copy(update={"export": "last"})})
    )
    assert train(run, 1) == [0]
    assert _held_out_loss(run, gemma2_folder) == pytest.approx(losses[-1], abs=1e-4)


def _turned_round(pair: PreferencePair) -> PreferencePair:
    return dataclasses.replace(pair, chosen=pair.rejected, rejected=pair.chosen)


def _held_out_loss(run: RunDir, folder: Path) -> float:
    """Mean of the suites' losses by the exported model."""
    from music_ray.reward_model import load_reward_model, score

    chat, model = ChatFormat.load(str(folder)), load_reward_model(run.path("model"))
    means = []
    for pairs in (PREFERENCES, MUSIC):
        sides = [chat.conversation_ids(side) for pair in pairs for side in (pair.chosen, pair.rejected)]
        rewards = score(model, sides)
        gaps = [other - one for one, other in zip(rewards[::2], rewards[1::2], strict=True)]
        means.append(sum(math.log1p(math.exp(-gap)) for gap in gaps) / len(gaps))
    return sum(means) / 2
