"""The lock files and pyproject.toml say the same, and nothing that belongs to one machine."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CPU_LOCK = ROOT / "requirements-cpu.lock"
GPU_LOCK = ROOT / "requirements-gpu.lock"


def pinned(lock: Path) -> dict[str, Version]:
    lines = re.findall(r"^([\w.-]+)==(\S+)$", lock.read_text(), flags=re.MULTILINE)
    return {canonicalize_name(name): Version(version) for name, version in lines}


@pytest.mark.parametrize(
    ("lock", "extras"), [(CPU_LOCK, ["cpu", "dev"]), (GPU_LOCK, ["gpu"])], ids=["cpu", "gpu"]
)
def test_every_dependency_is_locked_within_its_range(lock: Path, extras: list[str]) -> None:
    versions = pinned(lock)
    asked_for = list(PROJECT["dependencies"])
    for extra in extras:
        asked_for += PROJECT["optional-dependencies"][extra]
    stale = [
        text
        for text in asked_for
        if (requirement := Requirement(text)).name not in versions
        or versions[canonicalize_name(requirement.name)] not in requirement.specifier
    ]
    assert not stale, f"{lock.name} is older than pyproject.toml: run `make lock`"


def test_both_locks_hold_the_same_versions_of_what_decides_the_numbers() -> None:
    cpu, gpu = pinned(CPU_LOCK), pinned(GPU_LOCK)
    shared = ["accelerate", "datasets", "deepspeed", "numpy", "peft", "pyarrow", "ray"]
    shared += ["torch", "transformers"]
    assert {name: cpu[name] for name in shared} == {name: gpu[name] for name in shared}


def test_the_cpu_lock_holds_no_cuda_packages() -> None:
    names = pinned(CPU_LOCK)
    unwanted = {"vllm", "torchvision", "torchaudio", "torchcodec", "triton"}
    assert unwanted.isdisjoint(names)
    assert not [name for name in names if name.startswith(("nvidia-", "cuda-"))]


@pytest.mark.parametrize("lock", [CPU_LOCK, GPU_LOCK], ids=["cpu", "gpu"])
def test_a_lock_is_fully_pinned_and_names_no_place(lock: Path) -> None:
    lines = [line for line in lock.read_text().splitlines() if line and not line.lstrip().startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.!]+", line)] == []


def test_the_scripts_parse_and_can_be_called() -> None:
    for name in ["cluster/install.sh", "cluster/lock.sh", ".ci/run"]:
        assert (ROOT / name).stat().st_mode & 0o111, f"{name} is not executable"
        subprocess.run(["bash", "-n", name], cwd=ROOT, check=True)


def test_the_set_up_refuses_a_folder_that_is_no_environment(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("not to be overwritten")
    done = subprocess.run(
        [ROOT / "cluster" / "install.sh"],
        env={**os.environ, "VENV": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "is no virtual environment" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]
