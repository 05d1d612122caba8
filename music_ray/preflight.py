"""What can be found wrong before anything expensive starts: models, disk, compiler, source files.

Looks at files and the machine without loading any model; the configuration has checked itself.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterable
from pathlib import Path

from music_ray.config import EngineConfig, RunConfig
from music_ray.errors import EnvironmentLacksError, InputError
from music_ray.memory.fitting import gpu_refusal
from music_ray.memory.gpus import configured_gpu
from music_ray.memory.model_size import model_size
from music_ray.models import check_local_model
from music_ray.prompts import own

NEED_GIB = {"seeds": 0.2, "generate": 1.0, "train": 3.0}
"""Free space below which a stage does not start, in GiB; the train stage adds its own estimate."""


def check(config: RunConfig, stages: Iterable[str]) -> None:
    """Checks what the given stages need.

    Raises:
        InputError: a source or model is missing or unusable, or an endpoint does not answer.
        EnvironmentLacksError: too little disk, no C++ compiler, or GPUs too small for the training.
    """
    wanted = list(stages)
    if "seeds" in wanted:
        _check_sources(config)
        # Tokens are counted with the engine model's chat template; an endpoint's needs no weights here.
        if config.seeds.max_tokens is not None and config.engine.kind != "endpoint":
            check_local_model(config.engine.model)
    if "generate" in wanted:
        own.check(config.contrast, config.generate.turns)
    if "generate" in wanted and config.engine.kind == "vllm":
        check_local_model(config.engine.model)
        if not (config.engine.enforce_eager or config.engine.gpus_per_engine):
            _check_compiler()
    if "generate" in wanted:
        _check_endpoints(config)
    if "pairs" in wanted and config.pairs.gates.judge_disagrees:
        _check_judge(config.pairs.judge.engine)
    if "train" in wanted or "evaluate" in wanted:
        check_local_model(config.train.base_model)
    if "train" in wanted:
        _check_gpu_memory(config)
    if wanted:
        _check_lasting(config)
    if wanted and "://" not in config.runs_dir:
        _check_disk(Path(config.runs_dir).expanduser(), max(NEED_GIB.get(stage, 0.05) for stage in wanted))


def _check_endpoints(config: RunConfig) -> None:
    """Each endpoint answers one small request: a wrong key, URL or model costs seconds, not a started run."""
    user = config.user.engine or config.engine
    for engine in dict.fromkeys((config.engine, user, config.contrast.engine or config.engine)):
        if engine.kind != "endpoint":
            continue
        from music_ray.engines.endpoint import EndpointEngine

        asked = EndpointEngine(engine)
        if engine == user and config.user.mode == "template":
            asked.check_template_route()
        asked.close()


def _check_judge(engine: EngineConfig | None) -> None:
    """The judge is asked hours later, when the rollouts are there: its mistakes are found now."""
    if engine is not None and engine.kind == "vllm":
        check_local_model(engine.model)
    if engine is not None and engine.kind == "endpoint":
        from music_ray.engines.endpoint import EndpointEngine

        EndpointEngine(engine).close()


def _check_gpu_memory(config: RunConfig) -> None:
    """A training that can't fit is found before the rollouts for it are paid for."""
    train, gpu = config.train, configured_gpu(config.costs)
    size = model_size(train.base_model, train.revision) if train.use_gpu and gpu else None
    if gpu is not None and size is not None and (problem := gpu_refusal(size, train, gpu)):
        raise EnvironmentLacksError(problem)


def _check_sources(config: RunConfig) -> None:
    if not config.data.sources:
        raise InputError(
            "data.sources is empty: name the preference set, e.g. data.sources=[{path: pairs.parquet}]"
        )
    for source in config.data.sources:
        if source.path and source.path != "sample" and "://" not in source.path:
            path = Path(source.path)
            if not path.exists():
                raise InputError(f"no file or folder at {source.path}: correct data.sources")
            if path.is_file() and path.stat().st_size == 0:
                raise InputError(f"{source.path} is empty (0 bytes): name a file that holds preference pairs")


def _check_lasting(config: RunConfig) -> None:
    """Ray unpacks a job's working directory into a folder of the session that goes with the cluster."""
    if "://" in config.runs_dir or Path(config.runs_dir).expanduser().is_absolute():
        return
    if "working_dir_files" in Path.cwd().parts:
        raise InputError(
            f"runs_dir ({config.runs_dir}) is relative, and this is a Ray job in a temporary copy of its "
            "working directory: the results would be lost with it; set runs_dir to a URI such as "
            "s3://bucket/runs or to an absolute path on shared storage"
        )


def _check_compiler() -> None:
    """vLLM's torch.compile wants one on the CPU. Training builds nothing: reward/zero3.py says why."""
    chosen = os.environ.get("CXX")  # perhaps with options, or behind ccache
    candidates = shlex.split(chosen)[:1] if chosen else ["g++", "c++", "clang++"]
    if not any(shutil.which(candidate) for candidate in candidates):
        raise EnvironmentLacksError(
            f"no C++ compiler ({chosen or 'g++'}) on this machine: vLLM compiles the model's CPU kernels "
            "with one; install g++ (Debian and Ubuntu: apt-get install g++), set CXX, or set "
            "engine.enforce_eager=true"
        )


def _check_disk(folder: Path, need_gib: float) -> None:
    while not folder.exists():
        folder = folder.absolute().parent
    if not folder.is_dir():
        raise InputError(f"{folder} is a file: set runs_dir to a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise EnvironmentLacksError(f"{folder} can't be written to: set runs_dir to another folder")
    free = shutil.disk_usage(folder).free / 2**30
    if free < need_gib:
        raise EnvironmentLacksError(
            f"{free:.2f} GiB free at {folder}, this needs {need_gib:g} GiB: free some, or set runs_dir to "
            "another disk"
        )
