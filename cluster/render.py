#!/usr/bin/env python
"""Makes the cluster files in rendered/ from parameters.yaml and templates/.

    python cluster/render.py                         write rendered/
    python cluster/render.py --check                 is rendered/ up to date? (exit code 1: it is not)
    python cluster/render.py --parameters my.yaml --out my-cluster

Refuses parameters under which the run that they are made for could not be placed, or would be placed
where it costs more. Does not know any cloud: nothing is looked up, nothing is started.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

import jinja2
import yaml

from music_ray.config.load import load_config
from music_ray.errors import ConfigError

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent
PLACEHOLDER = re.compile(r"[\w./:@-]*REPLACE[\w./:@-]*")


def load_parameters(path: Path) -> dict[str, Any]:
    """The parameters, with the versions that the lock file holds under `versions`."""
    parameters = yaml.safe_load(path.read_text(encoding="utf-8"))
    lock = (ROOT / "requirements-gpu.lock").read_text(encoding="utf-8")
    parameters["versions"] = dict(re.findall(r"^([\w.-]+)==(\S+)$", lock, flags=re.MULTILINE))
    return parameters


def check_sizes(parameters: dict[str, Any]) -> None:
    """Whether the groups fit the run that they are made for.

    Raises:
        ConfigError: an engine or a training worker would fit no node, or the wrong one.
    """
    run = load_config(ROOT / parameters["config"])
    engine, train = run.engine, run.train
    generation, training = parameters["groups"]["generation"], parameters["groups"]["training"]
    where = parameters["config"]
    if generation["cpus"] < engine.cpus_per_engine or generation["gpus"] < engine.gpus_per_engine:
        raise ConfigError(
            f"groups.generation ({generation['cpus']} CPUs, {generation['gpus']} GPUs) is too small for an "
            f"engine of {where} ({engine.cpus_per_engine:g} CPUs, {engine.gpus_per_engine:g} GPUs): raise it"
        )
    if generation["cpus"] >= train.cpus_per_worker:
        raise ConfigError(
            f"groups.generation.cpus ({generation['cpus']}) lets training workers of {where} "
            f"(train.cpus_per_worker {train.cpus_per_worker:g}) onto spot nodes: lower it below that"
        )
    wanted = {"cpus": train.num_workers * train.cpus_per_worker, "gpus": train.num_workers}
    for kind, amount in wanted.items():
        there = training["max_nodes"] * training[kind]
        if 0 < there < amount:  # none at all is a choice: a cluster that only generates
            raise ConfigError(
                f"groups.training has {there} {kind}, and the {train.num_workers} training workers of "
                f"{where} want {amount:g}: raise groups.training.max_nodes or .{kind}"
            )


def render(parameters: dict[str, Any]) -> dict[str, str]:
    """File name → text, for every template whose name does not begin with an underscore."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER / "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701  (YAML and shell of our own parameters, no HTML)
    )
    names = sorted(path.name for path in (FOLDER / "templates").glob("[!_]*.j2"))
    return {name.removesuffix(".j2"): environment.get_template(name).render(parameters) for name in names}


def placeholders(files: dict[str, str]) -> dict[str, list[str]]:
    """File name → what is still to be replaced in it; files without any are left out."""
    found = {name: sorted(set(PLACEHOLDER.findall(text))) for name, text in files.items()}
    return {name: values for name, values in found.items() if values}


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Make the cluster files from the parameters.")
    parser.add_argument("--parameters", type=Path, default=FOLDER / "parameters.yaml")
    parser.add_argument("--out", type=Path, default=FOLDER / "rendered")
    parser.add_argument("--check", action="store_true", help="write nothing, only compare")
    options = parser.parse_args(words)
    try:
        parameters = load_parameters(options.parameters)
        check_sizes(parameters)
        files = render(parameters)
    except (OSError, ConfigError, yaml.YAMLError, jinja2.UndefinedError) as error:
        sys.stderr.write(f"render: {error}\n")
        return 2
    if options.check:
        return _compare(files, options.out)
    options.out.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (options.out / name).write_text(text, encoding="utf-8")
        sys.stdout.write(f"{options.out / name}\n")
    for name, values in placeholders(files).items():
        sys.stdout.write(f"still to be filled in for {name}: {', '.join(values)}\n")
    return 0


def _compare(files: dict[str, str], out: Path) -> int:
    there = {path.name: path.read_text(encoding="utf-8") for path in out.glob("*")} if out.is_dir() else {}
    differing = sorted(name for name in files.keys() | there.keys() if files.get(name) != there.get(name))
    for name in differing:
        sys.stderr.write(
            f"render: {out / name} is not what the parameters give: run python cluster/render.py\n"
        )
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
