"""The token of a server: from the environment, or made up and kept in a file that only its owner can read.

It never stands on a command line, which every user of a machine can see, nor in what is printed.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

from music_ray.errors import ConfigError, EnvironmentLacksError
from music_ray.models import cache_dir
from music_ray.score.gate import TOKEN_VARIABLE

MIN_LENGTH = 16


@contextlib.contextmanager
def serving_token(port: int) -> Iterator[tuple[str, Path | None]]:
    """The token, and the file it was written to where it was made up; the file goes when the block ends.

    Raises:
        ConfigError: the environment's token is too short, or can't stand in a header.
        EnvironmentLacksError: the file can't be written.
    """
    token = os.environ.get(TOKEN_VARIABLE)
    if token is not None:
        if not re.fullmatch(rf"[\x21-\x7e]{{{MIN_LENGTH},}}", token):
            raise ConfigError(
                f"{TOKEN_VARIABLE} must be {MIN_LENGTH} or more visible ASCII characters without spaces: set "
                'another one, e.g. "$(openssl rand -hex 32)", or unset it and one is made up'
            )
        yield token, None
        return
    token = secrets.token_urlsafe(32)
    path = cache_dir() / f"serve-{port}.token"
    try:
        _write(path, token)
    except OSError as error:
        raise EnvironmentLacksError(
            f"the server's token can't be written to {path} ({error}): set {TOKEN_VARIABLE}, or "
            "MUSIC_RAY_CACHE to a folder of yours"
        ) from None
    try:
        yield token, path
    finally:
        path.unlink(missing_ok=True)


def _write(path: Path, token: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # of a server that was killed
    # Created with its mode: no moment in which others could open it, and no link that leads elsewhere.
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as handle:
        handle.write(token)
