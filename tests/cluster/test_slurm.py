"""The Slurm file: bash takes it, its options are sbatch's, and what it would run is parsed by Ray itself."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.cluster.commands import check
from tests.cluster.files import RENDERED, ROOT

SCRIPT = RENDERED / "slurm.sbatch"
# From the manual of sbatch.
SBATCH_OPTIONS = {
    "job-name", "partition", "nodes", "ntasks-per-node", "cpus-per-task", "gpus-per-node", "exclusive",
    "time", "requeue", "open-mode",
}  # fmt: skip


def options() -> dict[str, str]:
    lines = re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?$", SCRIPT.read_text(), flags=re.MULTILINE)
    assert len(lines) == SCRIPT.read_text().count("#SBATCH")
    return dict(lines)


def test_bash_takes_it() -> None:
    subprocess.run(["bash", "-n", SCRIPT], check=True)


def test_the_options_are_sbatchs_and_stand_before_the_first_command() -> None:
    assert options().keys() == SBATCH_OPTIONS
    assert re.fullmatch(r"\d+-\d\d:\d\d:\d\d", options()["time"])
    text = SCRIPT.read_text()
    assert text.rindex("#SBATCH") < text.index("set -euo pipefail")  # sbatch reads none after a command


@pytest.fixture
def slurm(tmp_path: Path) -> Path:
    """A home with a token, and programs that stand for Slurm's: srun writes down what it is to run."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, body in {
        "scontrol": 'printf "node7\\nnode8\\n"',
        "srun": (
            'case "$*" in *hostname*) echo "10.0.0.7 fe80::1" ;; *) printf "%s\\0" "$@" > "$HOME/ran" ;; esac'
        ),
    }.items():
        (programs / name).write_text(f"#!/bin/bash\n{body}\n")
        (programs / name).chmod(0o755)
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray/auth_token").write_text("a token")
    return tmp_path


def run(home: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    own = {
        "HOME": str(home),
        "PATH": f"{home}/bin:{os.environ['PATH']}",
        "SLURM_JOB_ID": "123456",
        "SLURM_JOB_NODELIST": "node[7-8]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_PER_TASK": "88",
        "VENV": str(home / "venv"),
        "RUNS_DIR": "/shared/runs",
    }
    command = ["bash", str(SCRIPT), *words]
    return subprocess.run(command, env=own | environment, cwd=ROOT, capture_output=True, text=True)


def test_what_it_runs_on_every_node_is_taken_by_ray_and_by_music_ray(slurm: Path) -> None:
    done = run(slurm, "engine.max_engines=8")
    assert done.returncode == 0, done.stderr
    words = (slurm / "ran").read_text().split("\0")[:-1]
    # Since Slurm 22.05 srun has not the job's own, and may bind all that it starts to one core.
    assert words[:2] == ["--kill-on-bad-exit=1", "--cpus-per-task=88"]
    command = words[words.index("ray") :]
    assert check(command) == "ray symmetric-run"
    # Without ray.address music_ray would start a Ray of its own on the first node and leave the others idle.
    assert command[:5] == ["ray", "symmetric-run", "--address", "10.0.0.7:23456", "--min-nodes"]
    assert {"ray.address=10.0.0.7:23456", "runs_dir=/shared/runs", "engine.max_engines=8"} <= set(command)
    assert "--dashboard-host=127.0.0.1" in command
    assert f"--num-cpus={options()['cpus-per-task']}" in command
    assert f"--num-gpus={options()['gpus-per-node']}" in command


def test_without_a_token_or_a_place_for_the_runs_nothing_is_started(slurm: Path) -> None:
    done = run(slurm, RUNS_DIR="")
    assert done.returncode != 0 and "RUNS_DIR: set it to a folder that all nodes share" in done.stderr
    (slurm / ".ray/auth_token").unlink()
    done = run(slurm)
    assert done.returncode == 2 and "ray get-auth-token --generate' once" in done.stderr
    assert not (slurm / "ran").exists()


def test_an_address_that_no_other_node_reaches_is_refused(slurm: Path) -> None:
    srun = slurm / "bin/srun"
    srun.write_text(srun.read_text().replace("10.0.0.7 fe80::1", "127.0.1.1"))
    done = run(slurm)
    assert done.returncode == 2 and "node7 knows itself as 127.0.1.1 only" in done.stderr
    assert not (slurm / "ran").exists()


def test_token_authentication_is_on_for_all_of_it() -> None:
    text = SCRIPT.read_text()
    assert text.index("export RAY_AUTH_MODE=token") < text.index("ray symmetric-run \\")


def test_the_environment_variables_are_rays() -> None:
    import ray._common.utils
    from ray.scripts import symmetric_run

    assert '"RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT"' in Path(symmetric_run.__file__).read_text()
    assert '"RAY_TMPDIR"' in Path(ray._common.utils.__file__).read_text()
    for name in ("RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT", "RAY_TMPDIR"):
        assert f"export {name}=" in SCRIPT.read_text()
