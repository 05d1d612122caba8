"""Accuracy, margins, ties and turns from a table of scores worked out by hand."""

import json

import numpy as np
import pytest

from music_ray.config.load import resolve_config
from music_ray.errors import EnvironmentLacksError, InputError
from music_ray.evaluate import pairwise
from music_ray.evaluate.accuracy import PairFacts
from music_ray.evaluate.stats import Resampling
from music_ray.rundir import RunDir
from music_ray.schema import PAIR_SCHEMA, PreferencePair, to_table


def pair(number, turns, conversation):
    messages = [{"role": role, "content": f"{role} {number}"} for role in ("user", "assistant")] * turns
    return PreferencePair(
        id=f"p{number}", source="s", origin="D", conversation=conversation, num_turns=turns,
        branch_turn=turns, chosen=messages, rejected=messages,
    )  # fmt: skip


PAIRS = [pair(0, 1, 10), pair(1, 2, 11), pair(2, 2, 11), pair(3, 3, 12)]
# id: (chosen, rejected) by model; p2 is a tie of the trained model.
SCORES = {
    "trained": {"p0": (2.0, 1.0), "p1": (0.5, 1.0), "p2": (1.0, 1.0), "p3": (3.0, 0.5)},
    "untrained": {"p0": (0.0, 1.0), "p1": (0.0, 1.0), "p2": (0.0, 1.0), "p3": (0.25, 0.0)},
}


@pytest.fixture
def run(tmp_path):
    folder = RunDir(resolve_config({"name": "t", "runs_dir": str(tmp_path)}))
    folder.write_table(to_table(PAIRS, PAIR_SCHEMA), "mix", "held_out", "preferences.parquet")
    folder.write_table(to_table([], PAIR_SCHEMA), "mix", "held_out", "music.parquet")
    return folder


class FixedScorer:
    """Stands where a loaded model stands: the score of a side, looked up by its pair and its place."""

    batch_size = 8

    def __init__(self, table):
        self.table = table

    def rewards(self, conversations):
        half = len(conversations) // 2
        ids = [f"p{messages[0]['content'].split()[1]}" for messages in conversations]
        scores = [self.table[one][0 if index < half else 1] for index, one in enumerate(ids)]
        return scores, [8 + round(4 * score) for score in scores]  # the lengths follow the scores


class UnevenScorer(FixedScorer):
    """Scores that are no numbers among them, and lengths that follow nothing."""

    def rewards(self, conversations):
        half = len(conversations) // 2
        ids = [f"p{messages[0]['content'].split()[1]}" for messages in conversations]
        return [self.table[one][0 if index < half else 1] for index, one in enumerate(ids)], [8] * len(ids)


def test_the_numbers_are_those_worked_out_by_hand(run, monkeypatch):
    scorers = [(name, FixedScorer(table)) for name, table in SCORES.items()]
    monkeypatch.setattr(pairwise, "_models", lambda run: iter(scorers))
    facts = pairwise.run_evaluate(run)
    assert facts["counts"] == {"pairs_preferences": 4}

    result = json.loads(run.read_text("evals", "pairwise.json"))
    suite = result["suites"]["preferences"]
    assert list(result["suites"]) == ["preferences"]
    assert (suite["num_pairs"], suite["num_conversations"]) == (4, 3)
    trained = suite["models"]["trained"]
    assert trained["overall"]["accuracy"] == 0.5  # p0 and p3; the tie p2 is wrong
    assert trained["overall"]["ties"] == 1
    assert trained["overall"]["mean_margin"] == pytest.approx((1.0 - 0.5 + 0.0 + 2.5) / 4)
    assert {turns: part["accuracy"] for turns, part in trained["by_num_turns"].items()} == {
        "1": 1.0,
        "2": 0.0,
        "3": 1.0,
    }
    assert {turn: part["accuracy"] for turn, part in trained["by_branch_turn"].items()} == {
        "1": 1.0,
        "2": 0.0,
        "3": 1.0,
    }
    second = trained["by_num_turns"]["2"]
    assert (second["num_pairs"], second["num_contexts"], second["mean_margin"]) == (2, 1, -0.25)
    assert trained["by_source"] == {"s": trained["overall"]}
    assert trained["overall"]["margin_length"] == trained["overall"]["score_length"] == pytest.approx(1.0)
    assert (result["length_unit"], trained["overall"]["unscored"]) == ("tokens", 0)
    untrained = suite["models"]["untrained"]["overall"]
    assert (untrained["accuracy"], untrained["ties"]) == (0.25, 0)
    assert untrained["mean_margin"] == pytest.approx(-2.75 / 4)

    rows = {row["id"]: row for row in run.read_rows("scores")}
    assert set(rows) == {"p0", "p1", "p2", "p3"}


def test_the_two_models_are_compared_pair_by_pair(run, monkeypatch, capsys):
    scorers = [(name, FixedScorer(table)) for name, table in SCORES.items()]
    monkeypatch.setattr(pairwise, "_models", lambda run: iter(scorers))
    pairwise.run_evaluate(run)
    (found,) = json.loads(run.read_text("evals", "pairwise.json"))["suites"]["preferences"]["comparisons"]
    assert (found["first"], found["second"]) == ("trained", "untrained")
    overall = found["overall"]
    assert (overall["difference"], overall["only_first_right"], overall["only_second_right"]) == (0.25, 1, 0)
    assert (overall["num_contexts"], overall["p_value"]) == (3, 1.0)  # p0 alone: its flip is as far from 0
    assert {turn: one["difference"] for turn, one in found["by_branch_turn"].items()} == {
        "1": 1.0,
        "2": 0.0,
        "3": 0.0,
    }
    assert set(found["by_source"]) == {"s"} and set(found["by_num_turns"]) == {"1", "2", "3"}
    said = capsys.readouterr()
    assert "evaluate: preferences, trained - untrained: accuracy +0.250 [" in said.out + said.err
    assert "p = 1.0000 by exchanges of whole contexts" in said.out + said.err


def test_scores_are_put_into_the_model_s_card_and_nothing_becomes_out_of_date(run, monkeypatch):
    run.open()
    run.write_text("# Mine\n", "model", "README.md")
    run.start_stage("train")
    run.finish_stage("train", "weights", 1.0)
    record = run.manifest()["stages"]["train"]
    scorers = [(name, FixedScorer(table)) for name, table in SCORES.items()]
    monkeypatch.setattr(pairwise, "_models", lambda run: iter(scorers))
    pairwise.run_evaluate(run)
    card = run.read_text("model", "README.md")
    assert "| held-out pairs of D | trained | 4 | 0.500 [" in card
    assert run.is_finished("train") and run.manifest()["stages"]["train"] == record


def test_scores_lie_beside_their_pairs(run, monkeypatch):
    monkeypatch.setattr(pairwise, "_models", lambda run: iter([("trained", FixedScorer(SCORES["trained"]))]))
    pairwise.run_evaluate(run)
    path = run.path("scores", "preferences-trained.parquet")
    with run.open_parquet(path) as file:
        rows = {row["id"]: (row["chosen_score"], row["rejected_score"]) for row in file.read().to_pylist()}
    assert rows == SCORES["trained"]


def test_a_score_that_is_no_number_costs_its_own_pair_alone(run, monkeypatch, capsys):
    nan = float("nan")
    one = SCORES["trained"] | {"p0": (nan, 1.0)}
    none = dict.fromkeys(one, (nan, nan))
    scorers = [("trained", UnevenScorer(one)), ("untrained", UnevenScorer(none))]
    monkeypatch.setattr(pairwise, "_models", lambda run: iter(scorers))
    run.write_text("# Mine\n", "model", "README.md")
    pairwise.run_evaluate(run)
    written = run.read_text("evals", "pairwise.json")
    assert "NaN" not in written
    models = json.loads(written)["suites"]["preferences"]["models"]
    found = models["trained"]["overall"]
    assert (found["unscored"], found["accuracy"]) == (1, 0.25)
    assert found["mean_margin"] == pytest.approx((-0.5 + 0.0 + 2.5) / 3)
    assert models["trained"]["by_num_turns"]["1"]["mean_margin_low"] is None
    untrained = models["untrained"]["overall"]
    assert (untrained["unscored"], untrained["mean_margin"]) == (4, None)
    assert "untrained: accuracy 0.000 [0.000, 0.000], no margin, for no" in capsys.readouterr().out
    assert "| untrained | 4 | 0.000 [0.000, 0.000] | not known |" in run.read_text("model", "README.md")


def test_nothing_held_out_is_an_error_with_its_remedy(tmp_path):
    folder = RunDir(resolve_config({"name": "t", "runs_dir": str(tmp_path)}))
    with pytest.raises(InputError, match=r"raise data\.held_out_fraction or mix\.held_out_fraction"):
        pairwise.run_evaluate(folder)


def test_intervals_go_by_conversation():
    scores = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])

    def overall(contexts):
        facts = PairFacts(np.array(["s"] * 4), np.ones(4, dtype=int), np.ones(4, dtype=int), contexts)
        return pairwise.summarise(scores, facts, np.ones((4, 2)), Resampling())["overall"]

    one = overall(np.array([5, 5, 5, 5]))
    assert one["accuracy_low"] == one["accuracy"] == one["accuracy_high"] == 0.5
    assert one["mean_margin_low"] == one["mean_margin"] == one["mean_margin_high"] == 0.0
    four = overall(np.arange(4))
    assert four["accuracy_low"] == 0.0 and four["accuracy_high"] == 1.0
    assert (four["mean_margin_low"], four["mean_margin_high"]) == (-1.0, 1.0)


@pytest.fixture
def no_ray_left():
    """Ray in this process ends with the test: another one wants its own number of CPUs."""
    yield
    import ray

    ray.shutdown()


@pytest.mark.slow
@pytest.mark.usefixtures("no_ray_left")
def test_in_a_ray_task_a_users_mistake_comes_back_as_it_was_raised(tmp_path):
    from music_ray.ray_session import ensure_ray

    folder = RunDir(resolve_config({"name": "t", "runs_dir": str(tmp_path), "ray": {"num_cpus": 1}}))
    ensure_ray(folder.config)
    with pytest.raises(InputError, match=r"^no pair was held out, so there is nothing to evaluate on"):
        pairwise.evaluate_on_ray(folder, num_gpus=0)


@pytest.mark.slow
@pytest.mark.usefixtures("no_ray_left")
def test_gpu_evaluation_without_a_gpu_is_refused_at_once(tmp_path):
    config = {"name": "t", "runs_dir": str(tmp_path), "ray": {"num_cpus": 1}, "evaluate": {"use_gpu": True}}
    message = r"^evaluate.use_gpu asks for 1 GPUs, the cluster has 0: set evaluate.use_gpu=false"
    with pytest.raises(EnvironmentLacksError, match=message):
        pairwise.run_evaluate(RunDir(resolve_config(config)))


def test_scores_of_suites_that_are_gone_are_removed(run, monkeypatch):
    run.write_text("old", "scores", "music-trained.parquet")
    monkeypatch.setattr(pairwise, "_models", lambda run: iter([("trained", FixedScorer(SCORES["trained"]))]))
    pairwise.run_evaluate(run)
    assert [path.rpartition("/")[2] for path in run.parquet_files("scores")] == [
        "preferences-trained.parquet"
    ]
