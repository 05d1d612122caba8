"""The cluster files as these tests read them."""

import functools
import importlib.util
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from music_ray.progress import quieten_libraries

# These tests import Ray early in a process that others share, and Ray reads its settings only then: the same
# as music_ray.ray_session makes.
quieten_libraries()
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "cluster"
RENDERED = CLUSTER / "rendered"
VM_FILES = ["aws.yaml", "gcp.yaml"]
GROUPS = ["cpu", "generation", "training"]


def script(name: str) -> ModuleType:
    """A script of cluster/, which is no package, as a module."""
    spec = importlib.util.spec_from_file_location(f"cluster_{name}", CLUSTER / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@functools.cache
def _documents(name: str) -> str:
    return (RENDERED / name).read_text()


def documents(name: str) -> list[dict[str, Any]]:
    """The YAML documents of a rendered file, anew at each call."""
    return list(yaml.safe_load_all(_documents(name)))


def rendered(name: str) -> dict[str, Any]:
    (only,) = documents(name)
    return only


def ray_cluster(name: str) -> dict[str, Any]:
    """A RayCluster as the operator would make it from the file: the job's under a name of its own."""
    resource = rendered(name)
    spec = resource["spec"] if resource["kind"] == "RayCluster" else resource["spec"]["rayClusterSpec"]
    return {"kind": "RayCluster", "metadata": resource["metadata"], "spec": spec}


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[tuple[Any, ...], Any]]:
    """Every value that is neither mapping nor list, with the way to it."""
    if isinstance(value, dict):
        return [leaf for key, inner in value.items() for leaf in leaves(inner, (*path, key))]
    if isinstance(value, list):
        return [leaf for index, inner in enumerate(value) for leaf in leaves(inner, (*path, index))]
    return [(path, value)]
