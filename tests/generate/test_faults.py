"""Faults that are made: drivers, actors, engine processes and nodes are killed, then rows are counted.

`pytest -m "slow and faults" tests/generate` prints a table: fault, rows lost, duplicated, regenerated.
"""

import json
import os
import signal
import subprocess
import time

import pytest

from tests.aws_server import KEYS
from tests.flaky_store import bucket_server, uri_of
from tests.generate.faults import FaultyRun, none_left

pytestmark = [pytest.mark.slow, pytest.mark.faults, pytest.mark.timeout(900)]
SEEDS = 4000


@pytest.fixture
def make(tmp_path):
    """make(runs_dir=…, engine={…}, …): a run with its seeds stage done; stopped at the end."""
    runs = []

    def build(seeds=SEEDS, environment=None, **sections):
        data = tmp_path / "pairs.jsonl"
        with data.open("w") as handle:
            for number in range(seeds):
                opening = [{"role": "user", "content": f"Please tell me about topic {number}."}]
                chosen = [*opening, {"role": "assistant", "content": f"Topic {number} is good."}]
                rejected = [*opening, {"role": "assistant", "content": f"No idea about {number}."}]
                handle.write(json.dumps({"chosen": chosen, "rejected": rejected}) + "\n")
        values = {
            "name": "faulty",
            "runs_dir": str(tmp_path / "runs"),
            "data": {"sources": [{"path": str(data)}], "held_out_fraction": 0.0},
            "engine": {"kind": "scripted"},
            "user": {"mode": "template"},
            "contrast": {"mode": "resample"},
            "generate": {"turns": 3, "flush_rows": 50, "flush_seconds": 1.0, "canary": {"seeds": 0}},
        }
        faulty = FaultyRun(tmp_path, {**values, **sections}, dict(environment or {}))
        runs.append(faulty)
        environment = {**os.environ, **faulty.environment}
        done = subprocess.run(faulty.command("seeds"), capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        return faulty

    yield build
    for faulty in runs:
        faulty.stop()


def check(outcome):
    assert (outcome.lost, outcome.duplicated, outcome.regenerated) == (0, 0, 0), outcome


def test_the_driver_is_killed_and_nothing_is_left_running(make):
    faulty = make()
    faulty.start()
    faulty.wait_for(400)
    left = faulty.kill_driver()
    assert [one for one in left if one.is_running()], "nothing was running"
    assert none_left(left, agents_too=True) == []
    flushed = faulty.flushed()
    assert 400 <= len(flushed) < SEEDS
    faulty.finish()
    assert f"{len(flushed)} of {SEEDS} rollouts are there already" in faulty.said()
    check(faulty.count("kill -9 of the driver, restarted", flushed))


def test_the_driver_is_killed_three_times(make):
    faulty = make()
    flushed = set()
    for number in (300, 1200, 2200):
        faulty.start()
        faulty.wait_for(number)
        assert none_left(faulty.kill_driver()) == []
        flushed = faulty.flushed()
    faulty.finish()
    check(faulty.count("kill -9 of the driver, three times", flushed))


def test_an_actor_is_killed_and_the_run_goes_on_by_itself(make):
    faulty = make()
    driver = faulty.start()
    flushed = set()
    for number in (300, 1500):
        flushed = faulty.wait_for(number)
        victims = faulty.actors()
        assert victims
        for victim in victims:
            victim.kill()
        time.sleep(1)
    assert driver.wait(timeout=400) == 0, faulty.said()
    check(faulty.count("kill -9 of the engine actor, twice, no restart", flushed))


def test_a_second_driver_is_refused(make):
    faulty = make()
    first = faulty.start()
    faulty.wait_for(100)
    second = faulty.start()
    assert second.wait(timeout=100) == 2
    assert f"is in use by process {first.pid}" in faulty.said()
    flushed = faulty.flushed()
    assert first.wait(timeout=300) == 0
    check(faulty.count("a second driver, refused", flushed))


def test_ctrl_c_keeps_what_is_finished(make):
    faulty = make()
    driver = faulty.start()
    faulty.wait_for(400)
    driver.send_signal(signal.SIGINT)
    assert driver.wait(timeout=100) == 130, faulty.said()
    assert "Traceback" not in faulty.said()
    flushed = faulty.flushed()
    faulty.finish()
    check(faulty.count("Ctrl-C, restarted", flushed))


def test_a_node_is_lost_and_another_joins(make):
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
        cluster.wait_for_nodes()
        faulty = make(
            environment={"RAY_ADDRESS": cluster.address},
            engine={"kind": "scripted", "min_engines": 1, "max_engines": 2},
        )
        driver = faulty.start()
        flushed = faulty.wait_for(300)
        cluster.remove_node(nodes[0], allow_graceful=False)
        time.sleep(3)
        cluster.add_node(num_cpus=1)
        flushed |= faulty.wait_for(min(len(faulty.flushed()) + 200, SEEDS))
        cluster.remove_node(nodes[1], allow_graceful=False)
        assert driver.wait(timeout=600) == 0, faulty.said()
        check(faulty.count("two nodes lost, one joined, no restart", flushed))
        faulty.stop()
    finally:
        cluster.shutdown()


def test_the_driver_is_killed_while_it_writes_to_an_object_store(make):
    """A real S3 server on 127.0.0.1; a lease stands for the lock, so the dead driver's must run out."""
    with bucket_server() as port:
        faulty = make(seeds=1000, environment=KEYS, runs_dir=uri_of(port, "bucket/runs"))
        faulty.start()
        faulty.wait_for(100)
        assert none_left(faulty.kill_driver()) == []
        flushed = faulty.flushed()
        assert 100 <= len(flushed) < 1000
        refused = faulty.start()
        assert refused.wait(timeout=100) == 75 and "is in use by process" in faulty.said()
        time.sleep(61)
        faulty.finish()
        check(faulty.count("kill -9 of the driver, shards on S3", flushed))


VLLM = {
    "kind": "vllm",
    "model": "demo:smollm2-135m-instruct",
    "max_model_len": 512,
    "max_num_seqs": 8,
    "enforce_eager": True,
}
SHORT = {
    "assistant": {"sampling": {"temperature": 0.5, "top_p": 1.0, "max_tokens": 24}},
    "user": {"mode": "template", "sampling": {"temperature": 0.6, "top_p": 1.0, "max_tokens": 16}},
    "generate": {
        "turns": 2,
        "conversations_per_task": 4,
        "flush_rows": 4,
        "flush_seconds": 1.0,
        "canary": {"seeds": 0},
    },
}


def test_an_actor_with_a_real_vllm_is_killed(make):
    faulty = make(seeds=48, engine=VLLM, **SHORT)
    driver = faulty.start()
    flushed = faulty.wait_for(8)
    for victim in faulty.actors():
        victim.kill()
    assert driver.wait(timeout=600) == 0, faulty.said()
    check(faulty.count("kill -9 of an actor with vLLM in it, no restart", flushed))


def test_the_engines_own_process_is_killed(make):
    """vLLM's engine core in a process of its own: its actor notices, ends, and is replaced."""
    faulty = make(seeds=48, engine={**VLLM, "arrangement": "subprocess"}, **SHORT)
    driver = faulty.start()
    flushed = faulty.wait_for(8)
    [actor] = faulty.actors()
    children = actor.children(recursive=True)
    assert children, "vLLM has no process of its own"
    max(children, key=lambda child: child.memory_info().rss).kill()  # the one that holds the model
    assert driver.wait(timeout=800) == 0, faulty.said()
    assert none_left(children) == []
    assert "an engine died" in faulty.said()
    check(faulty.count("kill -9 of vLLM's engine process, no restart", flushed))


def test_the_driver_is_killed_with_a_real_vllm_in_processes_of_its_own(make):
    faulty = make(seeds=24, engine={**VLLM, "arrangement": "subprocess"}, **SHORT)
    faulty.start()
    faulty.wait_for(4)
    assert none_left(faulty.kill_driver()) == []
    flushed = faulty.flushed()
    faulty.finish()
    check(faulty.count("kill -9 of the driver, vLLM in a process of its own", flushed))
