"""Turns that are spoiled, and what models that read all or one of them show."""

import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from music_ray.errors import InputError
from music_ray.evaluate.any_model import evaluate_models
from music_ray.evaluate.pair_sets import EvalPair
from music_ray.evaluate.sensitivity import of_model, verdict
from music_ray.evaluate.sensitivity_show import VERDICTS
from music_ray.evaluate.show import print_evaluation
from music_ray.evaluate.sides import Scored, Tools
from music_ray.evaluate.spoil import CONTRAST, FOREIGN, Spoiled, Spoiling, spoil
from music_ray.evaluate.stats import Resampling
from music_ray.rundir import RunDir
from tests.evaluate.conftest import messages, write_jsonl

QUICK = Resampling(samples=100)


def pair(number: int, *replies: str, rejected: tuple[str, ...] = ()) -> EvalPair:
    """A pair whose sides share the user's messages; the rejected side is one bad reply by default."""

    def side(said: tuple[str, ...]):
        return messages(*(text for at, one in enumerate(said) for text in (f"q{number}-{at}", one)))

    return EvalPair(f"p{number}", "s", "", side(replies), side(rejected or ("bad",)))


# -- what is spoiled -------------------------------------------------------------------------------


def test_each_turn_is_spoiled_alone_and_the_rest_stays() -> None:
    found = spoil([pair(1, "aa", "bb", rejected=("aa", "no")), pair(2, "cc", "dd", rejected=("ee", "x"))], 0)
    assert found.good == [0, 1] and found.no_foreign_reply == 0 and not found.left_out
    assert [(one.index, one.kind, one.turn, one.distance) for one in found.spoiled] == [
        (0, FOREIGN, 1, 1), (0, FOREIGN, 2, 0), (0, CONTRAST, 2, 0),
        (1, FOREIGN, 1, 1), (1, CONTRAST, 1, 1), (1, FOREIGN, 2, 0),
    ]  # fmt: skip
    assert [one.messages for one in found.spoiled[:3]] == [
        messages("q1-0", "cc", "q1-1", "bb"),
        messages("q1-0", "aa", "q1-1", "dd"),
        messages("q1-0", "aa", "q1-1", "no"),
    ]


def test_a_contrast_answers_the_same_message_in_other_words() -> None:
    same = pair(1, "a", "b", rejected=("a ", "  b"))
    other_question = EvalPair("p2", "s", "", messages("q", "a", "r", "b"), messages("q", "x", "why?", "y"))
    found = spoil([same, other_question], 0)
    assert [(one.index, one.turn) for one in found.spoiled if one.kind == CONTRAST] == [(1, 1)]


def test_a_rejected_reply_after_the_sides_parted_is_no_contrast() -> None:
    """The user's messages are replayed, and the second reply, which nobody contrasted, is as good as any."""
    replayed = pair(1, "a", "b", "c", rejected=("a", "spoiled", "a good one in other words"))
    found = spoil([replayed], 0)
    assert [(one.turn, one.messages[3]["content"]) for one in found.spoiled if one.kind == CONTRAST] == [
        (2, "spoiled")
    ]


def test_the_foreign_reply_is_the_closest_in_length() -> None:
    others = [pair(number, "x" * length, "y") for number, length in enumerate((3, 11, 40), start=2)]
    found = spoil([pair(1, "z" * 10, "last"), *others], 0)
    first = next(one for one in found.spoiled if (one.index, one.turn) == (0, 1))
    assert first.messages[1]["content"] == "x" * 11


def test_a_foreign_reply_is_of_another_conversation_question_and_wording() -> None:
    good = EvalPair("a", "s", "", messages("one", "right", "next", "b"), messages("one", "x"))
    context = EvalPair("b", "s", "", messages("one", "cousin", "more", "c"), messages("one", "x"))
    question = EvalPair("c", "s", "", messages("two", "other", "next", "d"), messages("two", "x"))
    words = EvalPair("d", "s", "", messages("three", " right", "why", "e"), messages("three", "x"))
    found = spoil([good, context, question, words], 0)
    of_first = {one.turn: one.messages for one in found.spoiled if one.index == 0 and one.kind == FOREIGN}
    assert of_first[1][1]["content"] == "other"  # not the cousin of its own context, nor its own words
    assert of_first[2][3]["content"] == "e"  # "d" answers the very same message


def test_what_cannot_be_spoiled_is_counted() -> None:
    odd = EvalPair("o", "s", "", [*messages("a", "b", "c", "d"), messages("e")[0]], messages("a", "x"))
    found = spoil([pair(1, "a"), odd, pair(2, "a", "b", "c"), pair(2, "a", "b", "c"), pair(3, "u", "v")], 0)
    assert found.left_out == Counter(one_turn=1, not_alternating=1, repeated=1)
    assert found.good == [2, 4]
    assert found.no_foreign_reply == 1  # nobody else has a third turn


def test_no_more_than_the_most_are_spoiled_whatever_their_order() -> None:
    pairs = [pair(number, "a", f"b {number}") for number in range(9)]
    found, turned = spoil(pairs, 0, most=3), spoil(pairs[::-1], 0, most=3)
    assert found.left_out == turned.left_out == Counter(beyond_the_most=6)
    assert found.good == sorted(8 - index for index in turned.good) and len(found.good) == 3


@given(st.permutations(range(12)), st.integers(0, 3))
def test_the_order_of_the_pairs_changes_nothing(order: list[int], seed: int) -> None:
    generator = random.Random(1)
    made = [pair(n, *("w" * generator.randint(1, 9) + f" {n}" for _ in range(2 + n % 3))) for n in range(12)]

    def texts(pairs: list[EvalPair]) -> dict[tuple[str, int], str]:
        found = spoil(pairs, seed)
        return {(pairs[one.index].id, one.turn): json.dumps(one.messages) for one in found.spoiled}

    assert texts([made[at] for at in order]) == texts(made)


# -- what is computed ------------------------------------------------------------------------------


def scored(values: np.ndarray) -> Scored:
    """Scores with as many tokens as the column's number from 1."""
    tokens = np.tile(np.arange(1, values.shape[1] + 1), (len(values), 1))
    return Scored(values, tokens, ["" if np.isfinite(row).all() else "over_length" for row in values], "")


def curves(good: list[float], falls: list[tuple[float, float]]):
    """of_model of two-turn conversations with these scores; falls with a spoiled first and last reply."""
    spoiled = [Spoiled(at, FOREIGN, turn, 2, []) for at in range(len(good)) for turn in (1, 2)]
    after = np.array([[score - fall] for score, pair_ in zip(good, falls, strict=True) for fall in pair_])
    whole = scored(np.array([[score, 0.0] for score in good]))
    spoiling = Spoiling(good=list(range(len(good))), spoiled=spoiled)
    return of_model(spoiling, whole, scored(after), np.arange(len(good)), QUICK)


def test_falls_are_in_the_models_own_standard_deviations() -> None:
    found = curves([1.0, 3.0, 5.0], [(0.0, 4.0), (1.0, 4.0), (-1.0, 4.0)])
    assert (found["num_good"], found["good_mean"], found["good_std"]) == (3, 3.0, 2.0)
    last, earlier = found[FOREIGN]["last"], found[FOREIGN]["earlier"]
    assert (last["fall"], last["fall_std"], last["fall_std_low"], last["fell"]) == (4.0, 2.0, 2.0, 1.0)
    assert (earlier["fall"], earlier["fell"], earlier["same"], earlier["rose"]) == (0.0, 1 / 3, 1 / 3, 1 / 3)
    assert found[FOREIGN]["by_turn"]["1"] == earlier == found[FOREIGN]["by_distance"]["1"]
    assert found[FOREIGN]["by_turn"]["2"] == last == found[FOREIGN]["by_distance"]["0"]
    assert found[CONTRAST] is None
    assert last["verdict"] == found[FOREIGN]["verdict"] == "too_few"  # of 3 contexts


def test_a_model_that_reads_the_last_turn_only_falls_there_and_nowhere_before() -> None:
    generator = np.random.default_rng(0)
    good = generator.normal(size=40).tolist()
    blind = curves(good, [(1e-7 * generator.normal(), 1.0 + generator.normal()) for _ in good])
    assert blind[FOREIGN]["verdict"] == "last_turn_only"
    assert (blind[FOREIGN]["earlier"]["same"], blind[FOREIGN]["earlier"]["verdict"]) == (1.0, "no_fall_seen")
    seeing = curves(good, [(0.5, 1.0)] * 40)
    assert seeing[FOREIGN]["verdict"] == "earlier_turns_too"
    upside_down = curves(good, [(-0.5, 0.0)] * 40)
    assert upside_down[FOREIGN]["earlier"]["verdict"] == "rises"
    assert upside_down[FOREIGN]["verdict"] == "earlier_turns_reversed"


def test_a_constant_fall_within_rounding_is_none() -> None:
    found = curves(list(np.linspace(-1, 1, 20)), [(1e-6, 1.0)] * 20)
    assert found[FOREIGN]["earlier"]["verdict"] == "no_fall_seen"


def test_a_model_of_one_score_has_no_standard_deviation() -> None:
    found = curves([2.0] * 12, [(0.0, 1.0)] * 12)
    assert found["good_std"] is None
    assert found[FOREIGN]["last"]["fall"] == 1.0 and found[FOREIGN]["last"]["fall_std"] is None


def test_missing_scores_are_counted_and_in_no_mean() -> None:
    found = curves([1.0, 2.0, float("nan")], [(0.0, float("nan")), (0.0, 1.0), (0.0, 0.0)])
    last = found[FOREIGN]["last"]
    assert (last["num_spoiled"], last["unscored"], last["fall"]) == (1, 2, 1.0)
    assert found["num_good"] == 2 and found["unscored_reasons"] == {"over_length": 3}
    nothing = curves([float("nan")] * 2, [(0.0, 0.0)] * 2)[FOREIGN]["last"]
    assert (nothing["num_spoiled"], nothing["fall"], nothing["fell"], nothing["verdict"]) == (
        0, None, None, "too_few",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("last", "earlier", "said"),
    [
        ("falls", "falls", "earlier_turns_too"),
        ("falls", "no_fall_seen", "last_turn_only"),
        ("falls", "rises", "earlier_turns_reversed"),
        ("no_fall_seen", "rises", "earlier_turns_reversed"),
        ("too_few", "rises", "too_few"),
        ("no_fall_seen", "falls", "earlier_turns_only"),
        ("rises", "no_fall_seen", "neither"),
        ("falls", "too_few", "too_few"),
    ],
)
def test_verdicts(last: str, earlier: str, said: str) -> None:
    assert verdict(last, earlier) == said
    assert said in VERDICTS


# -- from the files to the table -------------------------------------------------------------------


@pytest.fixture
def readers(tools: Tools) -> Tools:
    """A scorer of two models: `all` adds up 1 for each reply that is right, `last` looks at the last one."""

    def score(model: str, data: str, out: str, words) -> RunDir:
        rows = []
        for number, row in enumerate(pq.read_table(data).to_pylist()):
            for column in ("messages",) if "messages" in row else ("chosen", "rejected"):
                turns = [row[column][at : at + 2] for at in range(0, len(row[column]), 2)]
                seen = turns if model.endswith("all") else turns[-1:]
                # A right reply names the question.
                right = sum(asked["content"] in reply["content"] for asked, reply in seen)
                context = int(row[column][0]["content"].split("-")[0][1:])
                rows.append({"id": row["id"], "row": number, "column": column, "score": right + context / 20,
                             "num_tokens": len(row[column]), "reason": ""})  # fmt: skip
        run = RunDir(tools_config(out))
        run.write_table(pa.Table.from_pylist(rows), "scores", "part-00000-of-00001.parquet")
        return run

    return replace(tools, score=score)


def tools_config(out: str):
    from music_ray.config.load import resolve_config

    return resolve_config({"name": Path(out).name, "runs_dir": str(Path(out).parent)})


def three_turns(number: int) -> dict:
    """A right reply names its question; the rejected side is wrong from turn 2 on, or at turn 3 alone."""
    asked = [f"q{number}-{turn}" for turn in range(3)]
    chosen = messages(*(text for one in asked for text in (one, f"about {one}")))
    rejected = [*chosen[:5], *messages("", "off")[1:]]
    if number % 2:
        rejected = [*chosen[:3], *messages("", "off", asked[2], "off")[1:]]
    return {"id": f"p{number}", "chosen": chosen, "rejected": rejected}


def test_two_models_from_files_to_the_table(tmp_path: Path, make_model, readers: Tools, capsys) -> None:
    models = [make_model("all", {}), make_model("last", {})]
    pairs = write_jsonl(tmp_path / "dev.jsonl", *(three_turns(number) for number in range(20)))
    words = ["evaluate.bootstrap_samples=100"]
    result = evaluate_models(models, [pairs], str(tmp_path / "out"), None, words, readers, sensitivity=True)
    written = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    found = written["pair_sets"][0]["sensitivity"]
    assert (found["num_conversations"], found["num_contexts"]) == (20, 20)
    assert found["num_spoiled"] == {FOREIGN: 60, CONTRAST: 20}
    every, last = (found["models"][name] for name in models)
    std = np.arange(20).std(ddof=1) / 20
    for kind in (FOREIGN, CONTRAST):
        assert (every[kind]["verdict"], last[kind]["verdict"]) == ("earlier_turns_too", "last_turn_only")
        assert every[kind]["earlier"]["fall"] == pytest.approx(1.0)
        assert every[kind]["last"]["fall_std"] == pytest.approx(1.0 / std)
        assert (last[kind]["earlier"]["fall"], last[kind]["earlier"]["fell"]) == (0.0, 0.0)
        assert last[kind]["by_distance"]["0"]["fell"] == 1.0
    assert set(every[FOREIGN]["by_turn"]) == {"1", "2", "3"}
    assert set(every[CONTRAST]["by_turn"]) == {"2", "3"}

    (rows,) = (tmp_path / "out" / "dev").glob("sensitivity-*last-*.parquet")
    assert pq.read_schema(rows).metadata[b"music_ray.model_name"] == models[1].encode()
    row = pq.read_table(rows).to_pylist()[0]
    assert row | {"context": 0} == {
        "id": "p0", "context": 0, "kind": "foreign", "turn": 1, "num_turns": 3, "good_score": 1.0,
        "spoiled_score": 1.0, "good_tokens": 6, "spoiled_tokens": 6, "reason": "",
    }  # fmt: skip

    print_evaluation(result)
    text = capsys.readouterr().out
    assert "one turn spoiled by another conversation's reply: fall of the score, in SD" in text
    assert "- A falls with a spoiled last reply, and with a spoiled earlier one" in text
    assert "- B falls with a spoiled last reply; no fall is seen with a spoiled earlier one" in text
    line = next(line for line in text.splitlines() if line.startswith("│ all earlier"))
    cells = [cell.strip() for cell in line.strip("│").split("│")]
    assert cells[1:4] == ["40", "+3.38 [+3.38, +3.38]", "100%"]
    assert cells[4:] == ["yes", "+0.00 [+0.00, +0.00]", "0%", "not seen"]


def test_a_set_without_longer_conversations_is_left_alone(tmp_path: Path, make_model, readers: Tools) -> None:
    short = write_jsonl(
        tmp_path / "short.jsonl",
        *({"id": n, "chosen": messages(f"q{n}", "a"), "rejected": messages(f"q{n}", "b")} for n in range(3)),
    )
    long = write_jsonl(tmp_path / "long.jsonl", *(three_turns(number) for number in range(2)))
    model, out = make_model("all", {}), str(tmp_path / "out")
    words = ["evaluate.bootstrap_samples=100"]
    with pytest.raises(
        InputError, match="--sensitivity spoils one turn of conversations of two turns or more"
    ):
        evaluate_models([model], [short], out, None, words, readers, sensitivity=True)
    result = evaluate_models([model], [short, long], out, None, words, readers, sensitivity=True)
    assert result["pair_sets"][0]["sensitivity"] is None
    assert result["pair_sets"][1]["sensitivity"]["models"][model][FOREIGN]["verdict"] == "too_few"


def test_without_the_option_nothing_is_spoiled(tmp_path: Path, make_model, readers: Tools) -> None:
    pairs = write_jsonl(tmp_path / "dev.jsonl", three_turns(1))
    words = ["evaluate.bootstrap_samples=100"]
    result = evaluate_models([make_model("all", {})], [pairs], str(tmp_path / "out"), None, words, readers)
    assert "sensitivity" not in result["pair_sets"][0]
    assert not (tmp_path / "out" / "dev-spoiled").exists()
