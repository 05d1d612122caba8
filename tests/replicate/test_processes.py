"""Runs side by side: real stages in real processes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from music_ray.config import RunConfig
from music_ray.config.load import resolve_config
from music_ray.errors import MusicRayError, StageError
from music_ray.replicate import processes
from music_ray.replicate.processes import run_at_once
from music_ray.rundir import RunDir

ROOT = Path(__file__).resolve().parents[2]


def a_run(folder: Path, name: str, data: Path) -> RunConfig:
    return resolve_config(
        {
            "name": name,
            "runs_dir": str(folder / "runs"),
            "data": {"sources": [{"path": str(data)}], "held_out_fraction": 0.0},
            "engine": {"kind": "scripted", "cpus_per_engine": 0.25, "max_engines": 1},  # two share two cores
            "contrast": {"mode": "resample"},
            "generate": {"canary": {"seeds": 0}},
        }
    )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    file = tmp_path / "pairs.jsonl"
    with file.open("w") as handle:
        for number in range(5_000):
            asked = [{"role": "user", "content": f"Please tell me about topic {number}."}]
            sides = {
                side: [*asked, {"role": "assistant", "content": f"{side} {number}."}]
                for side in ("chosen", "rejected")
            }
            handle.write(json.dumps(sides) + "\n")
    return file


def test_every_run_comes_to_its_end_and_its_lines_bear_its_name(
    tmp_path: Path, data: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    configs = {name: a_run(tmp_path, name, data) for name in ("one", "two", "three")}
    run_at_once(configs, ["seeds"], 2)
    assert all(RunDir(config).exists("seeds") for config in configs.values())
    lines = capfd.readouterr().out.splitlines()
    for name in configs:
        assert [line for line in lines if line.startswith(f"{name} | seeds: done in ")]
    others = [line for line in lines if line.partition(" | ")[0] not in configs]
    assert others in ([], ["ray: starting a local Ray"])  # one Ray for all, if none was there


def test_a_users_mistake_in_one_is_raised_and_what_waits_is_not_begun(tmp_path: Path, data: Path) -> None:
    nowhere = tmp_path / "nowhere.jsonl"
    files = {"bad": nowhere, "waiting": data}
    configs = {name: a_run(tmp_path, name, file) for name, file in files.items()}
    with pytest.raises(MusicRayError, match=r"^bad ended with exit code 2: .*nowhere\.jsonl") as found:
        run_at_once(configs, ["seeds"], 1)
    assert type(found.value) is MusicRayError
    assert not RunDir(configs["waiting"]).exists("manifest.json")


def test_a_process_that_breaks_down_is_a_stage_error(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "__name__", "music_ray.nothing")
    with pytest.raises(
        StageError, match=r"^one ended with exit code 1: .*No module named music_ray\.nothing"
    ):
        run_at_once({"one": a_run(tmp_path, "one", data)}, ["seeds"], 1)


@pytest.mark.faults
def test_ctrl_c_stops_all_of_them_and_they_go_on(tmp_path: Path, data: Path) -> None:
    configs = {name: a_run(tmp_path, name, data) for name in ("one", "two")}
    for name, config in configs.items():
        (tmp_path / f"{name}.json").write_text(config.model_dump_json())
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from music_ray.config import RunConfig\n"
        "from music_ray.replicate.processes import run_at_once\n"
        "files = [Path(word) for word in sys.argv[1:]]\n"
        "configs = {one.stem: RunConfig.model_validate_json(one.read_text()) for one in files}\n"
        "run_at_once(configs, ['seeds', 'generate'], 2)\n"
    )
    command = [sys.executable, "-c", program, *(str(tmp_path / f"{name}.json") for name in configs)]
    log = tmp_path / "log.txt"
    with log.open("w") as out:
        parent = subprocess.Popen(
            command, stdout=out, stderr=out, cwd=ROOT,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip
    deadline = time.monotonic() + 120
    while not all(f"{name} | ray: connecting to 127.0.0.1:" in log.read_text() for name in configs):
        assert parent.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)
    children = psutil.Process(parent.pid).children()
    os.kill(parent.pid, signal.SIGINT)
    assert parent.wait(60) != 0
    assert psutil.wait_procs(children, timeout=5)[1] == []
    assert [f"{name} | interrupted" in log.read_text() for name in configs] == [True, True], log.read_text()
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert again.returncode == 0, again.stdout[-2000:] + again.stderr[-2000:]
    for config in configs.values():
        ids = [row["id"] for row in RunDir(config).read_rows("rollouts", columns=["id"])]
        assert len(ids) == len(set(ids)) == 5_000
