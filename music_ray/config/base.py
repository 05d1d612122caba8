"""What every configuration section shares: frozen, no unknown keys, a sentence under each field.

Three kinds of field decide what may change in a run folder that already holds results:

- identity (the default): decides what the rows are; a changed value is refused or reruns the stage;
- `GROWTH`: how much is made (number of seeds); a changed value makes the stage go on;
- `FREE`: how it is made (concurrency, memory, workers); a changed value changes no result.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

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
        ser_json_inf_nan="strings",
    )

    @model_validator(mode="before")
    @classmethod
    def _no_bool_for_number(cls, values: Any) -> Any:
        """`turns=true` must not silently become 1 (pydantic's lax mode would do that)."""
        if isinstance(values, dict):
            for key, value in values.items():
                field = cls.model_fields.get(key)
                if isinstance(value, bool) and field is not None and field.annotation in (int, float):
                    raise ValueError(f"{key} is {str(value).lower()}, but it must be a number")
        return values


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
            chosen[name] = dumped[name]
    return chosen
