"""Best-of-N from prompts to win rates, with speakers and models that are a rule each, on real shards."""

import json
from pathlib import Path

import pytest

from music_ray import revisions
from music_ray.engines.base import RequestError
from music_ray.errors import ConfigError, InputError, RunFolderError, StageError
from music_ray.evaluate.best_of_n import run as best_of_n
from music_ray.evaluate.best_of_n.outcomes import reply_length
from music_ray.judge.rows import Verdicts
from music_ray.rundir import RunDir
from tests.evaluate.best_of_n.conftest import more_words
from tests.evaluate.best_of_n.rules import CountingUp, RuleScorer
from tests.evaluate.test_model_names import make_run_folder

SCRIPTED = {"engine": {"kind": "scripted", "model": "a judge"}}
WARM = {**SCRIPTED, "sampling": {"temperature": 0.7}}
PROMPTS = [{"id": f"p{number}", "prompt": f"Prompt {number}"} for number in range(5)]


def of(result, first, second, selection, n, judged_by="judge"):
    """One comparison of the results; models by the name of their folder."""
    names = {Path(one["name"]).name: one["digest"] for one in result["models"]}
    (found,) = [
        one
        for one in result["comparisons"]
        if (one["first"], one["second"]) == (names.get(first, first), names.get(second, second))
        and (one["selection"], one["n"], one["judged_by"]) == (selection, n, judged_by)
    ]
    return found


def rows_of(tmp_path: Path, folder: str, out: str = "out"):
    from music_ray.config.load import resolve_config

    run = RunDir(resolve_config({"name": out, "runs_dir": str(tmp_path)}))
    return list(run.read_rows(folder))


def test_the_longest_against_the_shortest(go, judge, here, write_prompts, tmp_path) -> None:
    asked = judge(more_words)
    result = go(write_prompts(*PROMPTS), judge=SCRIPTED)
    found = of(result, "longest", "shortest", "turn", 8)
    assert (found["num_prompts"], found["first_wins"], found["same"], found["tie"]) == (5, 5, 0, 0)
    assert (found["win_rate"], found["win_rate_differing"]) == (1.0, 1.0)
    # Two replies of 8 words of 5 characters less a space each, against two of one word.
    assert found["mean_length_difference"] == 2 * (8 * 5 - 1) - 2 * 4
    # The shortest of any N is the first, which is the random pick.
    equal = of(result, "shortest", "random", "whole", 4)
    assert (equal["same"], equal["win_rate"], equal["win_rate_differing"]) == (5, 0.5, None)
    assert of(result, "longest", "random", "turn", 2)["first_wins"] == 5
    assert result["rows"]["ok"] == 5 and result["rows"]["errors"] == {}
    # By turn and by whole, the longest picks the same; and what it is compared with is the same as well: one
    # question a prompt and N, in two orders.
    assert len(asked) == 5 * 3 * 2
    assert result["unscored"] == []
    assert result["judges"]["judge"] | {"tokens": 0} == {
        "kind": "scripted", "model": "a judge", "num_questions": 15,
        "verdicts": {"A": result["judges"]["judge"]["verdicts"]["A"],
                     "B": result["judges"]["judge"]["verdicts"]["B"], "tie": 0, "invalid": 0, "error": 0},
        "first_position_wins": 0.5, "agreement_in_both_orders": 1.0, "num_repeated": 0,
        "agreement_on_repetition": None, "why_not_repeated": "best_of_n.repeat is 0", "tokens": 0,
    }  # fmt: skip
    slopes = {
        (one["selection"], one["first"][-7:], one["second"][-6:]): one["slope"] for one in result["trends"]
    }
    assert set(slopes.values()) == {0.0} and len(slopes) == 6
    written = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {**written, "file": result["file"]} == json.loads(json.dumps(result))
    assert here.jobs == [("best", 5), ("judge", 15)]


def test_what_a_row_holds(go, write_prompts, tmp_path) -> None:
    go(write_prompts({"id": "p", "prompt": "Hello", "source": "s", "answer": "7"}), n=[2], turns=3)
    (row,) = rows_of(tmp_path, "conversations")
    assert (row["prompt_id"], row["source"], row["answer"], row["status"]) == ("p", "s", "7", "ok")
    picks = {(one["picker"], one["selection"], one["n"]): one for one in row["picks"]}
    assert sorted(picks) == [
        ("digest of longest", "turn", 2),
        ("digest of longest", "whole", 2),
        ("digest of shortest", "turn", 2),
        ("digest of shortest", "whole", 2),
        ("random", "turn", 1),
    ]
    longest = picks["digest of longest", "turn", 2]
    assert (longest["candidates"], longest["scores"], longest["checked"]) == ([1, 1, 1], [2.0] * 3, None)
    assert [one["content"] for one in longest["conversation"]] == [
        "Hello", "word word", "2 so far?", "word word", "4 so far?", "word word",
    ]  # fmt: skip
    assert reply_length(longest["conversation"]) == 27
    # Two branches, each with a reply and a question that the other does not have; two replies in common.
    assert (row["num_replies"], row["num_questions"]) == (
        CountingUp.said["reply"],
        CountingUp.said["question"],
    )
    assert row["num_replies"] == 2 + 4 + 4 and row["num_questions"] == 4
    assert row["prompt_tokens"] == 14 * 10 and row["cached_tokens"] == 14 * 4
    assert (row["model"], row["user_model"], row["run_epoch"]) == ("counting", "counting", 1)


def test_the_same_command_asks_nobody_anything_again(go, judge, here, write_prompts) -> None:
    asked = judge(more_words)
    path = write_prompts(*PROMPTS)
    first = go(path, judge=WARM, repeat=4)
    said, scored, calls = CountingUp.said.copy(), RuleScorer.asked.copy(), len(asked)
    assert calls == 2 * (15 + 4) and first["judges"]["judge"]["agreement_on_repetition"] == 1.0
    assert go(path, judge=WARM, repeat=4) == first
    assert (CountingUp.said, RuleScorer.asked, len(asked)) == (said, scored, calls)
    more = go(write_prompts(*PROMPTS, {"id": "new", "prompt": "Another"}), judge=WARM, repeat=4)
    assert here.jobs[2:] == [("best", 1), ("judge", here.jobs[-1][1])] and here.jobs[-1][1] >= 3
    assert of(more, "longest", "shortest", "turn", 2)["num_prompts"] == 6
    fewer = go(path, judge=WARM, repeat=0, num_prompts=2)
    assert of(fewer, "longest", "shortest", "turn", 2)["num_prompts"] == 2
    spent = [one["judges"]["judge"]["tokens"]["prompt"] for one in (first, more, fewer)]
    assert spent[2] < spent[0] < spent[1], "of the questions of this command, not of the folder"


def test_a_greedy_judge_is_asked_nothing_twice_and_it_is_said_why(go, judge, here, write_prompts) -> None:
    """Its second answer would be the first one: agreement of 1, whatever the judge is worth."""
    asked = judge(more_words)
    found = go(write_prompts(*PROMPTS), judge=SCRIPTED, repeat=4)["judges"]["judge"]
    assert (found["num_repeated"], found["agreement_on_repetition"]) == (0, None)
    assert found["why_not_repeated"] == (
        "best_of_n.judge.sampling.temperature is 0, at which a second answer is the first one again: set it "
        "above 0"
    )
    assert len(asked) == 2 * 15
    warm = go(write_prompts(*PROMPTS), judge=WARM, repeat=4)["judges"]["judge"]
    assert (warm["num_repeated"], warm["agreement_on_repetition"], warm["why_not_repeated"]) == (4, 1.0, "")


def test_an_interrupted_job_goes_on(go, judge, here, write_prompts, tmp_path) -> None:
    judge(more_words)
    path = write_prompts(*PROMPTS)
    here.only = 2
    with pytest.raises(KeyboardInterrupt):
        go(path, judge=SCRIPTED)
    assert len(rows_of(tmp_path, "conversations/shards")) == 2
    result = go(path, judge=SCRIPTED)
    ids = [row["id"] for row in rows_of(tmp_path, "conversations")]
    assert len(ids) == len(set(ids)) == 5 and [name for name, _ in here.jobs] == ["best", "best", "judge"]
    assert [number for _, number in here.jobs] == [5, 3, 15]
    # A folder of another command has the same conversations, word for word.
    other = go(path, judge=SCRIPTED, out="other")
    assert {**result, "file": ""} == {**other, "file": ""}


def test_two_judges_and_their_agreement(go, judge, write_prompts) -> None:
    def only_large(a, b):
        return more_words(a, b) if max(a.count("word"), b.count("word")) > 4 else "<verdict>tie</verdict>"

    asked = judge(more_words, another=only_large)
    second = {"engine": {"kind": "scripted", "model": "another"}}
    result = go(write_prompts(*PROMPTS), judge=SCRIPTED, second_judge=second, n=[2, 4], selection=["turn"])
    assert len(asked) == 2 * 2 * 5 * 2, "two judges, two orders, two N"
    # N = 2 gives 4 words against 2, N = 4 gives 8.
    assert [of(result, "longest", "shortest", "turn", n, "second_judge")["tie"] for n in (2, 4)] == [5, 0]
    assert [of(result, "longest", "shortest", "turn", n)["first_wins"] for n in (2, 4)] == [5, 5]
    assert result["judges_agree"] == {"num_questions": 10, "share": 0.5, "share_of_winners": 1.0}
    slopes = {(one["judged_by"], one["second"]): one["slope"] for one in result["trends"]}
    assert (
        slopes["second_judge", "digest of shortest"] == 0.5 and slopes["judge", "digest of shortest"] == 0.0
    )


def test_unknown_replies_are_invalid_counted_and_not_averaged(go, judge, write_prompts) -> None:
    judge(lambda a, b: more_words(a, b) if a.count("word") > 6 or b.count("word") > 6 else "I like A.")
    result = go(write_prompts(*PROMPTS), judge=SCRIPTED, n=[2, 4], selection=["turn"])
    small, large = (of(result, "longest", "shortest", "turn", n) for n in (2, 4))
    assert (small["invalid"], small["win_rate"], small["win_rate_differing"]) == (5, None, None)
    assert (large["invalid"], large["win_rate"]) == (0, 1.0)
    assert result["judges"]["judge"]["verdicts"]["invalid"] == 5
    assert next(one["slope"] for one in result["trends"]) is None


def test_a_judge_that_is_down_midway_leaves_rows_with_reasons_and_resumes(go, judge, write_prompts) -> None:
    calls = []

    def down_after_six(a, b):
        calls.append(a)
        if len(calls) > 6:
            raise RequestError("connection refused", "endpoint_unavailable")
        return more_words(a, b)

    path = write_prompts(*PROMPTS)
    judge(down_after_six)
    result = go(path, judge=SCRIPTED, n=[2], selection=["turn"])
    found = of(result, "longest", "shortest", "turn", 2)
    assert found["first_wins"] + found["unanswered"] == 5 and 0 < found["unanswered"] < 5
    assert found["win_rate"] == 1.0 and result["judges"]["judge"]["verdicts"]["error"] == found["unanswered"]
    asked = judge(more_words)
    assert go(path, judge=SCRIPTED, n=[2], selection=["turn"]) == result and asked == []
    again = go(path, judge=SCRIPTED, n=[2], selection=["turn"], generate={"retry_errors": True})
    assert len(asked) == 2 * found["unanswered"]
    assert of(again, "longest", "shortest", "turn", 2)["first_wins"] == 5


def test_a_judge_that_fails_too_often_ends_the_command_and_keeps_its_rows(
    go, judge, write_prompts, tmp_path
) -> None:
    def down(a, b):
        raise RequestError("connection refused", "endpoint_unavailable")

    judge(down)
    with pytest.raises(StageError, match=r"5 of 5 rows failed \(endpoint_unavailable 5\)"):
        go(write_prompts(*PROMPTS), judge=SCRIPTED, n=[2], selection=["turn"],
           generate={"error_rate_after": 5})  # fmt: skip
    rows = rows_of(tmp_path, "judge/")
    assert {row["reason"] for row in rows if "outcome" in row} == {"endpoint_unavailable"}


def test_a_judge_that_answers_nothing_gives_no_win_rate(go, judge, write_prompts) -> None:
    def down(a, b):
        raise RequestError("connection refused", "endpoint_unavailable")

    path = write_prompts(*PROMPTS)
    judge(down)
    for _ in range(2):  # the second time nobody is asked, and the answer is the same
        with pytest.raises(
            StageError,
            match=r"best_of_n\.judge answered none of the 5 questions \(endpoint_unavailable 5\): see the "
            r"`detail` column in .*/shards, mend the cause, and run the same command with generate\.retry_er",
        ):
            go(path, judge=SCRIPTED, n=[2], selection=["turn"])
    judge(more_words)
    again = go(path, judge=SCRIPTED, n=[2], selection=["turn"], generate={"retry_errors": True})
    assert of(again, "longest", "shortest", "turn", 2)["first_wins"] == 5


def test_prompts_without_replies_are_rows_with_reasons(go, judge, here, write_prompts) -> None:
    judge(more_words)
    rows = [*PROMPTS[:2], {"id": "bad", "prompt": "fail rate_limited"}]
    result = go(write_prompts(*rows), judge=SCRIPTED)
    assert result["rows"]["ok"] == 2 and result["rows"]["errors"] == {"rate_limited": 1}
    assert of(result, "longest", "shortest", "turn", 2)["num_prompts"] == 2
    go(write_prompts(*rows), judge=SCRIPTED)
    assert here.jobs == [("best", 3), ("judge", 6)]
    go(write_prompts(*rows), judge=SCRIPTED, generate={"retry_errors": True})
    assert here.jobs[2:] == [("best", 1)]
    with pytest.raises(StageError, match=r"all 1 prompts failed \(context_full 1\)"):
        go(write_prompts({"id": "x", "prompt": "fail context_full"}), out="bad")


def test_a_model_that_can_not_read_any_candidate_makes_an_error_row(go, write_prompts, make_model) -> None:
    models = (make_model("longest", too_long=2), make_model("shortest"))
    result = go(write_prompts(*PROMPTS), models=models, n=[2])
    assert of(result, "longest", "shortest", "turn", 2, "nobody")["same"] == 5, "it picks what it can read"
    one = {"picker": "digest of longest", "n": 2}
    assert result["unscored"] == [
        {**one, "selection": "turn", "num_candidates": 5 * 2 * 2, "num_unscored": 5 * 2},
        {**one, "selection": "whole", "num_candidates": 5 * 2, "num_unscored": 5},
    ]
    unread = (make_model("longest", too_long=1), models[1])
    with pytest.raises(StageError, match=r"all 5 prompts failed \(over_length 5\)"):
        go(write_prompts(*PROMPTS), models=unread, n=[2], out="none")


def ends_on_eight(messages, answer):
    """A checker: was the last reply of eight words?"""
    return None if answer is None else float(len(messages[-1]["content"].split()) == 8)


def test_a_checker_stands_in_for_the_judge_and_makes_an_oracle(go, write_prompts) -> None:
    rows = [*PROMPTS[:3], {"id": "q", "prompt": "With an answer", "answer": "yes"}]
    result = go(write_prompts(*rows), checker=f"{__name__}:ends_on_eight", turns=1)
    assert result["judges"] == {} and {one["judged_by"] for one in result["comparisons"]} == {"checker"}
    found = of(result, "longest", "shortest", "turn", 8, "checker")
    assert (found["first_wins"], found["unanswered"], found["num_prompts"]) == (1, 3, 4)
    assert of(result, "longest", "shortest", "turn", 4, "checker")["tie"] == 1
    checked = {(one["picker"], one["n"]): (one["num_prompts"], one["mean"]) for one in result["checked"]}
    assert checked == {
        ("random", 1): (1, 0.0),
        **{("digest of longest", n): (1, float(n == 8)) for n in (2, 4, 8)},
        **{("digest of shortest", n): (1, 0.0) for n in (2, 4, 8)},
        **{("oracle", n): (1, float(n == 8)) for n in (2, 4, 8)},
    }
    assert {one["selection"] for one in result["comparisons"]} == {"turn"}, "of one turn there is one way"


def test_what_readers_must_know_is_a_warning(go, judge, write_prompts, capsys) -> None:
    judge(more_words)
    path = write_prompts({"id": "a", "prompt": "x"}, {"id": "a", "prompt": "y"}, {"prompt": "z"})
    result = go(path, judge={"engine": {"kind": "scripted", "model": "Speaker"}}, checker="gsm8k")
    same, gsm8k = result["warnings"]
    assert same == (
        "best_of_n.judge is Speaker, and so is the user simulator and the assistant: a model tends to like "
        "its own words; have another one judge"
    )
    assert gsm8k.startswith("best_of_n.checker=gsm8k looks at the final reply, which after 2 turns")
    said = capsys.readouterr()
    for line in (
        f"warning: {same}",
        "rows set aside: duplicate_id 1",
        "1 prompts have no id and are named by",
    ):
        assert line in said.out + said.err
    (nobody,) = go(path, out="other")["warnings"]
    assert nobody.startswith("neither best_of_n.judge.engine nor best_of_n.checker is set")
    user = {"engine": {"kind": "scripted", "model": "a judge"}}
    (simulator,) = go(path, judge=SCRIPTED, user=user, out="third")["warnings"]
    assert simulator.startswith("best_of_n.judge is a judge, and so is the user simulator: ")


def test_a_folder_from_before_a_key_was_known_is_gone_on_with(go, write_prompts, tmp_path) -> None:
    path = write_prompts(*PROMPTS)
    go(path)
    file = tmp_path / "out" / "best_of_n.json"
    record = json.loads(file.read_text())
    assert record["made_from"].pop("assistant.sampling.begin") == ""
    file.write_text(json.dumps(record))
    go(path)
    with pytest.raises(RunFolderError, match=r'made with assistant.sampling.begin="", now it is "Well": set'):
        go(path, assistant={"sampling": {"begin": "Well"}})


def test_a_folder_of_something_else_is_refused(go, write_prompts, tmp_path) -> None:
    path = write_prompts(*PROMPTS)
    go(path)
    with pytest.raises(
        RunFolderError, match=r"out was made with best_of_n.turns=2, now it is 3: set the old"
    ):
        go(path, turns=3)
    with pytest.raises(RunFolderError, match=r'models=\["digest of longest", "digest of shortest"\], now'):
        go(path, models=("longest",))
    with pytest.raises(RunFolderError, match=r"seed=0, now it is 4"):
        go(path, seed=4)
    shown = go(path, models=("shortest", "longest"))
    assert [one["digest"] for one in shown["models"]] == ["digest of shortest", "digest of longest"]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("name: run\n")
    with pytest.raises(
        RunFolderError, match=r"run holds config.yaml and no best_of_n.json: name a new folder"
    ):
        go(path, out="run")


def test_scores_of_another_number_format_are_not_mixed(go, write_prompts, capsys) -> None:
    """auto is float32 on the CPU, and the models' own bfloat16 on a GPU."""
    path = write_prompts(*PROMPTS)
    go(path)
    with pytest.raises(RunFolderError) as caught:
        go(path, scorer_device="gpu")
    assert str(caught.value).endswith(
        'out was made with best_of_n.scorer_dtype.digest of longest="float32", now it is "bfloat16": set the '
        "old value again (auto follows best_of_n.scorer_device), or name a new folder with --out"
    )
    with pytest.raises(RunFolderError, match=r"scorer_max_len.digest of longest=2048, now it is 99"):
        go(path, scorer_max_len=99)
    go(path, scorer_device="gpu", scorer_dtype="float32", scorer_max_len=2048)  # the same, however it is said


def test_a_refused_folder_gets_no_untrained_model(go, write_prompts, tmp_path) -> None:
    base = make_run_folder(tmp_path)
    before = sorted(path.name for path in Path(base).iterdir())
    with pytest.raises(RunFolderError, match=r"run holds config.yaml and no best_of_n.json"):
        go(write_prompts(*PROMPTS), models=[f"untrained:{base}"], out="run")
    assert sorted(path.name for path in Path(base).iterdir()) == before
    go(write_prompts(*PROMPTS))
    with pytest.raises(RunFolderError, match=r"seed=0, now it is 4"):
        go(write_prompts(*PROMPTS), models=[f"untrained:{base}"], seed=4)
    assert not (tmp_path / "out" / "models").exists()


def test_the_simulators_tokenizer_is_that_of_the_commit_that_the_folder_goes_by(
    go, here, write_prompts, monkeypatch
) -> None:
    at_commit = {}

    def with_tokenizer_commit(run, engine):
        at_commit[run.display()] = engine.tokenizer
        return engine.model_copy(update={"revision": "c0ffee"})

    monkeypatch.setattr(revisions, "with_tokenizer_commit", with_tokenizer_commit)
    monkeypatch.setattr(best_of_n, "_check_engines", lambda config: None)
    place = {"base_url": "http://127.0.0.1:1/v1", "tokenizer": "open/tokenizer"}
    user = {"mode": "template", "engine": {"kind": "endpoint", "model": "m", "endpoint": place}}
    go(write_prompts(*PROMPTS), user=user)
    (config,) = here.configs
    assert config.user.engine.revision == "c0ffee" and list(at_commit.values()) == ["open/tokenizer"]
    assert next(iter(at_commit)).endswith("/out")
    go(write_prompts(*PROMPTS), user=user)  # what it was made from is what the user wrote


def test_a_checker_that_was_changed_is_another_one(go, write_prompts, tmp_path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "bon_checks.py").write_text("def check(messages, answer):\n    return 1\n")
    path = write_prompts(*PROMPTS)
    go(path, checker="bon_checks:check")
    go(path, checker="bon_checks:check")
    (tmp_path / "bon_checks.py").write_text("def check(messages, answer):\n    return 0\n")
    with pytest.raises(RunFolderError, match=r"out was made with checker_hash="):
        go(path, checker="bon_checks:check")


def test_mistakes_are_found_before_anything_starts(go, here, write_prompts, make_model, tmp_path) -> None:
    path = write_prompts(*PROMPTS)
    for models, message in (
        ((), "best-of-n needs a reward model: name one or more with --model"),
        (("longest", "longest"), r"--model .*longest and --model .*longest hold the same model"),
    ):
        with pytest.raises(ConfigError, match=message):
            go(path, models=models)
    with pytest.raises(InputError, match="is no reward model"):
        go(path, models=(str(tmp_path), "longest"))
    with pytest.raises(InputError, match=r"nowhere:check can't be imported"):
        go(path, checker="nowhere:check")
    with pytest.raises(InputError, match="holds no prompts: it has no rows"):
        go(write_prompts(name="empty.jsonl"))
    with pytest.raises(ConfigError, match=r"0 is no number of candidates to pick from: name 2 to 64"):
        go(path, n=[0, 2])
    assert here.jobs == []


def test_verdicts_are_those_of_a_judge_like_any_other(go, judge, write_prompts, tmp_path) -> None:
    judge(more_words)
    go(write_prompts(*PROMPTS), judge=SCRIPTED, n=[2])
    from music_ray.config import EngineConfig, JudgeConfig
    from music_ray.config.load import resolve_config
    from music_ray.judge.rows import verdict_folder

    run = RunDir(resolve_config({"name": "out", "runs_dir": str(tmp_path)}))
    folder = verdict_folder(EngineConfig(kind="scripted", model="a judge"), JudgeConfig().sampling)
    assert len(Verdicts(run, folder).ids) == 5
