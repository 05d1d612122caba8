"""Variables by name: values are read here and never shown."""

import pytest

from music_ray.errors import ConfigError
from music_ray.submit.environment import hidden, job_environment
from music_ray.submit.request import Request


def test_values_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONE_TOKEN", "hf_a value")
    assert job_environment(["ONE_TOKEN", "ONE_TOKEN"]) == {"ONE_TOKEN": "hf_a value"}
    assert job_environment([]) == {}


@pytest.mark.parametrize(("value", "what"), [(None, "not set"), ("", "empty")])
def test_a_variable_that_is_not_there_is_refused(monkeypatch, value, what) -> None:
    monkeypatch.delenv("ONE_TOKEN", raising=False)
    if value is not None:
        monkeypatch.setenv("ONE_TOKEN", value)
    with pytest.raises(ConfigError) as caught:
        job_environment(["ONE_TOKEN"])
    assert str(caught.value) == (
        f"--env ONE_TOKEN: ONE_TOKEN is {what} here: export it first, or leave --env out if the cluster's "
        "nodes have it themselves"
    )


@pytest.mark.parametrize(("word", "shown"), [("A=s3cret", "A=…"), ("1A", "1A"), ("", ""), ("A B", "A B")])
def test_a_value_on_the_command_line_is_refused_and_not_repeated(word, shown) -> None:
    with pytest.raises(ConfigError) as caught:
        job_environment([word])
    assert str(caught.value) == (
        f"--env {shown} is no name of a variable: give its name alone (--env HF_TOKEN); the value is read "
        "from the environment"
    )
    assert "s3cret" not in str(caught.value)


def test_values_are_hidden_in_what_is_shown() -> None:
    environment = {"SHORT": "1", "TOKEN": "abcdefgh", "LONGER": "abcdefghij"}
    assert hidden("1 abcdefghij, abcdefgh.", environment) == "1 <LONGER>, <TOKEN>."


def test_each_line_of_a_value_is_hidden_since_a_log_comes_line_by_line() -> None:
    environment = {"KEY": "-----BEGIN-----\n  MIIEvQIBADAN\r\nkqhkiG9w0BAQ\nshort\n"}
    assert hidden("sent -----BEGIN-----", environment) == "sent <KEY>"
    assert hidden("MIIEvQIBADAN", environment) == "<KEY>"
    assert hidden(r"'MIIEvQIBADAN\nkqhkiG9w0BAQ\nshort'", environment) == r"'<KEY>\n<KEY>\nshort'"
    assert hidden(environment["KEY"], environment) == "<KEY>"


def test_values_of_less_than_8_characters_are_words_of_any_log() -> None:
    assert hidden("seven77 INFO", {"A": "seven77", "NCCL_DEBUG": "INFO"}) == "seven77 INFO"
    assert hidden("eight888", {"A": "eight888"}) == "<A>"


def test_a_request_does_not_show_them_either() -> None:
    request = Request("a", "s3://b/a", ("python",), {"TOKEN": "abcdefgh"})
    assert "abcdefgh" not in repr(request)
