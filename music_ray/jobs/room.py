"""How many rows an engine actor works on at once: so many that its engine never runs dry.

That follows from the engine's places, the requests that it runs at once. An actor counts them once its engine
is up, as the engine did. Before that the driver cuts the queues of Ray Data, which can't be changed later: by
what the model's config.json and Ray's labels of GPUs say, or by a guess. What it expects only bounds how many
tasks wait in an actor, and twice as many as are expected may be there; how many are in the engine is the
actor's word. So a guess of 512 places fills an engine of any derived number, 1,024 at most.
"""

from __future__ import annotations

from collections.abc import Mapping

from music_ray import models
from music_ray.config import EngineConfig, RunConfig
from music_ray.engines.vllm_settings import (
    CPU_SEQS,
    DeviceFacts,
    ModelFacts,
    derive_settings,
    device_facts,
    model_facts,
)
from music_ray.errors import InputError
from music_ray.jobs.job import Job
from music_ray.memory.gpus import labelled_gpu
from music_ray.memory.model_size import model_size

GUESSED_PLACES = 512
"""Of an engine on GPUs that nobody knows yet."""
_LABEL = "accelerator_type:"


def rows_at_once(job: Job, config: RunConfig) -> int:
    """Rows in the engine at once; asked in the actor, on the device that its engine has.

    Raises:
        InputError: as the engine: its model's size is not known, or its weights do not fit.
    """
    engine = config.engine
    places = _given_places(job, config)
    if places is None:
        model = model_facts(engine, models.resolve_model(engine.model))
        places = derive_settings(engine, device_facts(engine), model).max_num_seqs
    return config.generate.rows_in_flight(places)


def rows_expected(job: Job, config: RunConfig, resources: Mapping[str, float]) -> int:
    """The same before there is an actor, as far as it can be known.

    Args:
        resources: of the nodes that are there, in Ray's names.
    """
    places = _given_places(job, config)
    if places is None:
        places = expected_places(config.engine, resources)
    return config.generate.rows_in_flight(places)


def expected_places(engine: EngineConfig, resources: Mapping[str, float]) -> int:
    """Requests that an engine will run at once, or the guess; nothing heavy is loaded, no hub is asked.

    Args:
        resources: as rows_expected; without any, GPUs are not known.
    """
    if (places := _configured_places(engine)) is not None:
        return places
    size = model_size(engine.model, engine.revision)
    device = _device(engine, resources)
    if size is None or device is None:
        return GUESSED_PLACES if engine.gpus_per_engine else CPU_SEQS[1]
    facts = ModelFacts(size.num_layers, size.kv_heads, size.head_dim, size.parameters)
    try:
        return derive_settings(engine, device, facts).max_num_seqs
    except InputError:  # too large for these GPUs: the engine says so, if it is started on one of them
        return GUESSED_PLACES


def _given_places(job: Job, config: RunConfig) -> int | None:
    """What needs not be derived; None where it must be."""
    if config.generate.tasks_in_flight is not None:
        return 0  # it decides alone
    places = _configured_places(config.engine)
    return job.places if places is None else places


def _configured_places(engine: EngineConfig) -> int | None:
    if engine.max_num_seqs is not None:
        return engine.max_num_seqs
    if engine.endpoint is not None:
        return engine.endpoint.max_concurrency
    if engine.kind == "scripted":  # it takes any number: as many as the engine that it stands for may have
        return GUESSED_PLACES if engine.gpus_per_engine else CPU_SEQS[1]
    return None


def _device(engine: EngineConfig, resources: Mapping[str, float]) -> DeviceFacts | None:
    """Where the engines will be, by the largest GPU among Ray's labels; None where that can't be known."""
    if not engine.gpus_per_engine:
        return DeviceFacts("cpu")
    if resources.get("GPU", 0.0) < engine.max_engines * engine.gpus_per_engine:
        return None  # others will be added, of whatever kind
    gpus = [labelled_gpu([name]) for name in resources if name.startswith(_LABEL)]
    known = [gpu for gpu in gpus if gpu is not None]
    if not known or len(known) < len(gpus):
        return None
    return DeviceFacts("gpu", int(max(gpu.memory for gpu in known)))
