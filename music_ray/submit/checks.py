"""What a job could not do on another machine, found before it costs anything.

Paths of the configuration against what is sent. It does not look at the nodes: absolute paths and URIs are
taken to be there, and the job says within its first minute where they are not.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from music_ray.config import EngineConfig, RunConfig
from music_ray.config.load import keys_with_credentials
from music_ray.errors import ConfigError, InputError
from music_ray.plugins import module_file
from music_ray.prompts import own
from music_ray.submit.package import Package

_CREDENTIALS = re.compile(r"://[^/\s]*@")


def check_place(config: RunConfig, overrides: Sequence[str]) -> None:
    """Refuses a run that would write where nobody finds it, or tell secrets to the cluster.

    Raises:
        ConfigError: a relative runs_dir, ray.address, or credentials in the command.
    """
    named = [word.partition("=")[0] for word in overrides if _CREDENTIALS.search(word)]
    for key in [*named, *keys_with_credentials(config)]:
        raise ConfigError(
            f"{key} holds credentials: Ray shows a job's command to everybody who reaches the cluster; give "
            "the nodes a role that may use the store, or the keys in their environment"
        )
    if "://" not in config.runs_dir:
        if config.runs_dir.startswith("~"):
            raise ConfigError(
                f"runs_dir ({config.runs_dir}) is another folder for every user and machine: write the path "
                "of shared storage in full, or a URI such as s3://bucket/runs"
            )
        if not os.path.isabs(config.runs_dir):
            raise ConfigError(
                f"runs_dir ({config.runs_dir}) is relative: a job works in a temporary copy of the working "
                "directory, and the results would be lost with it; set runs_dir to a URI such as "
                "s3://bucket/runs or to an absolute path on storage that all nodes see"
            )
    if config.ray.address not in (None, "auto"):
        raise ConfigError(
            f"ray.address ({config.ray.address}) would lead the job away from the cluster that it is "
            "submitted to: leave it empty (ray.address=null), and say where to submit with --address"
        )


def path_inside(folder: Path, config_file: str) -> str:
    """The configuration file's path inside the working directory.

    Raises:
        ConfigError: it lies outside.
    """
    inside = _inside(folder, config_file)
    if inside is None:
        raise ConfigError(
            f"{config_file} lies outside of the working directory {folder}, of which a copy goes with the "
            "job: start music-ray in the folder that holds it, or copy it here"
        )
    return inside


def check_files(config: RunConfig, config_file: str, package: Package) -> None:
    """Every local file that the configuration names goes with the job.

    Raises:
        InputError: one does not exist, or the contrast template is broken.
        ConfigError: one is not sent.
    """
    _check_sent("the configuration", config_file, package)
    if config.contrast.template:
        own.check(config.contrast, config.generate.turns)
    for key, path in _named_files(config):
        if not os.path.exists(package.folder / path):
            raise InputError(f"no file or folder at {path}: correct {key}")
        _check_sent(key, path, package)
    for key, path in _named_models(config):
        if _is_relative(path) and (path.startswith(".") or os.path.isdir(package.folder / path)):
            _check_sent(key, path, package)
    for key, name in _named_functions(config):
        file = module_file(name.partition(":")[0])
        inside = _inside(package.folder, str(file)) if file else None
        if inside is not None and "site-packages" not in Path(inside).parts:  # else a package of this machine
            _check_sent(f"{key} ({name})", inside, package)


def _check_sent(key: str, path: str, package: Package) -> None:
    inside = _inside(package.folder, path)
    if inside is None:
        raise ConfigError(
            f"{key} names {path}, outside of the working directory {package.folder}, of which a copy goes "
            "with the job: copy it here, or name a URI or an absolute path on storage that the nodes see"
        )
    if not package.holds(inside):
        raise ConfigError(
            f"{key} names {path}, which is not sent with the job: .gitignore, .rayignore or an exclude of "
            "submit (--dry-run lists them) names it; move it, or name a URI or an absolute path on storage "
            "that the nodes see"
        )


def _named_files(config: RunConfig) -> Iterator[tuple[str, str]]:
    """Keys and relative paths of files that must exist."""
    for source in config.data.sources:
        if source.path and source.path != "sample" and _is_relative(source.path):
            yield "data.sources", source.path
    template = config.contrast.template
    if template and "\n" not in template and _is_relative(template):
        yield "contrast.template", template
    gates = config.pairs.gates
    for entry in gates.eval_sets if gates.eval_overlap else []:
        if entry.path and _is_relative(entry.path):
            yield "pairs.gates.eval_sets", entry.path


def _named_models(config: RunConfig) -> Iterator[tuple[str, str]]:
    """Keys and names of models: folders, or ids of the hub."""
    engines: list[tuple[str, EngineConfig | None]] = [
        ("engine", config.engine),
        ("user.engine", config.user.engine),
        ("contrast.engine", config.contrast.engine),
        ("pairs.judge.engine", config.pairs.judge.engine),
    ]
    for name, engine in engines:
        if engine is None or engine.kind == "scripted":
            continue
        if engine.endpoint is None:
            yield f"{name}.model", engine.model
        elif engine.endpoint.tokenizer:
            yield f"{name}.endpoint.tokenizer", engine.endpoint.tokenizer
    yield "train.base_model", config.train.base_model


def _named_functions(config: RunConfig) -> Iterator[tuple[str, str]]:
    if config.contrast.plugin:
        yield "contrast.plugin", config.contrast.plugin
    for name in config.pairs.gates.plugins:
        yield "pairs.gates.plugins", name


def _is_relative(path: str) -> bool:
    return "://" not in path and not os.path.isabs(os.path.expanduser(path))


def _inside(folder: Path, path: str) -> str | None:
    """A path relative to the folder, None where it leads out of it."""
    inside = os.path.relpath(os.path.join(folder, path), folder)
    if inside.startswith(os.pardir):  # the same place may be reached by a link
        inside = os.path.relpath(os.path.realpath(os.path.join(folder, path)), os.path.realpath(folder))
    return None if inside == os.pardir or inside.startswith(f"{os.pardir}{os.sep}") else inside
