"""The section best_of_n: bounds, names, and judges that can't be."""

import pytest

from music_ray.config import BestOfNConfig
from music_ray.config.load import resolve_config
from music_ray.errors import ConfigError

JUDGE = {"engine": {"kind": "scripted", "model": "a judge"}}


def section(**values) -> BestOfNConfig:
    return resolve_config({"name": "t", "best_of_n": values}).best_of_n


def test_defaults_are_the_papers() -> None:
    assert (section().n, section().turns, section().selections) == ([2, 4, 8], 3, ["turn", "whole"])
    assert section().judge.engine is None and section().judge.sampling.temperature == 0.0


def test_numbers_come_in_order_and_once() -> None:
    assert section(n=[8, 2, 8]).n == [2, 8] and section(selection=["whole", "whole"]).selection == ["whole"]
    assert section(turns=1).selections == ["turn"]
    assert section(turns=1, selection=["whole"]).selections == ["whole"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"n": [0]}, r"best_of_n\.n: 0 is no number of candidates to pick from: name 2 to 64"),
        ({"n": [2, 1]}, r"1 is no number of candidates .*one alone is the random pick"),
        ({"n": [65]}, r"65 is no number of candidates"),
        ({"n": []}, r"best_of_n\.n"),
        ({"turns": 0}, r"best_of_n\.turns"),
        ({"num_prompts": 0}, r"best_of_n\.num_prompts"),
        ({"selection": ["best"]}, r"best_of_n\.selection"),
        ({"checker": "gsm9k"}, r"checker 'gsm9k' is neither gsm8k nor of the form module:function"),
        ({"scorer_dvice": "gpu"}, r"did you mean best_of_n\.scorer_device\?"),
        (
            {"second_judge": {"engine": {"kind": "scripted"}}},
            r"second_judge has an engine and best_of_n\.judge has",
        ),
        (
            {"judge": JUDGE, "second_judge": JUDGE},
            r"second_judge is best_of_n\.judge once more \(a judge, with the same sampling\), so that they "
            r"agree on everything: name another model in best_of_n\.second_judge\.engine, or leave it out",
        ),
        (
            {"judge": JUDGE, "second_judge": {"engine": {**JUDGE["engine"], "max_engines": 3}}},
            r"second_judge is best_of_n\.judge once more",
        ),
        (
            {"judge": {"engine": {"kind": "scripted", "max_model_len": 512}}},
            r"reply of 512 tokens does not fit best_of_n\.judge\.engine\.max_model_len \(512\)",
        ),
    ],
)
def test_what_can_not_be_is_refused(values, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        section(**values)


def test_a_judge_of_another_model_or_sampling_is_a_second_one() -> None:
    warmer = {**JUDGE, "sampling": {"temperature": 0.5}}
    for other in (warmer, {"engine": {**JUDGE["engine"], "model": "another"}}):
        assert section(judge=JUDGE, second_judge=other).second_judge.engine is not None
    section(judge=JUDGE), section()


def test_a_judge_that_sets_one_sampling_key_keeps_the_others() -> None:
    sampling = section(judge={"sampling": {"max_tokens": 9}}).judge.sampling
    assert (sampling.temperature, sampling.top_p, sampling.max_tokens) == (0.0, 1.0, 9)
