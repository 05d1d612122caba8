"""The tables in the terminal."""

from music_ray.evaluate.best_of_n.show import print_best_of_n
from tests.evaluate.best_of_n.conftest import more_words
from tests.evaluate.best_of_n.test_run import PROMPTS, SCRIPTED


def test_the_tables_say_what_was_found(go, judge, write_prompts, capsys) -> None:
    judge(more_words)
    rows = [*PROMPTS, {"id": "bad", "prompt": "fail rate_limited"}, {"id": "p1", "prompt": "again"}]
    result = go(write_prompts(*rows), judge=SCRIPTED, checker="gsm8k", repeat=2)
    capsys.readouterr()
    print_best_of_n(result)
    text = capsys.readouterr().out
    lines = [" ".join(line.replace("│", " ").split()) for line in text.splitlines()]
    assert f"A = {result['models'][0]['name']}" in lines
    assert "5 prompts, 2 turns, 95% intervals over prompts" in lines
    at = lines.index("A against B, judged by judge")
    assert "turn 8 5 : 0 0 0 0 0 1.000 [1.000, 1.000] 1.000 [1.000, 1.000] –" in lines[at : at + 8]
    at = lines.index("B against random, judged by judge")
    assert "whole 2 0 : 0 5 0 0 0 0.500 [0.500, 0.500] – –" in lines[at:]
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
