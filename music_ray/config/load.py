"""Reading a configuration: YAML, `key.path=value` overrides, and errors that name the nearest key."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from music_ray.config import RunConfig
from music_ray.errors import ConfigError

_CREDENTIALS = re.compile(r"://[^/\s]*@")


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The resolved configuration of one run.

    Args:
        path: a YAML file with the sections of RunConfig.
        overrides: `key.path=value` words; the value is YAML, so that lists and null can be given.

    Raises:
        ConfigError: missing or malformed file, unknown key (the nearest valid one is named), wrong type,
            value out of bounds, impossible combination, credentials in a URI.
    """
    return _without_secrets(resolve_config(apply_overrides(_read_yaml(Path(path)), overrides)))


def apply_overrides(values: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The values with `key.path=value` words applied, in their order.

    Raises:
        ConfigError: a word that is not of that form.
    """
    for word in overrides:
        _apply_override(values, word)
    return values


def resolve_config(values: dict[str, Any]) -> RunConfig:
    """Validates a plain dictionary.

    Raises:
        ConfigError: as load_config.
    """
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_hidden(_explain(error))) from None


def config_for_file(path: str, overrides: Sequence[str]) -> RunConfig:
    """A run of its own for one data file: all of it becomes seeds, nothing is held out.

    Raises:
        ConfigError: as load_config.
    """
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(path).name.split(".")[0])[:80] or "data"
    values: dict[str, Any] = {
        "name": f"seeds-{stem}",
        "data": {"sources": [{"path": path}], "held_out_fraction": 0.0},
    }
    return _without_secrets(resolve_config(apply_overrides(values, overrides)))


def refuse_credentials(place: str, key: str) -> None:
    """Refuses a path or URI that holds a user name or password: run folders and messages would repeat it.

    Args:
        key: where it was given, for the message; the place itself is not repeated.

    Raises:
        ConfigError: it holds some.
    """
    if _CREDENTIALS.search(place):
        raise _holds_credentials(key)


def _holds_credentials(key: str) -> ConfigError:
    return ConfigError(
        f"{key} holds credentials, which would be recorded with the run: take them out of the URI and "
        "put them into the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for s3), or give "
        "the machine a role that may use the store"
    )


def _hidden(text: str) -> str:
    """For messages that repeat what was given: it is refused for another reason, and may hold a secret."""
    return _CREDENTIALS.sub("://***@", text)


def keys_with_credentials(config: RunConfig) -> list[str]:
    """Keys whose value holds a URI with a user name or password.

    Every text is looked at, not a list of keys: a key that is new next year may name a place, too.
    """
    return [key for key, text in _texts(config.model_dump(mode="json")) if _CREDENTIALS.search(text)]


def _without_secrets(config: RunConfig) -> RunConfig:
    """What a user has just given. What an old run folder holds is read as it is."""
    for key in keys_with_credentials(config):
        raise _holds_credentials(key)
    return config


def _texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every text in nested mappings and lists, with its dotted key; places in lists count from 0."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict | list):
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _texts(inner, f"{key}.{name}" if key else str(name))


def dump_config(config: RunConfig) -> str:
    """The resolved configuration as YAML that load_config reads back to an equal one."""
    values = config.model_dump(mode="json")
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def parse_yaml(text: str, name: str) -> dict[str, Any]:
    """The mapping that a YAML text holds; `name` is what messages call it.

    Raises:
        ConfigError: malformed YAML, a key that stands twice in one section, or no mapping.
    """
    try:
        values = yaml.load(text, Loader=_Loader)  # noqa: S506  (a SafeLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{name} is not valid YAML: {_hidden(' '.join(str(error).split()))}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{name} holds no sections: it must be a mapping such as 'name: demo'")
    return values


def all_keys(model: type[BaseModel] = RunConfig, prefix: str = "") -> Iterator[str]:
    """Every dotted key, sections included."""
    for name, field in model.model_fields.items():
        yield prefix + name
        for candidate in (field.annotation, *get_args(field.annotation)):
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                yield from all_keys(candidate, f"{prefix}{name}.")


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"no configuration file at {path}: name a YAML file, e.g. configs/demo.yaml"
        ) from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 (byte {error.start}): save it as UTF-8") from None
    return parse_yaml(text, str(path))


class _Loader(yaml.SafeLoader):
    """YAML as people mean it in a configuration: no dates, and no key that silently replaces another."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"{key.value} stands twice", problem_mark=key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


# `name: 2026-11-05` is a name.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class _Dumper(yaml.SafeDumper):
    """PyYAML loses Unicode's own line breaks in texts that it does not put in double quotes."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    odd = any(sign in text for sign in "\x85\u2028\u2029")
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if odd else None)


_Dumper.add_representer(str, _represent_text)


def _apply_override(values: dict[str, Any], word: str) -> None:
    key, equals, text = word.partition("=")
    if not equals or not key:
        raise ConfigError(f"override {_hidden(repr(word))} is not of the form key.path=value")
    try:
        value = yaml.load(text, Loader=_Loader)  # noqa: S506  (a SafeLoader)
    except yaml.YAMLError:
        raise ConfigError(
            f"the value of override {_hidden(repr(word))} is not valid YAML: quote it"
        ) from None
    *parents, last = key.split(".")
    node = values
    for part in parents:
        if node.get(part) is None:
            node[part] = {}
        node = node[part]
        if not isinstance(node, dict):
            what = (
                "a list: give it whole, in brackets"
                if isinstance(node, list)
                else "a plain value, not a section"
            )
            raise ConfigError(f"{key} is no configuration key: {part} holds {what}")
    node[last] = value


def _explain(error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            lines.append(f"unknown key {key}" + _nearest(key))
        elif problem["type"] == "missing":
            lines.append(f"{key} is missing: the configuration must set it")
        elif problem["type"] == "value_error":
            lines.append(f"{key}: {problem['ctx']['error']}" if key else str(problem["ctx"]["error"]))
        elif problem["type"] == "model_type":
            lines.append(f"{key} is {_shown(problem['input'])}: it must be a section with keys of its own")
        else:
            message = problem["msg"][0].lower() + problem["msg"][1:]
            lines.append(f"{key} is {_shown(problem['input'])}: {message}")
    return "\n".join(lines)


def _shown(value: Any) -> str:
    """A value as YAML writes it, on one line."""
    text = "empty" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    text = _hidden(text)  # before it is cut, which may take the sign by which a secret is known
    return text if len(text) <= 80 else f"{text[:80]}…"


def _nearest(key: str) -> str:
    known = list(all_keys())
    key = re.sub(r"\.\d+(?=\.)", "", key)  # places in lists: data.sources.0.pth
    parent, _, last = key.rpartition(".")
    # A key in the wrong section first: turns is meant to be generate.turns, though train looks like it.
    namesakes = [name for name in known if name.rpartition(".")[2] == last]
    # Then the siblings: generate.trns is meant to be generate.turns, whatever else is near.
    siblings = [name for name in known if name.rpartition(".")[0] == parent]
    found = (
        difflib.get_close_matches(key, namesakes, n=1, cutoff=0.0)
        or difflib.get_close_matches(key, siblings, n=1, cutoff=0.6)
        or difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    )
    return f": did you mean {found[0]}?" if found else ""
