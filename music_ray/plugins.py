"""Functions that a user names as `module:function`: how their modules are found and imported.

What such a function must look like, and what becomes of its answers, is the business of those who call it.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType

from music_ray.errors import InputError


def import_named(module_name: str, label: str) -> ModuleType:
    """A user's module.

    Args:
        label: the configuration key and the name, with which the message begins.

    Raises:
        InputError: it can't be imported.
    """
    see_working_folder()
    try:
        return importlib.import_module(module_name)
    except Exception as error:  # whatever its import raises is a mistake in it
        raise InputError(
            f"{label} can't be imported: {in_words(error)}; correct the name, or start music-ray in the "
            "folder that holds the module"
        ) from None


def module_file(module_name: str) -> Path | None:
    """The source file of a module, found without running any of it; None where there is none."""
    see_working_folder()
    first, *rest = module_name.split(".")
    try:
        spec = importlib.util.find_spec(first)
    except ValueError:  # a module that was not made from a file
        return None
    for name in rest:
        folders = spec.submodule_search_locations if spec else None
        # As importlib.util would, which runs the packages around it first.
        spec = PathFinder.find_spec(f"{spec.name}.{name}", folders) if spec and folders else None
    return Path(spec.origin) if spec and spec.origin and os.path.isfile(spec.origin) else None


def see_working_folder() -> None:
    """The command `music-ray` does not look for modules where it is started; `python -m music_ray` does.

    Last, so that no file there can stand in for an installed package.
    """
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    importlib.invalidate_caches()


def in_words(error: Exception) -> str:
    """An error as one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
