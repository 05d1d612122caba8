"""The rendered files are what the parameters give; every parameter stands in one place and has an effect."""

import copy
import re
import subprocess
import sys

import jinja2
import pytest

from music_ray.errors import ConfigError
from tests.cluster.files import CLUSTER, RENDERED, ROOT, leaves, script

render = script("render")
PARAMETERS = render.load_parameters(CLUSTER / "parameters.yaml")
OWN = {key: value for key, value in PARAMETERS.items() if key != "versions"}


def changed(path, value):
    parameters = copy.deepcopy(PARAMETERS)
    place = parameters
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return parameters


def test_the_files_in_the_repository_are_what_the_parameters_give() -> None:
    files = render.render(PARAMETERS)
    assert {path.name: path.read_text() for path in RENDERED.iterdir()} == files


def test_the_check_notices_a_file_that_was_edited_by_hand(tmp_path) -> None:
    command = [sys.executable, str(CLUSTER / "render.py"), "--out", str(tmp_path)]
    assert subprocess.run(command, capture_output=True).returncode == 0
    assert subprocess.run([*command, "--check"]).returncode == 0
    (tmp_path / "aws.yaml").write_text("cluster_name: mine\n")
    done = subprocess.run([*command, "--check"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "aws.yaml is not what the parameters give: run python cluster/render.py" in done.stderr


@pytest.mark.parametrize(
    ("path", "value"), leaves(OWN), ids=lambda one: ".".join(map(str, one)) if isinstance(one, tuple) else ""
)
def test_every_parameter_has_an_effect(path, value) -> None:
    if path == ("config",):
        other = "configs/single-gpu.yaml"
    elif isinstance(value, int):
        other = value + 1
    else:
        other = value + "x"
    assert render.render(changed(path, other)) != render.render(PARAMETERS)


def test_what_differs_between_sites_stands_in_the_parameters_alone() -> None:
    """A value that a template repeats would be changed in one place and forgotten in the other."""
    text = "".join(path.read_text() for path in (CLUSTER / "templates").iterdir())
    special = [
        value
        for _, value in leaves(OWN)
        if isinstance(value, str) and len(value) > 8 and value != "music-ray"
    ]
    assert [value for value in special if value in text] == []


def test_a_parameter_that_is_missing_is_named() -> None:
    parameters = copy.deepcopy(PARAMETERS)
    del parameters["aws"]["image"]
    with pytest.raises(jinja2.UndefinedError, match="image"):
        render.render(parameters)


def test_what_is_left_to_fill_in_is_listed() -> None:
    left = render.placeholders(render.render(PARAMETERS))
    assert left["slurm.sbatch"] == ["REPLACE-PARTITION"]
    assert "ami-REPLACE" in left["aws.yaml"] and "REPLACE-REGISTRY/music-ray:REPLACE-TAG" in left["gcp.yaml"]
    filled = copy.deepcopy(PARAMETERS)
    for path, value in leaves(OWN):
        if isinstance(value, str):
            filled = _set(filled, path, value.replace("REPLACE", "mine").lower())
    assert render.placeholders(render.render(filled)) == {}


def _set(parameters, path, value):
    place = parameters
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return parameters


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("groups", "generation", "cpus"), 8, "onto spot nodes: lower it below that"),
        (("groups", "generation", "cpus"), 3, "is too small for an engine"),
        (("groups", "generation", "gpus"), 0, "is too small for an engine"),
        (
            ("groups", "training", "gpus"),
            4,
            "has 4 gpus, and the 8 training workers of configs/gemma2-9b.yaml want 8",
        ),
        (
            ("groups", "training", "cpus"),
            63,
            "has 63 cpus, and the 8 training workers of configs/gemma2-9b.yaml want 64",
        ),
    ],
)
def test_sizes_that_do_not_fit_the_run_are_refused(path, value, message) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        render.check_sizes(changed(path, value))


def test_a_cluster_that_only_generates_is_no_mistake() -> None:
    render.check_sizes(changed(("groups", "training", "max_nodes"), 0))


def test_the_run_exists_and_the_ray_version_is_the_locked_one() -> None:
    assert (ROOT / PARAMETERS["config"]).is_file()
    lock = (ROOT / "requirements-gpu.lock").read_text()
    assert f"\nray=={PARAMETERS['versions']['ray']}\n" in lock
