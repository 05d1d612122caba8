"""The generate stage on a real local Ray, with the scripted engine: resume, interruption, growth."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from music_ray.config.load import load_config
from music_ray.rundir import RunDir

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline")
    data = folder / "pairs.jsonl"
    with data.open("w") as handle:
        for number in range(300):
            opening = [{"role": "user", "content": f"Please tell me about topic {number}."}]
            chosen = [*opening, {"role": "assistant", "content": f"Topic {number} is good."}]
            rejected = [*opening, {"role": "assistant", "content": f"No idea about {number}."}]
            handle.write(json.dumps({"chosen": chosen, "rejected": rejected}) + "\n")
    config = folder / "config.yaml"
    config.write_text(
        f"""
name: scripted
runs_dir: {folder}/runs
data: {{sources: [{{path: {data}}}], held_out_fraction: 0.0}}
seeds: {{num_seeds: 200}}
engine: {{kind: scripted}}
user: {{mode: template}}
contrast: {{mode: neighbour}}
generate: {{turns: 3, conversations_per_task: 4, flush_rows: 10, flush_seconds: 0.5}}
"""
    )
    return config


def music_ray(*words, **options):
    command = [sys.executable, "-m", "music_ray", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, **options)


def ids_in_shards(config_file):
    run = RunDir(load_config(config_file))
    return [row["id"] for row in run.read_rows("rollouts", "shards", columns=["id"])]


def test_interrupted_resumed_and_grown(config_file):
    assert music_ray("seeds", config_file).returncode == 0

    # Ctrl-C once the first shards are there.
    driver = subprocess.Popen(
        [sys.executable, "-m", "music_ray", "generate", str(config_file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not ids_in_shards(config_file) and driver.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(driver.pid, signal.SIGINT)
    _, errors = driver.communicate(timeout=120)
    flushed = set(ids_in_shards(config_file))
    assert flushed
    if driver.returncode != 0:  # a fast machine may have finished first; then there is nothing to resume
        assert driver.returncode == 130
        assert "music-ray: interrupted: the same command goes on from here" in errors
        assert "Traceback" not in errors

    again = music_ray("generate", config_file)
    assert again.returncode == 0, again.stderr
    assert f"{len(flushed)} of 200 rollouts are there already" in again.stdout or driver.returncode == 0
    ids = ids_in_shards(config_file)
    assert len(ids) == len(set(ids)) == 200 and flushed <= set(ids)

    # More seeds: the finished ones are not made again.
    assert music_ray("seeds", config_file, "seeds.num_seeds=250").returncode == 0
    grown = music_ray("generate", config_file, "seeds.num_seeds=250")
    assert grown.returncode == 0, grown.stderr
    assert "200 of 250 rollouts are there already, 50 to go" in grown.stdout
    now = ids_in_shards(config_file)
    assert len(now) == len(set(now)) == 250 and set(ids) <= set(now)
    epochs = {row["run_epoch"] for row in _new_rows(config_file, set(ids))}
    assert len(epochs) == 1

    # An identity key can't change.
    refused = music_ray("generate", config_file, "seeds.num_seeds=250", "generate.turns=4")
    assert refused.returncode == 2
    assert "generate.turns is 4, but" in refused.stderr and "was made with 3" in refused.stderr


def _new_rows(config_file, before):
    run = RunDir(load_config(config_file))
    rows = run.read_rows("rollouts", "shards", columns=["id", "run_epoch"])
    return [row for row in rows if row["id"] not in before]
