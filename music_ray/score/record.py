"""score.json: what a folder of scores was made from, and whether a command may go on with it."""

from __future__ import annotations

import json
from typing import Any

from music_ray.errors import RunFolderError
from music_ray.rundir import RunDir
from music_ray.storage import entries

FILE = "score.json"
LONGEST = "max_model_len"
"""Key of the record: engine.max_model_len of the last start; older folders lack it."""
FACTORS = "position_factors"
"""Key of made_from: short or long, where the longest conversation decides all scores of a model."""
_LOCKS = ("lock.json",)
"""What a command that was killed before it wrote anything leaves on an object store."""


def read_record(run: RunDir) -> dict[str, Any]:
    """The record, or an empty one.

    Raises:
        RunFolderError: it is damaged.
    """
    if not run.exists(FILE):
        return {}
    try:
        record = json.loads(run.read_text(FILE))
        return {**record, "made_from": dict(record["made_from"])}
    except (ValueError, TypeError, KeyError) as error:
        raise RunFolderError(
            f"{run.display(FILE)} is damaged ({error}): name another folder with --out"
        ) from None


def write_record(run: RunDir, record: dict[str, Any]) -> None:
    """Replaces the record."""
    run.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", FILE)


def check_folder(run: RunDir, made_from: dict[str, str]) -> None:
    """Refuses a folder that holds something else; writes nothing.

    Args:
        made_from: digests of model and input, engine, dtype, and perhaps position_factors.

    Raises:
        RunFolderError: scores of another model, input, engine, number format or position factors, or no
            scores at all.
    """
    record = read_record(run)
    if not record:
        _check_empty(run)
        return
    before = record["made_from"]
    for name in ("model", "input"):
        if before.get(name) != made_from[name]:
            raise RunFolderError(
                f"{run.display()} holds scores of another {name} ({record.get(name)}, digest "
                f"{before.get(name)}; now it is {made_from[name]}): name a new folder with --out"
            )
    for name, key in (("engine", "score.engine"), ("dtype", "engine.dtype")):
        if before.get(name) != made_from[name]:
            raise RunFolderError(
                f"{run.display()} was made with {key}={before.get(name)}, now it is {made_from[name]}: set "
                f"{key}={before.get(name)}, or name a new folder with --out"
            )
    if before.get(FACTORS) != made_from.get(FACTORS):
        bound = f"engine.max_model_len={record.get(LONGEST)}"
        raise RunFolderError(
            f"{run.display()} was made with {bound}, for which vLLM takes this model's {before.get(FACTORS)} "
            f"position factors, and now the {made_from.get(FACTORS)} ones, which change every score: "
            f"set {bound}, or name a new folder with --out"
        )


def _check_empty(run: RunDir) -> None:
    names = sorted(info.base_name for info in entries(run.fs, run.path()))
    others = [name for name in names if not name.startswith(".") and name not in _LOCKS]
    if others:
        raise RunFolderError(f"{run.display()} holds {others[0]} and no {FILE}: name a new folder with --out")
