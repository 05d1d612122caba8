"""The prompt templates, and one hash over those of the rollouts, another over the judge's.

Templates are Jinja files beside this module. Text that users or models wrote goes in through variables
and is never itself rendered as a template; a reply that the model is only to read is fenced. Templates
that a user brings are the business of music_ray.prompts.own.
"""

from __future__ import annotations

import functools
import hashlib
import re
from importlib import resources
from typing import Any

import jinja2


@functools.cache
def _environment() -> jinja2.Environment:
    # Prompts are plain text, not HTML: escaping would change what the model reads.
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_source),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701  (see above)
    )
    environment.filters["fence"] = fence
    return environment


def fence(text: str) -> str:
    """A text between two lines of back quotes that are longer than any run of them in the text.

    So nothing in the text can look like its end.
    """
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    ticks = "`" * max(3, longest + 1)
    return f"{ticks}\n{text}\n{ticks}"


def _source(name: str) -> str:
    return (resources.files(__name__) / name).read_text(encoding="utf-8")


def render(name: str, **values: Any) -> str:
    """A template file, e.g. 'contrast_joint.j2', filled in; surrounding white space is removed."""
    return _template(name).render(**values).strip()


@functools.cache
def _template(name: str) -> jinja2.Template:
    """Compiled once: rendering is most of what our own code costs in a contrast call."""
    return _environment().get_template(name)


@functools.cache
def prompt_hash() -> str:
    """Hash over the names and texts of the rollouts' templates: part of a run's identity and of every row.

    The judge's are not among them: another judge makes no other rollouts.
    """
    return _hash_of(judges=False)


@functools.cache
def judge_hash() -> str:
    """Hash over the judge's templates (judge_*.j2); music_ray.judge.prompt adds what it does to the texts."""
    return _hash_of(judges=True)


def _hash_of(*, judges: bool) -> str:
    digest = hashlib.sha256()
    files = sorted((item for item in resources.files(__name__).iterdir()), key=lambda item: item.name)
    for item in files:
        if item.name.endswith(".j2") and item.name.startswith("judge_") == judges:
            digest.update(f"{item.name}\n{item.read_text(encoding='utf-8')}\n".encode())
    return digest.hexdigest()[:16]
