"""What every configuration section shares: frozen, no unknown keys, a sentence under each field.

Three kinds of field decide what may change in a run folder that already holds results:

- identity (the default): decides what the rows are; a changed value is refused or reruns the stage;
- `GROWTH`: how much is made (number of seeds); a changed value makes the stage go on;
- `FREE`: how it is made (concurrency, memory, workers); a changed value changes no result.
"""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

GROWTH: dict[str, Any] = {"kind": "growth"}
FREE: dict[str, Any] = {"kind": "free"}


class Section(BaseModel):
    """Base of all sections. Field descriptions are the docstrings under the fields."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        coerce_numbers_to_str=True,
        protected_namespaces=(),
        allow_inf_nan=False,
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_bool_for_number(cls, value: Any, info: ValidationInfo) -> Any:
        """`turns=true` must not silently become 1 (pydantic's lax mode would do that)."""
        given = value if isinstance(value, list | tuple) else [value]
        if any(isinstance(one, bool) for one in given) and info.field_name is not None:
            takes = set(_plain_types(cls.model_fields[info.field_name].annotation))
            if takes & {int, float} and bool not in takes:
                raise PydanticCustomError("bool_for_number", "it must be a number, not true or false")
        return value


def _plain_types(annotation: Any) -> list[Any]:
    """The types that an annotation such as `tuple[float, float] | None` is made of."""
    inner = get_args(annotation)
    return [kind for one in inner for kind in _plain_types(one)] if inner else [annotation]


def field_kind(section: type[BaseModel], name: str) -> str:
    """'identity', 'growth' or 'free' for one field of a section."""
    extra = section.model_fields[name].json_schema_extra
    return str(extra.get("kind", "identity")) if isinstance(extra, dict) else "identity"


def select(section: BaseModel, kinds: set[str]) -> dict[str, Any]:
    """The fields of a section (recursively) whose kind is among `kinds`, as plain JSON types."""
    chosen: dict[str, Any] = {}
    dumped = section.model_dump(mode="json")
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, Section) and field_kind(type(section), name) == "identity":
            inner = select(value, kinds)
            if inner:
                chosen[name] = inner
        elif field_kind(type(section), name) in kinds:
            chosen[name] = _items(value, dumped[name], kinds)
    return chosen


def _items(value: Any, dumped: Any, kinds: set[str]) -> Any:
    """The sections of a list (data.sources) by the kinds of their fields; any other value as it is."""
    if not isinstance(value, list):
        return dumped
    return [
        select(one, kinds) if isinstance(one, Section) else plain
        for one, plain in zip(value, dumped, strict=True)
    ]
