"""Gates of the user's own: functions named in pairs.gates.plugins.

A plug-in takes a rollout and returns what is wrong with it, or an empty string. This module finds it and
turns its mistakes into messages; what it looks at is its own affair.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from music_ray.errors import InputError, StageError
from music_ray.generate.gates.base import Check
from music_ray.schema import Rollout


def load_plugin(name: str) -> Check:
    """The gate that `module:function` names.

    Raises:
        InputError: the module can't be imported, or has no such function.
    """
    module_name, _, function_name = name.partition(":")
    if "" not in sys.path and os.getcwd() not in sys.path:
        # The command `music-ray` does not look where it is started, `python -m music_ray` does. Last, so
        # that no file there can stand in for an installed package.
        sys.path.append(os.getcwd())
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever its import raises is a mistake in it
        raise InputError(
            f"pairs.gates.plugins: {name} can't be imported: {_in_words(error)}; correct it, or start "
            "music-ray in the folder that holds the module"
        ) from None
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
                f"{_in_words(error)}; mend it, or take it out of pairs.gates.plugins"
            ) from error
        if not isinstance(detail, str):
            raise StageError(
                f"the gate {name} (pairs.gates.plugins) returned {detail!r} for the rollout {rollout.id}: it "
                "must return text, empty when the rollout passes"
            )
        return detail

    return check


def _in_words(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
