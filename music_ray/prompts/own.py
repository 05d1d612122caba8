"""What a user brings to contrast in a way of their own: a template file or a plugin function.

Reads, tries and hashes both, before a run and in its workers. This module knows which text the modes
read out of a model's answer; what becomes of it is music_ray.generate.contrasts' business.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import inspect
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, Template
from jinja2.sandbox import ImmutableSandboxedEnvironment

from music_ray.config import ContrastConfig
from music_ray.errors import InputError
from music_ray.plugins import import_named, in_words, see_working_folder
from music_ray.prompts import fence
from music_ray.schema import Message

VARIABLES = ("message", "history", "chosen_reply", "turn", "num_turns")
"""What a template may use (docs/how-to/own-contrasts.md)."""
_TAGS = {"joint": ("<modified_instruction>", "<reply>"), "two_step": ("<modified_instruction>",)}
"""What a mode reads out of the answer, so that its template must ask for it."""
_HASH_LETTERS = 16


def check(config: ContrastConfig, num_turns: int) -> None:
    """Tries the template or the plugin, so that its mistakes are found before anything is started.

    Raises:
        InputError: a missing or broken file, a variable that does not exist, a function that can't be used.
    """
    if config.plugin:
        load_plugin(config.plugin)
    if config.template:
        _check_template(config, num_turns)


def hashes(config: ContrastConfig) -> dict[str, str]:
    """Hashes of what the section only points at: part of a run's identity.

    Raises:
        InputError: the file or the module is missing.
    """
    found = {}
    if config.template:
        # Without the white space around it, which is not rendered either.
        found["template_hash"] = _hash(template_text(config.template).strip().encode())
    if config.plugin:
        found["plugin_hash"] = _hash(_plugin_source(config.plugin).read_bytes())
    return found


def template_text(template: str) -> str:
    """The text of contrast.template: its file's, or itself where it is text (it holds a line break).

    Raises:
        InputError: no such file, or one that can't be read as UTF-8.
    """
    if "\n" in template:
        return template
    path = Path(template).expanduser()
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(
            f"no template file at {template}: correct contrast.template, or remove it to use the mode's own"
        ) from None
    except OSError as error:
        raise InputError(
            f"contrast.template ({template}) can't be read: {error.strerror}; name a file with a template"
        ) from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"contrast.template ({template}) is not UTF-8 (byte {error.start}): save it as UTF-8"
        ) from None


def inlined(template: str) -> str:
    """The template as text, for processes that do not see its file."""
    text = template_text(template)
    return text if "\n" in text else f"{text}\n"


@functools.lru_cache(maxsize=8)
def compiled(text: str) -> Template:
    """A user's text as a template: in a sandbox, where a variable that is not there is an error.

    Raises:
        jinja2.TemplateSyntaxError: the text is no template.
    """
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)
    environment.filters["fence"] = fence
    return environment.from_string(text)


def _check_template(config: ContrastConfig, num_turns: int) -> None:
    template = config.template or ""
    name = "contrast.template" if "\n" in template else f"contrast.template ({template})"
    source = template_text(template)
    before: list[Message] = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]
    # As a seed of one message gives it, and as the end of a longer conversation does.
    for history, chosen_reply, turn in (([], None, 1), (before, "Paris.", num_turns)):
        values = {"message": "Where?", "history": history, "chosen_reply": chosen_reply, "turn": turn}
        try:
            text = compiled(source).render(**values, num_turns=num_turns).strip()
        except Exception as error:  # whatever a user's template raises is a mistake in it
            raise InputError(
                f"{name} can't be rendered with {len(history)} messages before the user's"
                f"{'' if chosen_reply else ' and no chosen reply'}: {in_words(error)}; it may use "
                f"{', '.join(VARIABLES)}"
            ) from None
        _check_rendered(text, name, config.mode)


def _check_rendered(text: str, name: str, mode: str) -> None:
    if not text:
        raise InputError(f"{name} renders to nothing: write what the model is to be told")
    for tag in _TAGS.get(mode, ()):
        if tag not in text:
            raise InputError(
                f"{name} never mentions {tag}, but contrast.mode={mode} reads what the model writes between "
                f"{tag} and </{tag[1:]}: ask the model for it, or use contrast.mode=direct"
            )


def load_plugin(name: str) -> Callable[[Any], Awaitable[Any]]:
    """The function that `module:function` names.

    Raises:
        InputError: it can't be imported, or is no async function of one argument.
    """
    module_name, _, function_name = name.partition(":")
    module = import_named(module_name, f"contrast.plugin ({name}): {module_name}")
    function = getattr(module, function_name, None)
    if function is None:
        raise InputError(
            f"contrast.plugin ({name}): {module_name} has no {function_name}: correct contrast.plugin"
        )
    if not inspect.iscoroutinefunction(function):
        raise InputError(
            f"contrast.plugin ({name}): {function_name} is no async function: define it as "
            f"`async def {function_name}(request)`"
        )
    try:
        inspect.signature(function).bind(object())
    except TypeError:
        raise InputError(
            f"contrast.plugin ({name}): {function_name} can't be called with one argument, the request: "
            f"define it as `async def {function_name}(request)`"
        ) from None
    return function


def _plugin_source(name: str) -> Path:
    module_name = name.partition(":")[0]
    see_working_folder()
    try:
        spec = importlib.util.find_spec(module_name)
    except (ImportError, ValueError) as error:
        raise InputError(
            f"contrast.plugin ({name}): {module_name} can't be found: {in_words(error)}; correct the name"
        ) from None
    if spec is None or not spec.origin or not os.path.isfile(spec.origin):
        raise InputError(
            f"contrast.plugin ({name}): no source file of {module_name} is found: correct the name, or start "
            "music-ray in the folder that holds the module"
        )
    return Path(spec.origin)


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:_HASH_LETTERS]
