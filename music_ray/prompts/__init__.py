"""The prompt templates, and one hash over all of them.

Templates are Jinja files beside this module. Text that users or models wrote goes in through
variables, fenced, and is never itself rendered as a template.
"""

from __future__ import annotations

import functools
import hashlib
from importlib import resources
from typing import Any

import jinja2


@functools.cache
def _environment() -> jinja2.Environment:
    # Prompts are plain text, not HTML: escaping would change what the model reads.
    return jinja2.Environment(
        loader=jinja2.FunctionLoader(_source), undefined=jinja2.StrictUndefined, autoescape=False
    )


def _source(name: str) -> str:
    return (resources.files(__name__) / name).read_text(encoding="utf-8")


def render(name: str, **values: Any) -> str:
    """A template file, e.g. 'contrast_joint.j2', filled in; surrounding white space is removed."""
    return _environment().get_template(name).render(**values).strip()


@functools.cache
def prompt_hash() -> str:
    """Hash over the names and texts of all templates: part of a run's identity and of every row."""
    digest = hashlib.sha256()
    files = sorted((item for item in resources.files(__name__).iterdir()), key=lambda item: item.name)
    for item in files:
        if item.name.endswith(".j2"):
            digest.update(f"{item.name}\n{item.read_text(encoding='utf-8')}\n".encode())
    return digest.hexdigest()[:16]
