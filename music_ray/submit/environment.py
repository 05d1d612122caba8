"""Environment variables that a job is given: named on the command line, their values never shown.

Ray keeps the values with the job (docs/how-to/gpu-and-cluster.md says where they can be read there), so
variables that the nodes have already should not be given at all.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

from music_ray.errors import ConfigError

_HIDDEN_FROM = 8
"""Values, and lines of values, of so many characters are hidden in the log that is shown. Shorter ones are
words of any log (1, INFO, cuda:0): to hide them would spoil it, and to refuse them would refuse most that is
no secret."""


def job_environment(names: Sequence[str]) -> dict[str, str]:
    """The variables with their values of this environment.

    Raises:
        ConfigError: a name that is none, or a variable that is not set or empty here.
    """
    found = {}
    for name in names:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            # What stands behind '=' may be the secret itself: it is not repeated.
            word = name.partition("=")[0]
            raise ConfigError(
                f"--env {word}{'=…' if '=' in name else ''} is no name of a variable: give its name alone "
                "(--env HF_TOKEN); the value is read from the environment"
            )
        value = os.environ.get(name)
        if not value:
            raise ConfigError(
                f"--env {name}: {name} is {'empty' if value == '' else 'not set'} here: export it first, or "
                "leave --env out if the cluster's nodes have it themselves"
            )
        found[name] = value
    return found


def hidden(text: str, environment: Mapping[str, str]) -> str:
    """A text without the values of the given variables; their names stand in their place.

    A log is shown as its lines come, so that a value of several lines (a key in PEM, JSON of a service
    account) may come in parts: each of its lines is hidden for itself as well.
    """
    secrets: dict[str, str] = {}
    for name, value in environment.items():
        for part in (value, *map(str.strip, value.splitlines())):
            if len(part) >= _HIDDEN_FROM:
                secrets.setdefault(part, name)
    for part, name in sorted(secrets.items(), key=lambda item: -len(item[0])):  # a part of another comes last
        text = text.replace(part, f"<{name}>")
    return text
