"""Gates of the user's own: how they are found, counted, and blamed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from music_ray.config import GatesConfig
from music_ray.errors import InputError, StageError
from music_ray.generate.gates import Jury, Refusal, first_refusal
from music_ray.schema import Rollout

Maker = Callable[..., Rollout]
SOURCE = """
LIMIT = 20

def terse(rollout):
    long = [m for m in rollout.chosen if len(m["content"]) > LIMIT]
    return f"{len(long)} long messages" if long else ""

def broken(rollout):
    return rollout.no_such_field

def yes(rollout):
    return True

number = 3
"""


@pytest.fixture
def my_gates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module in the working folder, which is not on the module path; each test its own."""
    name = f"my_gates_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [entry for entry in __import__("sys").path if entry])
    return name


def test_a_plugin_refuses_under_its_function_s_name(make_rollout: Maker, my_gates: str) -> None:
    gates = GatesConfig(plugins=[f"{my_gates}:terse"])
    long = make_rollout(1, chosen=["A first answer.", "And then?", "This one is far too long."])
    assert first_refusal(long, gates) == Refusal("terse", "1 long messages")
    assert first_refusal(make_rollout(2), gates) is None
    jury = Jury(gates)
    assert jury.hear(long) == Refusal("terse", "1 long messages")
    assert jury.counts({"terse": 1})["terse"] == {
        "on": True, "why_off": "", "refused": 1, "would_refuse_alone": 1,
    }  # fmt: skip


def test_a_plugin_that_fails_is_named_with_the_row(make_rollout: Maker, my_gates: str) -> None:
    with pytest.raises(StageError) as error:
        first_refusal(make_rollout(77), GatesConfig(plugins=[f"{my_gates}:broken"]))
    assert str(error.value) == (
        f"the gate {my_gates}:broken (pairs.gates.plugins) failed on the rollout 77: AttributeError: "
        "'Rollout' object has no attribute 'no_such_field'; mend it, or take it out of pairs.gates.plugins"
    )
    with pytest.raises(StageError) as error:
        first_refusal(make_rollout(77), GatesConfig(plugins=[f"{my_gates}:yes"]))
    assert str(error.value) == (
        f"the gate {my_gates}:yes (pairs.gates.plugins) returned True for the rollout 77: it must return "
        "text, empty when the rollout passes"
    )


def test_a_plugin_that_is_not_there_is_said_before_any_work(my_gates: str, tmp_path: Path) -> None:
    def problem(name: str) -> str:
        with pytest.raises(InputError) as error:
            Jury(GatesConfig(plugins=[name]))
        return str(error.value)

    assert problem("no_such_module:f") == (
        "pairs.gates.plugins: no_such_module:f can't be imported: ModuleNotFoundError: No module named "
        "'no_such_module'; correct the name, or start music-ray in the folder that holds the module"
    )
    for name in ("missing", "number"):
        assert problem(f"{my_gates}:{name}") == (
            f"pairs.gates.plugins: {my_gates} has no function {name}: define `def {name}(rollout)`, or "
            "correct the name"
        )
    (tmp_path / "raises.py").write_text("1 / 0")
    assert "raises:f can't be imported: ZeroDivisionError: division by zero" in problem("raises:f")


@pytest.mark.parametrize(
    ("plugins", "message"),
    [
        (["polite"], "plugin 'polite' is not of the form module:function, e.g. my_gates:polite"),
        (["a.b:c d"], "is not of the form module:function"),
        (["a:f", "b:f"], "2 plugins have the name 'f'"),
        (["a:empty"], "a reason of music_ray has the name 'empty'"),
        (["a:excluded"], "a reason of music_ray has the name 'excluded'"),
    ],
)
def test_names_are_checked(plugins: list[str], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        GatesConfig(plugins=plugins)
