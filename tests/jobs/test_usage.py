"""What a job has used: at what its own actors asked Ray for."""

import pyarrow as pa

from music_ray.config.load import resolve_config
from music_ray.jobs.driver import _usage_writer
from music_ray.jobs.job import Job
from music_ray.jobs.usage import read_usage
from music_ray.rundir import RunDir


def test_a_pool_of_its_own_is_counted_by_its_own_devices(tmp_path):
    """Beside an endpoint, reward models hold a GPU that the run's engine knows nothing of."""
    config = resolve_config({"name": "t", "runs_dir": str(tmp_path), "engine": {"kind": "scripted"}})
    engine = config.engine.model_copy(update={"gpus_per_engine": 2, "cpus_per_engine": 3})
    run = RunDir(config)
    pool = config.model_copy(update={"engine": engine})
    for name, own in (("own", pool), ("runs", None)):
        job = Job(name, "rows", "a:b", (), pa.schema([]), 1, config=own)
        _usage_writer(run, job)({"engine_seconds": 10.0, "calls": 4, "actors": 1})
    assert read_usage(run, "own") == {"engine_seconds": 10, "calls": 4, "gpu_seconds": 20, "cpu_seconds": 30}
    assert read_usage(run, "runs") == {
        "engine_seconds": 10, "calls": 4, "gpu_seconds": 0, "cpu_seconds": 10 * config.engine.cpus_per_engine,
    }  # fmt: skip
