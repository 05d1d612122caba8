"""docs/reference/configuration.md, written from the configuration's own classes.

    python -m music_ray.config.reference > docs/reference/configuration.md     (`make docs`)

Every sentence of the page is either here or a docstring of a field: nothing is described twice. This
module knows fields and Markdown; it does not know what the values do.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from music_ray.config import RunConfig
from music_ray.config.base import field_kind

_HEAD = """\
# Configuration

This page is generated from the classes in `music_ray/config/` (`make docs`). Do not edit it by hand.

A run is one YAML file with the sections below. A key that is left out takes its default. An unknown
key, a value out of its bounds or an impossible combination ends the command with exit code 2, before
anything is started. On the command line, `section.key=value` words override the file; the value is
read as YAML, so `null`, `[1, 2]` and `{path: pairs.jsonl}` can be given. `--dry-run` prints the
resolved configuration and stops.

**kind** says what may change in a run folder that already holds results:

- **identity**: decides what the rows are. In `seed`, `data`, `seeds`, `engine`, `user`, `assistant`,
  `contrast` and `generate` a changed value is refused for a folder that was made with another one:
  restore it, or give the run a new `name`. In `pairs`, `mix`, `train`, `evaluate` and `report` the
  stage is run again, and those after it whose input changes.
- **growth**: how much is made. Raise it and run again: what is there stays, and only the rest is made.
- **free**: how it is made (memory, concurrency, workers). It may change at any time.
"""

_TYPES = {str: "text", int: "integer", float: "number", bool: "true or false"}
_SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


@dataclass(frozen=True)
class _Part:
    """One section as the page shows it."""

    path: str
    """Dotted, empty for the top level."""
    model: type[BaseModel]
    default: BaseModel | None
    """What the section is when it is left out; None where it is then absent."""
    is_free: bool
    """The section as a whole is free, whatever its fields say."""
    is_entry: bool
    """It describes the entries of a list."""


def markdown() -> str:
    """The whole page."""
    parts = list(_parts(_Part("", RunConfig, RunConfig(name="NAME"), False, False)))
    return "\n\n".join([_HEAD.strip(), *(_section(part) for part in parts)]) + "\n"


def _parts(part: _Part) -> Iterator[_Part]:
    yield part
    for name, field in part.model.model_fields.items():
        inner = _inner_model(field)
        if inner is None:
            continue
        value = getattr(part.default, name, None)
        yield from _parts(
            _Part(
                path=f"{part.path}.{name}".lstrip("."),
                model=inner,
                default=value if isinstance(value, BaseModel) else None,
                is_free=part.is_free or field_kind(part.model, name) == "free",
                is_entry=get_origin(field.annotation) is list,
            )
        )


def _inner_model(field: FieldInfo) -> type[BaseModel] | None:
    for candidate in (field.annotation, *get_args(field.annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _section(part: _Part) -> str:
    level = "##" if "." not in part.path else "###"
    title = f"`{part.path}`" if part.path else "The top level"
    rows = [
        "| key | type | default | kind | bounds | meaning |",
        "|---|---|---|---|---|---|",
        *(_row(part, name, field) for name, field in part.model.model_fields.items()),
    ]
    head = [f"{level} {title}", _one_line(part.model.__doc__ or "")]
    if part.is_entry:
        head.append("These are the keys of each entry of the list.")
    elif part.path and part.default is None:
        head.append("Left out, the section is absent; written, these are its defaults.")
    elif note := _partial_note(part):
        head.append(note)
    return "\n\n".join([*head, "\n".join(rows)])


def _row(part: _Part, name: str, field: FieldInfo) -> str:
    path = f"{part.path}.{name}".lstrip(".")
    if _inner_model(field) is not None:
        default, kind = f"see [`{path}`](#{path.replace('.', '')})", ""
        if get_origin(field.annotation) is list or type(None) in get_args(field.annotation):
            default = f"{_shown(field.default)}; {default}"
            kind = "free" if part.is_free else field_kind(part.model, name)
    else:
        default = _default(part, name, field)
        kind = "free" if part.is_free else field_kind(part.model, name)
    cells = [f"`{name}`", _type(field.annotation), default, kind, _bounds(field), field.description or ""]
    return "| " + " | ".join(_one_line(cell).replace("|", "\\|") for cell in cells) + " |"


def _default(part: _Part, name: str, field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "must be set"
    return _shown(field.default if part.default is None else getattr(part.default, name))


def _shown(value: Any) -> str:
    """A value as YAML writes it."""
    if value is None:
        return "empty"
    plain = list(value) if isinstance(value, tuple) else value
    text = yaml.safe_dump(plain, default_flow_style=True, width=10_000).removesuffix("\n...\n")
    return f"`{text.strip()}`"


def _type(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        names = [f"`{one}`" for one in get_args(annotation)]
        return f"{', '.join(names[:-1])} or {names[-1]}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    inner = get_args(annotation)
    if type(None) in inner:
        return f"{_type(next(one for one in inner if one is not type(None)))}, or empty (`null`)"
    if get_origin(annotation) is list:
        return f"list of {_type(inner[0])}".replace("section", "sections")
    if get_origin(annotation) is tuple:
        return f"list of {len(inner)} numbers"
    if get_origin(annotation) is dict:
        return f"table of {_type(inner[0])} to a {_type(inner[1])}"
    return _TYPES.get(annotation, "number" if inner else str(annotation))


def _bounds(field: FieldInfo) -> str:
    own = _bounds_of(field.metadata)
    if own or get_origin(field.annotation) is not tuple:
        return own
    return f"each {_bounds_of(get_args(field.annotation)[0].__metadata__[0].metadata)}"


def _bounds_of(metadata: Any) -> str:
    found = [
        f"{sign} {getattr(one, attribute):g}"
        for one in metadata
        for attribute, sign in _SIGNS.items()
        if getattr(one, attribute, None) is not None
    ]
    found += [f"at least {one.min_length} long" for one in metadata if getattr(one, "min_length", None)]
    return ", ".join(found)


def _partial_note(part: _Part) -> str:
    """What a section that is written in part takes for the rest, where that differs from the table."""
    if part.default is None or not part.path:
        return ""
    values: dict[str, Any] = {}
    node = values
    for name in part.path.split("."):
        node[name] = {}
        node = node[name]
    written: Any = RunConfig.model_validate({"name": "NAME"} | values)
    for name in part.path.split("."):
        written = getattr(written, name)
    others = [
        f"`{name}` {_shown(getattr(written, name))}"
        for name, field in part.model.model_fields.items()
        if _inner_model(field) is None and getattr(written, name) != getattr(part.default, name)
    ]
    if not others:
        return ""
    return (
        "The defaults below hold while the whole section is left out. A section that is written, even in "
        f"part, takes other values for what it leaves out: {', '.join(others)}."
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    sys.stdout.write(markdown())
