"""Gates of the user's own: functions named in pairs.gates.plugins.

A plug-in takes a rollout and returns what is wrong with it, or an empty string. This module finds it and
turns its mistakes into messages; what it looks at is its own affair.
"""

from __future__ import annotations

from typing import Any

from music_ray.errors import InputError, StageError
from music_ray.generate.gates.base import Check
from music_ray.plugins import import_named, in_words
from music_ray.schema import Rollout


def load_plugin(name: str) -> Check:
    """The gate that `module:function` names.

    Raises:
        InputError: the module can't be imported, or has no such function.
    """
    module_name, _, function_name = name.partition(":")
    module = import_named(module_name, f"pairs.gates.plugins: {name}")
    function = getattr(module, function_name, None)
    if not callable(function):
        raise InputError(
            f"pairs.gates.plugins: {module_name} has no function {function_name}: define "
            f"`def {function_name}(rollout)`, or correct the name"
        )
    return _guarded(name, function)


def _guarded(name: str, function: Any) -> Check:
    def check(rollout: Rollout) -> str:
        try:
            detail = function(rollout)
        except Exception as error:  # a user's function may raise anything
            raise StageError(
                f"the gate {name} (pairs.gates.plugins) failed on the rollout {rollout.id}: "
                f"{in_words(error)}; mend it, or take it out of pairs.gates.plugins"
            ) from error
        if not isinstance(detail, str):
            raise StageError(
                f"the gate {name} (pairs.gates.plugins) returned {detail!r} for the rollout {rollout.id}: it "
                "must return text, empty when the rollout passes"
            )
        return detail

    return check
