"""The errors a user can meet, and the exit code of each.

A message names the value, the bound and the remedy. This module knows nothing of any stage: the
command line turns these into one printed line and an exit code; everything else that escapes is a
bug in music_ray and keeps its traceback.
"""

from __future__ import annotations

EXIT_OK = 0
EXIT_BUG = 1
EXIT_USER = 2
EXIT_STAGE = 3
EXIT_AGAIN = 75
"""EX_TEMPFAIL of sysexits.h."""
EXIT_INTERRUPTED = 130


class MusicRayError(ValueError):
    """Base of all errors that are meant for the user."""

    exit_code = EXIT_USER


class ConfigError(MusicRayError):
    """The configuration is wrong: an unknown key, a value out of bounds, an impossible combination."""


class InputError(MusicRayError):
    """A file, dataset or model that the user named is missing or cannot be used."""


class RunFolderError(MusicRayError):
    """The run folder does not fit the configuration, or another driver is using it."""


class EnvironmentLacksError(MusicRayError):
    """The machine lacks something: disk space, a C++ compiler, a package, a GPU."""


class StageError(MusicRayError):
    """A stage ran and could not reach its end; the run folder is left so that it can go on."""

    exit_code = EXIT_STAGE


class TransientError(StageError):
    """A stage ended for a cause that passes by itself, so that the same command is worth another try.

    A cap, a bad canary or too many errors are no such cause: they would come again.
    """

    exit_code = EXIT_AGAIN
