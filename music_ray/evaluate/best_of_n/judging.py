"""Has judges compare what was picked: which judges there are, what each must still answer, and its answers.

The job that asks is that of every judge (music_ray.judge.job); who picked what is not told to it.
"""

from __future__ import annotations

from functools import partial

from music_ray.config import RunConfig, SamplingConfig
from music_ray.errors import StageError
from music_ray.evaluate.best_of_n.conversations import picked_rows
from music_ray.evaluate.best_of_n.prompts import Prompts
from music_ray.evaluate.best_of_n.questions import comparisons, pending, questions_of, repeated
from music_ray.evaluate.best_of_n.summary import Judged
from music_ray.judge.job import answer_pending, ask_judge, judge_config
from music_ray.judge.rows import Verdicts, verdict_folder
from music_ray.revisions import with_commit
from music_ray.rundir import RunDir


def judges_of(config: RunConfig) -> dict[str, RunConfig]:
    """The configurations of the judges' pools, by the name of the section; of those that have an engine."""
    section = config.best_of_n
    named = {"judge": section.judge, "second_judge": section.second_judge}
    return {
        name: judge_config(config, judge.engine, judge.sampling)
        for name, judge in named.items()
        if judge.engine is not None
    }


def judge_picks(run: RunDir, prompts: Prompts, models: list[str]) -> dict[str, Judged]:
    """Has each judge answer what it has not answered yet.

    Args:
        models: digests, in the order of the command.

    Returns:
        the judges' answers, by the name of the judge's section.

    Raises:
        InputError: a judge's model or endpoint can't be used.
        StageError: too many questions without an answer; those that are answered stay.
    """
    section, retry = run.config.best_of_n, run.config.generate.retry_errors
    judges = judges_of(run.config)
    if not judges:
        return {}
    asked = comparisons(section, models)
    ids = sorted({one.id for row in picked_rows(run, prompts) for one in questions_of(row, asked)})
    found = {}
    for name, config in judges.items():
        why_once = why_asked_once(name, config.assistant.sampling, section.repeat)
        twice = [] if why_once else repeated(ids, section.repeat)
        # The folder goes by what the user wrote, not by the commit that it means now.
        shards = verdict_folder(config.engine, config.assistant.sampling)
        questions = pending(
            picked_rows(run, prompts), asked, twice, Verdicts(run, shards), retry_errors=retry
        )
        answer_pending(run, shards, questions, partial(_ask, name, config))
        engine = {"kind": config.engine.kind, "model": config.engine.model}
        verdicts = Verdicts(run, shards)
        _check_answers(run, name, verdicts, ids)
        found[name] = Judged(verdicts, ids, twice, engine, why_once)
    return found


def _check_answers(run: RunDir, name: str, verdicts: Verdicts, ids: list[int]) -> None:
    """Refuses a judge that has answered nothing: equal picks alone would make every win rate a half."""
    if ids and all(verdicts.of(one) == "error" for one in ids):
        reasons = ", ".join(f"{reason} {count}" for reason, count in verdicts.reasons.most_common())
        raise StageError(
            f"best_of_n.{name} answered none of the {len(ids)} questions ({reasons}): see the `detail` "
            f"column in {run.display(*verdicts.folder)}, mend the cause, and run the same command with "
            "generate.retry_errors=true"
        )


def why_asked_once(name: str, sampling: SamplingConfig, repeat: int) -> str:
    """Why no question is asked this judge twice; empty where some are.

    A greedy answer is the same for every seed, so its repetition would cost tokens and say nothing. It is not
    drawn warmer instead: that would be the repetition of another judge than the one whose verdicts count.
    """
    if not repeat:
        return "best_of_n.repeat is 0"
    if not sampling.temperature:
        return (
            f"best_of_n.{name}.sampling.temperature is 0, at which a second answer is the first one again: "
            "set it above 0"
        )
    return ""


def _ask(
    name: str,
    config: RunConfig,
    run: RunDir,
    shards: tuple[str, ...],
    questions: tuple[str, ...],
    total: int,
) -> None:
    pool = config.model_copy(update={"engine": with_commit(run, config.engine)})
    key = f"best_of_n.{name}.engine"
    ask_judge(run, pool, shards, questions, total, key=key, command="best-of-n")
