"""Node labels in a configuration: what Ray would take, and nothing else of its selectors."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from music_ray.config.base import field_kind
from music_ray.config.load import apply_overrides, dump_config, parse_yaml, resolve_config
from music_ray.errors import ConfigError

FORM = "1 to 63 letters, digits, '-', '_' or '.', the first and the last a letter or digit"
SIGNS = st.text(st.sampled_from("aZ9-_./!() ,=é\n"), max_size=66)


def config_of(*words, **values):
    return resolve_config(apply_overrides({"name": "x", **values}, words))


def refusal(section, labels) -> str:
    with pytest.raises(ConfigError) as caught:
        config_of(**{section: {"node_labels": labels}})
    return str(caught.value)


@pytest.mark.parametrize("section", ["engine", "train"])
def test_labels_are_read_written_and_free(section) -> None:
    config = config_of(f"{section}.node_labels={{music-ray/group: generation, zone: 1}}")
    labels = {"music-ray/group": "generation", "zone": "1"}
    assert getattr(config, section).node_labels == labels
    assert resolve_config(parse_yaml(dump_config(config), "dumped")) == config
    assert getattr(config_of(f"{section}.node_labels.music-ray/group=a"), section).node_labels == {
        "music-ray/group": "a"
    }
    assert field_kind(type(getattr(config, section)), "node_labels") == "free"
    assert getattr(config_of(), section).node_labels == {}


@pytest.mark.parametrize("section", ["engine", "train"])
@pytest.mark.parametrize("name", ["", "a b", "-a", "/a", "a/", "a/b/", "a" * 64, "é", "a\n"])
def test_a_name_that_ray_would_not_take(section, name) -> None:
    assert refusal(section, {name: "b"}) == (
        f"{section}.node_labels: {name!r} can't be a label's name: it is {FORM}, perhaps after a domain and "
        "'/', e.g. music-ray/group"
    )


@pytest.mark.parametrize("value", ["", "a b", "a-", "a/b", "a" * 64, "!spot", "in(a, b)", "!in(a)", "a\n"])
def test_a_value_that_is_none_and_operators(value) -> None:
    assert refusal("engine", {"zone": value}) == (
        f"engine.node_labels: zone is {value!r}: a label's value is {FORM}; operators such as !x and "
        "in(x, y) are not taken"
    )


def test_a_judge_is_a_pool_of_its_own_and_is_checked_too() -> None:
    with pytest.raises(ConfigError, match=r"^pairs\.judge\.engine\.node_labels: zone is 'a b': "):
        config_of("pairs.judge.engine={kind: scripted, node_labels: {zone: a b}}")


def test_no_value_and_a_list_are_refused() -> None:
    assert refusal("engine", {"zone": None}) == (
        "engine.node_labels.zone is empty: input should be a valid string"
    )
    assert refusal("train", ["zone"]) == ("train.node_labels is ['zone']: input should be a valid dictionary")


@given(labels=st.dictionaries(SIGNS, SIGNS, min_size=1, max_size=2))
def test_ray_takes_what_is_taken_here(labels) -> None:
    from ray._private.label_utils import validate_label_selector, validate_node_label_syntax

    try:
        config_of(engine={"node_labels": labels})
    except ConfigError:
        return
    validate_node_label_syntax(labels)
    assert validate_label_selector(labels) is None


@given(
    name=st.from_regex(r"[a-z]([a-z0-9.-]{0,20}[a-z0-9])?(/[A-Za-z0-9]{1,63})?", fullmatch=True),
    value=st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?", fullmatch=True),
)
def test_labels_as_kubernetes_knows_them_are_taken(name, value) -> None:
    assert config_of(train={"node_labels": {name: value}}).train.node_labels == {name: value}
