"""The bench of the contrast modes: its checker, its counts, and every row of its table on a script."""

import asyncio
import json

import pytest

from music_ray.bench.contrasts import BASE, Measured, config_of, measure, roll_all, settings, table
from music_ray.bench.questions import QUESTIONS, Question
from music_ray.config.load import resolve_config
from music_ray.engines.scripted import ScriptedEngine
from music_ray.generate.neighbours import NeighbourPool

ANSWERS = {
    question.text: question.answer.partition("|")[0].replace("(?:New )?", "") for question in QUESTIONS
}
JOINT = "<modified_instruction>Name a fish.</modified_instruction><reply>A salmon.</reply>"


def script(prompt, sampling, seed):
    """Knows every answer, and follows every contrast prompt."""
    if prompt.speaker == "user" or "You now play the USER" in (last := prompt.messages[-1]["content"]):
        return f"And number {seed}?"
    if last.startswith("[Instruction") or "You play a USER" in last:
        return f"Something about {seed}?"
    if "Write a reply that does not do" in last:
        return "A salmon."
    return JOINT if "<modified_instruction>" in last else f"It is {ANSWERS.get(last, 'not known')}."


def run(setting, questions, with_script=script):
    config = config_of(resolve_config(BASE), setting)
    return asyncio.run(roll_all(ScriptedEngine(with_script), config, questions))


# -- the checker -----------------------------------------------------------------------------------


def test_there_are_sixty_different_questions_and_none_holds_its_own_answer():
    assert len(QUESTIONS) == len({question.text for question in QUESTIONS}) == 60
    assert not [question.text for question in QUESTIONS if question.is_answered_by(question.text)]


@pytest.mark.parametrize(
    ("question", "reply", "is_answered"),
    [
        ("What is 5 plus 5?", "5 + 5 = 10.", True),
        ("What is 5 plus 5?", "That makes TEN", True),
        ("What is 5 plus 5?", "It is 100, or 55.", False),
        ("What is the capital of India?", "New Delhi is.", True),
        ("What is the capital of India?", "Mumbai.", False),
        ("How many hours are there in a day?", "There are twenty-four.", True),
        ("What colour is grass?", "Greenish", False),
        ("What is the first letter of the word queen?", "It is 'Q'.", True),
        ("What is a young dog called?", "Puppies are young dogs.", True),
    ],
)
def test_an_answer_is_a_whole_word_in_any_case(question, reply, is_answered):
    asked = next(one for one in QUESTIONS if one.text == question)
    assert asked.is_answered_by(reply) is is_answered


def test_the_pool_gives_no_question_a_neighbour_with_the_same_answer():
    pool = NeighbourPool([question.text for question in QUESTIONS], 0.8)
    same = []
    for question in QUESTIONS:
        for attempt in range(8):
            neighbour = pool.draw(question.text, {question.text}, 0, attempt)
            if question.is_answered_by(f"It is {ANSWERS[neighbour]}."):
                same.append((question.text, neighbour))
    assert same == []


# -- the table -------------------------------------------------------------------------------------


def test_every_mode_meets_every_kind_of_user():
    rows = settings()
    assert len(rows) == len(set(rows)) == 23
    assert len(settings(["neighbour"])) == 4


@pytest.mark.parametrize("setting", settings(), ids=lambda setting: setting.name)
def test_a_model_that_follows_every_prompt_hits_and_misses_everything(setting):
    questions = QUESTIONS[::6]
    rows = run(setting, questions)
    found = measure(questions, rows, seconds=1.0)
    assert (found.ok, found.reasons, found.known, found.missed) == (10, {}, 10, 10)
    # Of two turns: two replies and a user message; the same again, or with a call more a contrast.
    users = 1 if setting.history == "own" else 0
    contrasted = {"joint": 2, "direct": 2, "neighbour": 2, "two_step": 4, "resample": 4}[setting.mode]
    assert found.calls_a_pair == 3 + users + contrasted
    assert found.audit_auc is found.user_auc is None


def test_only_questions_that_the_model_knows_count():
    def ignorant(prompt, sampling, seed):
        return "No idea." if "France" in prompt.messages[-1]["content"] else script(prompt, sampling, seed)

    setting = settings(["direct"])[0]
    questions = [*QUESTIONS[:3], Question("What is 1 plus 1?", "salmon")]
    rows = run(setting, questions, ignorant)
    found = measure(questions, rows, seconds=1.0)
    assert (found.ok, found.known, found.missed) == (4, 2, 2)


def test_failed_rollouts_cost_tokens_and_are_counted_by_reason():
    def failing(prompt, sampling, seed):
        return "no tags" if "Spain" in prompt.messages[-1]["content"] else script(prompt, sampling, seed)

    setting = settings(["joint"])[0]
    questions = QUESTIONS[1:3]
    found = measure(questions, run(setting, questions, failing), seconds=1.0)
    assert (found.ok, found.reasons) == (1, {"contrast_unparsed": 1})
    assert found.calls_a_pair > 6  # a good one has 6: those of the failed one are on top


def test_enough_pairs_are_audited():
    setting = next(one for one in settings(["neighbour"]) if one.history == "replay_chosen")
    found = measure(QUESTIONS, run(setting, QUESTIONS), seconds=1.0)
    value, low, high = found.audit_auc
    assert 0.0 <= low <= value <= high <= 1.0
    own = next(one for one in settings(["neighbour"]) if one.history == "own")
    assert measure(QUESTIONS, run(own, QUESTIONS), seconds=1.0).user_auc is not None


def test_the_table_is_markdown_and_the_numbers_are_json():
    found = Measured(
        60, 58, {"contrast_unparsed": 2}, 40, 30, 7.25, 812.4, 140.6, (0.61, 0.5, 0.7), None, 3.0
    )
    none = Measured(60, 0, {"contrast_unparsed": 60}, 0, 0, None, None, None, None, None, 3.0)
    first, second = settings(["joint"])[0], settings(["joint"])[-1]
    lines = list(table({first: found, second: none}))
    assert lines[2] == (
        "| joint | template | own | 58/60 | contrast_unparsed 2 | 40/58 | 30/40 | 7.2 | 812 | 141 | "
        "0.61 [0.50, 0.70] | – |"
    )
    assert lines[3] == (
        "| joint + chosen reply | template | own | 0/60 | contrast_unparsed 60 | 0/0 | 0/0 | – | – | – | – "
        "| – |"
    )
    assert len({line.count("|") for line in lines}) == 1
    assert json.loads(json.dumps(found.audit_auc)) == [0.61, 0.5, 0.7]
