"""The reward models that a user names, as local folders: a folder, an id of the hub, or an untrained model.

`untrained:RUN` is what a run's training started from: its base model with the first random head. Nothing of a
hub model is downloaded but weights as safetensors, configuration and tokenizer: no code, no pickles.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from pathlib import Path
from typing import Any

from music_ray.config.load import load_config
from music_ray.errors import InputError
from music_ray.models import resolve_model, resolve_revision
from music_ray.progress import say
from music_ray.rundir import RunDir, digest

UNTRAINED = "untrained:"
_HUB_ID = re.compile(r"([\w.-]+/[\w.-]+?)(?:@([\w./-]+))?")
_DECIDE = (".safetensors", ".json", ".jinja", ".model", ".txt")
"""Suffixes of the files that decide what a model is."""
_DOWNLOADED = [f"*{suffix}" for suffix in _DECIDE]
_END_BYTES = 8 * 2**20


def local_model(name: str, out: RunDir) -> str:
    """The folder of a reward model; whether it is one is found where it is opened.

    Args:
        name: a folder, OWNER/NAME[@REVISION] of the hub, or untrained:RUN.
        out: the evaluation's folder; an untrained model is written there.

    Raises:
        InputError: the hub has no such model or can't be reached, or the run folder is none.
    """
    if name.startswith(UNTRAINED):
        return _untrained(name.removeprefix(UNTRAINED), out)
    hub = _HUB_ID.fullmatch(name)
    if Path(name).expanduser().exists() or name.startswith((".", "/", "~")) or hub is None:
        return name
    return _downloaded(hub[1], hub[2])


def _downloaded(name: str, revision: str | None) -> str:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    commit = resolve_revision(name, revision)
    say(f"evaluate: fetching {name} at {commit or 'its default branch'}, or finding it in the hub's cache")
    try:
        return snapshot_download(name, revision=commit, allow_patterns=_DOWNLOADED)
    except (HfHubHTTPError, HTTPError, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"cannot download {name}: {reason}; check the network and the disk, or name a model folder"
        ) from None


def _untrained(run: str, out: RunDir) -> str:
    config_file = Path(run).expanduser() / "config.yaml"
    if not config_file.is_file():
        raise InputError(
            f"{run} is no run folder on this machine: {UNTRAINED}RUN wants one such as runs/demo"
        )
    if not out.is_local:
        raise InputError(
            f"{UNTRAINED}{run} is written below --out, which must be a folder of this machine then, not "
            f"{out.display()}"
        )
    config = load_config(config_file)
    train = config.train
    base = resolve_model(train.base_model)
    # By what it is made from, not by where that lies: another base in the old place makes another model.
    which = _contents(Path(base)) if Path(base).is_dir() else base
    made_from = [which, train.revision, train.num_layers, train.precision, config.seed]
    folder = Path(out.path("models", f"untrained-{digest(made_from)[:8]}"))
    if not folder.is_dir():
        say(f"evaluate: writing the model that {run} started from to {folder}")
        _write_untrained(config, base, folder)
    return str(folder)


def _contents(folder: Path) -> dict[str, str]:
    """A digest of each file of a model's folder: of its size and both ends, for weights are gigabytes."""
    found = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix in _DECIDE:
            size = path.stat().st_size
            with path.open("rb") as handle:
                start = handle.read(_END_BYTES)
                handle.seek(max(size - _END_BYTES, 0))
                found[path.name] = hashlib.sha256(b"%d " % size + start + handle.read()).hexdigest()
    return found


def _write_untrained(config: Any, base: str, folder: Path) -> None:
    """The folder appears only when it is complete."""
    from music_ray import reward_model
    from music_ray.chat import ChatFormat

    train = config.train
    model = reward_model.load_reward_model(
        base,
        revision=train.revision,
        num_layers=train.num_layers,
        dtype="bfloat16" if train.precision == "bfloat16" else "float32",
        head_seed=reward_model.head_seed(config.seed),
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".writing-") as temporary:
        complete = Path(temporary) / "model"
        model.save_pretrained(complete)
        ChatFormat.load(base, train.revision).tokenizer.save_pretrained(complete)
        complete.rename(folder)
