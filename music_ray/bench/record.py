"""What a benchmark has found, as a JSON file that tables and reports are made from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from music_ray.progress import duration, say


def write_facts(path: str | Path, facts: Mapping[str, Any], *, tell: bool = True) -> None:
    """Writes the file, with the folders above it.

    Args:
        facts: JSON values; `seconds`, if it is there, is what the benchmark took.
        tell: say so; False where this is not the last time that the file is written.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    if tell:
        say(f"{target} written" + (f" after {duration(facts['seconds'])}" if "seconds" in facts else ""))
