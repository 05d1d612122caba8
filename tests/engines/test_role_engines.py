"""Which engine plays which role, and how it is started."""

import asyncio
from typing import Any

import pytest

from music_ray import preflight
from music_ray.config.load import resolve_config
from music_ray.engines import make_engines
from music_ray.engines.endpoint import EndpointEngine
from music_ray.engines.scripted import ScriptedEngine
from music_ray.errors import InputError
from music_ray.generate.rollout import Cast, roll_out
from music_ray.schema import SeedContext
from tests.engines.misbehaving import refusing, well


@pytest.fixture
def endpoint(server, monkeypatch) -> dict[str, Any]:
    monkeypatch.setenv("TEST_KEY", "k")
    where = {"base_url": server.base_url, "api_key_env": "TEST_KEY"}
    return {"kind": "endpoint", "model": "m", "endpoint": where}


def config_of(tmp_path, **sections: Any):
    engine = {"engine": {"kind": "scripted"}}
    return resolve_config({"name": "x", "runs_dir": str(tmp_path), **engine, **sections})


def close(engines) -> None:
    for one in {id(one): one for one in (engines.assistant, engines.user, engines.contrast)}.values():
        one.close()


def test_one_engine_plays_all_roles_by_default(tmp_path) -> None:
    engines = make_engines(config_of(tmp_path))
    assert isinstance(engines.assistant, ScriptedEngine)
    assert engines.assistant is engines.user is engines.contrast


def test_equal_engines_are_one_whatever_they_hold(tmp_path) -> None:
    labelled = {"kind": "scripted", "node_labels": {"zone": "a", "x": "y"}}
    same = {"kind": "scripted", "node_labels": {"x": "y", "zone": "a"}}
    engines = make_engines(config_of(tmp_path, engine=labelled, user={"engine": same}))
    assert engines.assistant is engines.user is engines.contrast


def test_roles_with_equal_engines_share_one(tmp_path, server, endpoint) -> None:
    engines = make_engines(config_of(tmp_path, user={"engine": endpoint}, contrast={"engine": endpoint}))
    assert isinstance(engines.assistant, ScriptedEngine) and isinstance(engines.user, EndpointEngine)
    assert engines.user is engines.contrast
    assert len(server.bodies) == 1, "its first small request"
    close(engines)


def test_different_engines_are_told_apart(tmp_path, endpoint) -> None:
    other = {**endpoint, "model": "n"}
    engines = make_engines(config_of(tmp_path, engine=endpoint, contrast={"engine": other}))
    assert engines.assistant is engines.user is not engines.contrast
    assert (engines.assistant.config.model, engines.contrast.config.model) == ("m", "n")
    close(engines)


def test_a_template_needs_a_tokenizer(tmp_path, endpoint) -> None:
    (tmp_path / "empty").mkdir()
    endpoint["endpoint"]["tokenizer"] = str(tmp_path / "empty")
    with pytest.raises(InputError) as caught:
        make_engines(config_of(tmp_path, user={"mode": "template", "engine": endpoint}))
    message = str(caught.value)
    assert message.startswith(
        "user.mode=template continues the chat template of the endpoint's model: cannot load"
    )
    assert message.endswith(
        "name its Hugging Face folder or id in endpoint.tokenizer, or set user.mode=prompted"
    )


def test_a_row_says_who_wrote_it_in_which_role(tmp_path, server, endpoint) -> None:
    contrast = {"mode": "resample", "schedule": "turns:[1]"}
    config = config_of(tmp_path, user={"engine": endpoint}, generate={"turns": 2}, contrast=contrast)
    engines = make_engines(config)
    server.bodies.clear()
    seed = SeedContext(1, "test", "p", 1, [{"role": "user", "content": "How do I boil eggs?"}])
    row = asyncio.run(roll_out(seed, Cast.of(config, engines, None, run_epoch=1)))
    assert [(one.role, one.model) for one in row.writers] == [
        ("assistant", "scripted"), ("user", "model-2024-08-06"), ("contrast", "scripted"),
    ]  # fmt: skip
    # The simulator also draws the messages of contrast.mode=resample.
    assert len(server.bodies) == sum(call.role != "assistant" for call in row.calls) > 0
    assert row.chosen[2]["content"] == row.contrasts[0].instruction == "Hello."
    close(engines)


# -- before anything is started --------------------------------------------------------------------


def test_preflight_asks_each_endpoint_once(tmp_path, server, endpoint) -> None:
    config = config_of(tmp_path, user={"engine": endpoint}, contrast={"engine": {**endpoint, "model": "n"}})
    preflight.check(config, ["pairs", "mix", "report"])
    assert server.bodies == []
    preflight.check(config, ["generate"])
    assert [body["model"] for body in server.bodies] == ["m", "n"]
    assert set(server.paths) == {"/v1/chat/completions"}


def test_preflight_tries_the_template_route_where_it_is_needed(tmp_path, server, endpoint) -> None:
    config = config_of(tmp_path, engine=endpoint, user={"mode": "template"})
    preflight.check(config, ["generate"])
    assert server.paths == ["/v1/chat/completions", "/v1/completions"]
    server.script.extend([well, refusing(404)])
    with pytest.raises(InputError, match="can't continue a bare chat template"):
        preflight.check(config, ["generate"])


def test_preflight_misses_the_key(tmp_path, endpoint, monkeypatch) -> None:
    monkeypatch.delenv("TEST_KEY")
    endpoint["endpoint"]["base_url"] = "https://api.example.org/v1"
    with pytest.raises(InputError, match="the environment variable TEST_KEY is not set"):
        preflight.check(config_of(tmp_path, engine=endpoint), ["generate"])
