"""The command: a table for people, JSON for machines, at once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from music_ray.planning.show import number, print_plan
from tests.planning.conftest import MakeRun, add_rollouts, add_seeds

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "music_ray", "plan", *arguments],
        cwd=cwd, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["demo", "single-gpu", "gemma2-9b"])
def test_every_shipped_configuration_can_be_planned_and_nothing_is_written(name: str, tmp_path: Path) -> None:
    done = command(f"{CONFIGS}/{name}.yaml", "--json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    plan = json.loads(done.stdout)
    assert (plan["plan_version"], plan["name"]) == (1, name)
    assert list(tmp_path.iterdir()) == []


def test_a_plan_over_its_caps_is_still_a_plan(tmp_path: Path) -> None:
    done = command(f"{CONFIGS}/gemma2-9b.yaml", "limits.max_tokens=1000", cwd=tmp_path)
    assert done.returncode == 0
    assert "Plan of gemma2-9b: 36,000 seeds" in done.stdout
    assert "WARNING: the rollouts are expected to take" in done.stdout
    assert "calls of the user simulator" in done.stdout


def test_it_loads_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from music_ray.config.load import load_config\n"
        "from music_ray.rundir import RunDir\n"
        "from music_ray.planning.make import write_plan\n"
        "from music_ray.planning.show import print_plan\n"
        f"print_plan(write_plan(RunDir(load_config({str(CONFIGS / 'gemma2-9b.yaml')!r}, []))))\n"
        "heavy = {'torch', 'ray', 'vllm', 'transformers', 'datasets', 'sklearn', 'scipy', 'deepspeed'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_table_says_what_is_there_already(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    from music_ray.planning.make import make_plan

    run = make_run()
    add_seeds(run)
    add_rollouts(run, 60)
    print_plan(make_plan(run)[0])
    line = next(line for line in capsys.readouterr().out.splitlines() if "calls of the assistant" in line)
    assert [cell.strip() for cell in line.strip("│").split("│")][2:6] == ["240", "", "480", ""]


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (None, "", ""), (1234567.8, "tokens", "1,234,568"), (12.346, "GPU hours", "12.35"),
        (7.0, "calls", "7"), (0.061, "of its pairs", "6.1%"), (0.0, "USD", "0"),
    ],
)  # fmt: skip
def test_numbers(value: float | None, unit: str, shown: str) -> None:
    assert number(value, unit) == shown
