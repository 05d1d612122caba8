"""The tables in the terminal."""

from music_ray.evaluate.best_of_n.show import print_best_of_n
from tests.evaluate.best_of_n.conftest import more_words
from tests.evaluate.best_of_n.test_run import PROMPTS, SCRIPTED, WARM


def test_the_tables_say_what_was_found(go, judge, write_prompts, capsys) -> None:
    judge(more_words)
    rows = [*PROMPTS, {"id": "bad", "prompt": "fail rate_limited"}, {"id": "p1", "prompt": "again"}]
    result = go(write_prompts(*rows), judge=WARM, checker="gsm8k", repeat=2)
    capsys.readouterr()
    print_best_of_n(result)
    text = capsys.readouterr().out
    lines = [" ".join(line.replace("│", " ").split()) for line in text.splitlines()]
    assert f"A = {result['models'][0]['name']}" in lines
    assert "5 prompts, 2 turns, 95% intervals over prompts" in lines
    at = lines.index("A against B, judged by judge")
    assert "turn 8 5 : 0 0 0 0 0 5 1.000 [1.000, 1.000] 1.000 [1.000, 1.000] –" in lines[at : at + 8]
    at = lines.index("B against random, judged by judge")
    assert "whole 2 0 : 0 5 0 0 0 5 0.500 [0.500, 0.500] – –" in lines[at:]
    assert "A against random, judged by checker" in lines
    assert any(one.startswith("random – – 0 –") for one in lines), "the checker has no answers to look at"
    assert "- 1 prompts have no picks (rate_limited) and are in no number" in lines
    assert "- 1 rows of the prompts were set aside: duplicate_id" in lines
    judged = next(one for one in lines if one.startswith("- judge (a judge)"))
    assert judged == (
        "- judge (a judge): 15 pairs asked about in both orders; the first place wins 0.50 of its winners "
        "(0.5 without bias), both orders agree on 1.00, asked again it says the same of 1.00 of 2"
    )
    assert "each doubling of N changes the win rate by +0.000 [+0.000, +0.000]" in text


def test_what_was_not_asked_and_what_could_not_be_picked_is_said(
    go, judge, write_prompts, make_model, capsys
) -> None:
    judge(more_words)
    models = (make_model("longest", too_long=2), make_model("shortest"))
    result = go(write_prompts(*PROMPTS), models=models, n=[4], judge=SCRIPTED, repeat=2, against_random=False)
    capsys.readouterr()
    print_best_of_n(result)
    lines = capsys.readouterr().out.splitlines()
    assert "- A by turn from 4 could not pick 30 of 40 candidates, which have no score" in lines
    assert "- A by whole from 4 could not pick 15 of 20 candidates, which have no score" in lines
    judged = next(one for one in lines if one.startswith("- judge (a judge)"))
    assert judged.endswith(
        "and whether it would say the same again is not known: best_of_n.judge.sampling.temperature is 0, at "
        "which a second answer is the first one again: set it above 0"
    )
