"""The endpoint section: no secret gets in, and a role's own engine is one that can be."""

from typing import Any

import pytest

from music_ray.config import EndpointConfig, EngineConfig, RunConfig
from music_ray.config.base import field_kind
from music_ray.config.load import dump_config, load_config, resolve_config
from music_ray.errors import ConfigError
from music_ray.identity import identity_difference, identity_of

URL = "https://api.example.org/v1"
ENDPOINT = {"kind": "endpoint", "model": "m", "endpoint": {"base_url": URL}}


def config_of(**sections: Any) -> RunConfig:
    return resolve_config({"name": "x", **sections})


def refusal(**sections: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        config_of(**sections)
    return str(caught.value)


def endpoint_refusal(**endpoint: Any) -> str:
    return refusal(engine={"kind": "endpoint", "model": "m", "endpoint": {"base_url": URL, **endpoint}})


@pytest.mark.parametrize(
    "url", ["https://joe:s3cret@api.example.org/v1", "https://joe@h/v1", "http://u:s3/x@h"]
)
def test_a_password_in_the_url_is_refused_and_not_repeated(url: str) -> None:
    assert endpoint_refusal(base_url=url) == (
        "engine.endpoint.base_url: the URL holds a user name or password: remove it, and name the "
        "environment variable of the key in api_key_env"
    )


def test_a_key_in_the_query_is_refused_and_not_repeated() -> None:
    assert endpoint_refusal(base_url=f"{URL}?api_key=s3cret") == (
        "engine.endpoint.base_url: the URL holds a query string: end it with the path, e.g. https://HOST/v1"
    )


@pytest.mark.parametrize("url", ["api.example.org/v1", "ftp://h/v1", "https://", "/v1", ""])
def test_what_is_no_url(url: str) -> None:
    assert endpoint_refusal(base_url=url) == (
        f"engine.endpoint.base_url: {url!r} is no URL of an API: give one such as https://api.openai.com/v1"
    )


@pytest.mark.parametrize("key", ["sk-proj-0123456789", "AIzaSy0123", "s3cret", "A B", ""])
def test_a_key_where_a_name_is_asked_is_refused_and_not_repeated(key: str) -> None:
    assert endpoint_refusal(api_key_env=key) == (
        "engine.endpoint.api_key_env: this is not the name of an environment variable (capital letters, "
        "digits and '_'): name the variable that holds the key, not the key"
    )


@pytest.mark.parametrize(
    ("url", "host", "is_local"),
    [
        ("http://127.0.0.1:8000/v1/", "127.0.0.1:8000", True),
        ("http://localhost:8000/v1", "localhost:8000", True),
        ("http://[::1]:8000/v1", "[::1]:8000", True),
        ("https://api.example.org/v1", "api.example.org", False),
        ("http://localhost.example.org/v1", "localhost.example.org", False),
    ],
)
def test_where_an_endpoint_is(url: str, host: str, is_local: bool) -> None:
    endpoint = EndpointConfig(base_url=url)
    assert (endpoint.base_url, endpoint.host, endpoint.is_local) == (url.rstrip("/"), host, is_local)


def test_an_engine_and_its_endpoint_belong_together() -> None:
    assert refusal(engine={"kind": "endpoint", "model": "m"}) == (
        "engine: kind=endpoint needs to know which: set endpoint.base_url, e.g. https://api.openai.com/v1"
    )
    assert refusal(engine={"model": "m", "endpoint": {"base_url": URL}}) == (
        "engine: endpoint is set, but kind is vllm: set kind=endpoint, or remove endpoint"
    )
    assert refusal(engine={**ENDPOINT, "gpus_per_engine": 1}) == (
        "engine: gpus_per_engine (1) would hold GPUs that an endpoint does not use: set it to 0"
    )
    # A dry run of a configuration without its endpoint.
    assert config_of(engine={**ENDPOINT, "kind": "scripted"}).engine.kind == "scripted"


@pytest.mark.parametrize("role", ["user", "contrast"])
def test_a_role_of_its_own_engine(role: str) -> None:
    assert refusal(**{role: {"engine": {"model": "m"}}}) == (
        f"{role}.engine.kind=vllm would load a second model into every engine's process: start that model "
        f"with `vllm serve`, and set {role}.engine.kind=endpoint and {role}.engine.endpoint.base_url"
    )
    for engine in (ENDPOINT, {"kind": "scripted"}):
        assert getattr(config_of(**{role: {"engine": engine}}), role).engine == EngineConfig(**engine)


def test_only_the_roles_of_a_local_engine_must_fit_its_length() -> None:
    local = {"model": "m", "max_model_len": 128}
    long_user = {"sampling": {"max_tokens": 200}}
    short = {"sampling": {"max_tokens": 100}}
    others = {"assistant": short, "contrast": short}
    assert "a reply of 200 tokens does not fit engine.max_model_len (128)" in refusal(
        engine=local, user=long_user, **others
    )
    config_of(engine=local, user={**long_user, "engine": ENDPOINT}, **others)
    config_of(engine={**ENDPOINT, "max_model_len": 128}, user=long_user, **others)


def test_the_model_of_a_role_decides_what_the_rows_are_and_the_place_of_its_server_does_not() -> None:
    free = {name for name in EndpointConfig.model_fields if field_kind(EndpointConfig, name) == "free"}
    assert set(EndpointConfig.model_fields) - free == {"tokenizer"}
    before = identity_of(config_of(user={"engine": ENDPOINT}))
    moved = {**ENDPOINT, "endpoint": {"base_url": "http://127.0.0.1:9/v1", "max_concurrency": 2}}
    assert identity_of(config_of(user={"engine": moved})) == before
    other = identity_of(config_of(user={"engine": {**ENDPOINT, "model": "n"}}))
    assert 'user.engine.model is "n", but runs/x was made with "m"' in identity_difference(
        before, other, "runs/x"
    )
    # A folder that was made before roles had engines is still the same run.
    old = {key: value for key, value in identity_of(config_of()).items() if ".endpoint" not in key}
    assert identity_difference(old, identity_of(config_of()), "runs/x").count("\n") == 0


def test_a_configuration_with_endpoints_reads_back(tmp_path) -> None:
    config = config_of(engine=ENDPOINT, contrast={"engine": {"kind": "scripted"}})
    (tmp_path / "run.yaml").write_text(dump_config(config))
    assert load_config(tmp_path / "run.yaml") == config


def test_which_tokenizer_counts() -> None:
    assert EngineConfig(model="a/b").tokenizer == "a/b"
    assert EngineConfig(**ENDPOINT).tokenizer == "m"
    endpoint = {"base_url": URL, "tokenizer": "a/b"}
    assert EngineConfig(kind="endpoint", model="m", endpoint=endpoint).tokenizer == "a/b"


@pytest.mark.parametrize(
    ("name", "sections"),
    [
        ("assistant", {"engine": ENDPOINT, "assistant": {"sampling": {"begin": "Well"}}}),
        ("user", {"user": {"engine": ENDPOINT, "sampling": {"begin": "Well"}}}),
        ("pairs.judge", {"pairs": {"judge": {"engine": ENDPOINT, "sampling": {"begin": "Well"}}}}),
        ("best_of_n.judge", {"best_of_n": {"judge": {"engine": ENDPOINT, "sampling": {"begin": "Well"}}}}),
    ],
)
def test_no_words_are_put_into_the_mouth_of_an_endpoint(name: str, sections: dict[str, Any]) -> None:
    assert refusal(**sections).endswith(
        f"{name}.sampling.begin ('Well') can't be put into the mouth of a chat endpoint (m): leave it "
        "out, or use an engine of kind vllm"
    )
