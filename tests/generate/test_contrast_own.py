"""Contrasts that the user brings: a template in the place of the mode's, a plugin in the place of any."""

import asyncio
import textwrap

import pytest

from music_ray.engines.base import Completion, EngineDeadError, RequestError
from tests.generate.test_rollout import SEED, cast_of, grow, seed_of

HISTORY = seed_of("Talk like a pirate.", "Arr!", "How do I boil eggs?")


@pytest.fixture
def plugin(tmp_path, monkeypatch, request):
    """plugin(code): the name of its function `contrast` in a module of its own, found where one works."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    modules = []

    def write(code):
        module = f"plugin_{abs(hash(request.node.name))}_{len(modules)}"
        modules.append(module)
        imports = "from music_ray.generate.contrasts import BranchStopped, ContrastReply\n"
        (tmp_path / f"{module}.py").write_text(imports + textwrap.dedent(code))
        return f"{module}:contrast"

    return write


def echo(prompt, sampling, seed):
    if prompt.speaker == "user":
        return "And then?"
    return f"said to {len(prompt.messages)}: {prompt.messages[-1]['content']}"


def with_plugin(name, script=echo, **overrides):
    values = {"contrast__mode": "joint", "contrast__plugin": name, "generate__turns": 1}
    return cast_of(script, **(values | overrides))


# -- templates -------------------------------------------------------------------------------------


def test_an_own_template_stands_in_the_place_of_the_modes(tmp_path):
    path = tmp_path / "own.j2"
    path.write_text(
        "{{ message }} ({{ turn }}/{{ num_turns }}, after {{ history | length }})"
        "{% if chosen_reply is not none %}\n{{ chosen_reply | fence }}{% endif %}\nBe wrong.\n\n"
    )
    cast = cast_of(
        echo,
        contrast__mode="direct",
        contrast__template=str(path),
        contrast__show_chosen_reply=True,
        generate__turns=2,
    )
    row = grow(HISTORY, cast)
    assert [message["content"] for message in row.rejected[3::2]] == [
        "said to 3: How do I boil eggs? (1/2, after 2)\n```\nsaid to 3: How do I boil eggs?\n```\nBe wrong.",
        "said to 5: And then? (2/2, after 4)\nBe wrong.",
    ]
    assert [contrast.mode for contrast in row.contrasts] == ["direct", "direct"]


def test_a_template_can_be_given_as_text_and_what_users_wrote_is_not_rendered():
    seed = seed_of("What is {{ 7 * 7 }}?")
    cast = cast_of(
        echo, contrast__mode="direct", contrast__template="{{ message }}\nBe wrong.", generate__turns=1
    )
    assert grow(seed, cast).rejected[1]["content"] == "said to 1: What is {{ 7 * 7 }}?\nBe wrong."


@pytest.mark.parametrize(
    ("template", "detail"),
    [
        ("{{ message.foo }}\n", "turn 1: UndefinedError: 'str object' has no attribute 'foo'"),
        (
            "{{ message.__class__.__mro__ }}\n",
            "turn 1: SecurityError: access to attribute '__class__' of 'str' object is unsafe.",
        ),
        ("{{ history.append(1) }}\n", "is unsafe"),
        ("{{ 1 // (turn - 1) }}\n", "turn 1: ZeroDivisionError"),
    ],
)
def test_a_template_that_fails_costs_its_row_and_can_reach_nothing(template, detail):
    row = grow(SEED, cast_of(echo, contrast__mode="direct", contrast__template=template))
    assert (row.status, row.reason) == ("error", "template_failed")
    assert detail in row.detail


# -- plugins ---------------------------------------------------------------------------------------


def test_a_plugin_gets_its_place_and_asks_through_the_log(plugin):
    name = plugin(
        """
        seen = []
        async def contrast(request):
            seen.append(request)
            request.history[-1]["content"] = "scribbled on its copy"
            first = await request.ask([{"role": "user", "content": "Something related?"}])
            second = await request.ask([{"role": "user", "content": first.text}], role="assistant")
            return ContrastReply(f"  {second.text}\\n", instruction=" something related ")
        """
    )
    cast = with_plugin(name, assistant__hint="Be brief.", generate__turns=2)
    row = grow(HISTORY, cast)
    assert row.rejected[3]["content"] == "said to 1: said to 1: Something related?\nBe brief."
    first, second = row.contrasts
    assert (first.user_message, first.instruction) == ("How do I boil eggs?", "something related")
    assert (first.mode, first.attempts, second.turn) == ("plugin", 1, 2)
    assert row.rejected[2] == HISTORY.messages[2]
    calls = [call for call in row.calls if call.branch == "rejected" and call.role != "user"]
    assert [(call.turn, call.role, call.recorded) for call in calls] == [
        (1, "contrast", False), (1, "assistant", True), (2, "contrast", False), (2, "assistant", True),
    ]  # fmt: skip
    assert len({call.seed for call in row.calls}) == len(row.calls)
    seen = cast.contraster.plugin.__globals__["seen"]
    assert [(one.turn, one.num_turns, one.attempt, one.chosen_reply) for one in seen] == [
        (1, 2, 0, None), (2, 2, 0, None),
    ]  # fmt: skip
    again = grow(HISTORY, with_plugin(name, assistant__hint="Be brief.", generate__turns=2))
    assert [call.seed for call in again.calls] == [call.seed for call in row.calls]
    assert [one.seed for one in seen[2:]] == [one.seed for one in seen[:2]]


def test_a_plugin_sees_the_chosen_reply_where_it_is_to_be_shown(plugin):
    name = plugin(
        """
        async def contrast(request):
            return ContrastReply(f"not: {request.chosen_reply}")
        """
    )
    shown = grow(SEED, with_plugin(name, contrast__show_chosen_reply=True))
    assert shown.rejected[1]["content"] == "not: said to 1: How do I boil eggs?"
    assert grow(SEED, with_plugin(name)).rejected[1]["content"] == "not: None"
    assert [call.branch for call in shown.calls] == ["chosen"]


def test_calls_side_by_side_have_seeds_of_their_own_and_the_author_is_recorded(plugin):
    name = plugin(
        """
        import asyncio
        async def contrast(request):
            ask = lambda n: request.ask([{"role": "user", "content": f"idea {n}"}])
            ideas = await asyncio.gather(*(ask(n) for n in range(3)))
            return ContrastReply(ideas[1].text)
        """
    )

    async def script(prompt, sampling, seed):
        text = prompt.messages[-1]["content"]
        await asyncio.sleep({"idea 0": 0.004, "idea 1": 0.002}.get(text, 0))
        return Completion(text, "length" if text == "idea 1" else "stop", 1, 0, 1)

    row = grow(SEED, with_plugin(name, script))
    calls = [(call.finish_reason, call.recorded) for call in row.calls if call.role == "contrast"]
    assert sorted(calls) == [("length", True), ("stop", False), ("stop", False)]
    assert len({call.seed for call in row.calls}) == 4


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ('ContrastReply("  ")', "contrast_unparsed"),
        ('ContrastReply("x", instruction="how do I boil EGGS?")', "contrast_not_different"),
    ],
)
def test_what_a_plugin_does_not_achieve_is_asked_for_again(plugin, answer, reason):
    name = plugin(
        f"""
        attempts = []
        async def contrast(request):
            attempts.append((request.attempt, request.seed))
            await request.ask(request.history)
            return {answer}
        """
    )
    cast = with_plugin(name)
    row = grow(SEED, cast)
    assert (row.status, row.reason, row.detail) == ("error", reason, "turn 1, 3 attempts")
    attempts = cast.contraster.plugin.__globals__["attempts"]
    assert [number for number, _ in attempts] == [0, 1, 2] and len(set(attempts)) == 3
    contrast_calls = [call for call in row.calls if call.role == "contrast"]
    assert len({call.seed for call in contrast_calls}) == 3
    assert not any(call.recorded for call in contrast_calls)


@pytest.mark.parametrize(
    ("body", "reason", "detail"),
    [
        ("return 1 / 0", "plugin_failed", "ZeroDivisionError: division by zero ("),
        ('return "text"', "plugin_failed", "it returned str, not a ContrastReply"),
        (
            "return ContrastReply(None)",
            "plugin_failed",
            "it returned a ContrastReply whose fields are no texts",
        ),
        ('raise BranchStopped("no_persona", "nothing")', "no_persona", "nothing"),
    ],
)
def test_what_a_plugin_does_wrong_is_its_rows_reason(plugin, body, reason, detail):
    row = grow(SEED, with_plugin(plugin(f"async def contrast(request):\n    {body}\n")))
    assert (row.status, row.reason) == ("error", reason)
    assert row.detail.startswith(detail)
    if "division" in detail:
        assert row.detail.endswith(".py, line 3)")


STUBBORN = """
async def contrast(request):
    try:
        await request.ask(request.history)
    except Exception as error:
        return ContrastReply(f"never mind: {error}")
"""


def test_a_plugin_can_hide_a_refused_request_but_no_dead_engine(plugin):
    def failing_with(error):
        def script(prompt, sampling, seed):
            if script.calls:
                raise error
            script.calls.append(prompt)
            return "straight"

        script.calls = []
        return script

    name = plugin(STUBBORN)
    row = grow(SEED, with_plugin(name, failing_with(RequestError("no"))))
    assert row.status == "ok" and row.rejected[1]["content"].startswith("never mind")
    with pytest.raises(EngineDeadError, match="gone"):
        grow(SEED, with_plugin(name, failing_with(EngineDeadError("gone"))))


def test_rows_tell_which_template_or_plugin_wrote_them(plugin):
    plain = grow(SEED, cast_of()).prompt_hash
    own = [grow(SEED, with_plugin(plugin("async def contrast(request):\n    return ContrastReply('x')")))] + [
        grow(SEED, cast_of(echo, contrast__mode="direct", contrast__template=f"{text}\n")) for text in "ab"
    ]
    hashes = [row.prompt_hash.split("+") for row in own]
    assert all(first == plain and len(second) == 16 for first, second in hashes)
    assert len({second for _, second in hashes}) == 3


# -- the worked example ----------------------------------------------------------------------------


def persona_script(prompt, sampling, seed):
    if prompt.speaker == "user":
        return "And then?"
    told = prompt.messages[-1]["content"]
    if "Which persona" in told:
        return '"speaks like a pirate".' if prompt.messages[0]["content"].startswith("Talk") else "None."
    steps = {"slip out of it once": "slipped", "faint trace": "faint", "Drop it entirely": "dropped"}
    steps["drop it entirely"] = "dropped"
    return next((word for step, word in steps.items() if step in told), "Arr, in salt water!")


def test_persona_drift_goes_further_turn_by_turn(plugin):
    cast = with_plugin("docs.examples.persona_drift:drift", persona_script, generate__turns=3)
    row = grow(HISTORY, cast)
    assert row.status == "ok"
    assert [message["content"] for message in row.rejected[3::2]] == ["slipped", "faint", "dropped"]
    assert {message["content"] for message in row.chosen[3::2]} == {"Arr, in salt water!"}
    assert row.contrasts[1].instruction == "Keep only a faint trace of it: speaks like a pirate"
    no_persona = grow(SEED, cast)
    assert (no_persona.status, no_persona.reason) == ("error", "no_persona")


def test_persona_drift_as_a_template(request):
    path = request.config.rootpath / "docs" / "examples" / "persona_drift.j2"
    cast = cast_of(persona_script, contrast__mode="direct", contrast__template=str(path), generate__turns=3)
    row = grow(HISTORY, cast)
    assert [message["content"] for message in row.rejected[3::2]] == ["slipped", "faint", "dropped"]
