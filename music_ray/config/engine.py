"""Configuration of engines and of how text is sampled."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from music_ray.config.base import FREE, Section
from music_ray.config.endpoint import EndpointConfig
from music_ray.config.labels import NodeLabels


class SamplingConfig(Section):
    """How one role's text is sampled."""

    temperature: float = Field(default=0.7, ge=0.0, le=2.0)
    """Softmax temperature; 0 is greedy."""

    top_p: float = Field(default=0.95, gt=0.0, le=1.0)
    """Nucleus sampling mass."""

    repetition_penalty: float = Field(default=1.0, ge=0.5, le=2.0)
    """Divides the logits of tokens already seen (vLLM's definition); 1 is off."""

    max_tokens: int = Field(default=224, ge=1)
    """Longest text in tokens; a text that reaches it is marked cut off."""

    begin: str = ""
    """What every text begins with; the model goes on from there. It is part of the text and no token of
    max_tokens. `<verdict>` gets a verdict without a word of reasons from a judge too small to keep to the
    form. Not with kind endpoint: chat endpoints write their own beginnings."""


class EngineConfig(Section):
    """The model that plays user and assistant, and the process it runs in."""

    kind: Literal["vllm", "endpoint", "scripted"] = "vllm"
    """vllm: a real model inside the actor. endpoint: a model behind an OpenAI-compatible API.
    scripted: fixed text without a model, for tests and for measuring the overhead of everything else."""

    model: str = "google/gemma-2-9b-it"
    """A Hugging Face model id or folder with a chat template, or `demo:smollm2-135m-instruct`; for an
    endpoint the model's name there."""

    endpoint: EndpointConfig | None = None
    """kind endpoint: which one. Of the other keys of this section an endpoint uses model, revision (of
    the tokenizer), request_seeds, cpus_per_engine, node_labels, min_engines and max_engines."""

    revision: str | None = None
    """Commit, tag or branch of a hub model; the hub's default branch when empty."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of the weights; auto is float32 on the CPU (bfloat16 is emulated on AVX2 and
    measured five times slower) and the model's own on GPUs."""

    max_model_len: int = Field(default=4096, ge=64)
    """Longest prompt plus reply in tokens that the engine accepts."""

    arrangement: Literal["auto", "in_process", "subprocess"] = Field(default="auto", json_schema_extra=FREE)
    """Where vLLM's core runs. in_process: in a thread of the actor. subprocess: in a process of its own
    (AsyncLLM). auto: in_process on the CPU, where it was measured faster, and subprocess on GPUs."""

    max_num_seqs: int | None = Field(default=None, ge=1, json_schema_extra=FREE)
    """Most requests that run at once. When empty, as many of half max_model_len as the key-value memory
    holds: 8 to 64 on the CPU, 16 to 1,024 on GPUs."""

    max_num_batched_tokens: int | None = Field(default=None, ge=64, json_schema_extra=FREE)
    """Most tokens of one engine step; when empty max_model_len on the CPU (2,048 at least), where a
    seeded request whose prefill is split kills vLLM 0.32, and 16,384 on GPUs."""

    kv_cache_gib: float = Field(default=1.0, gt=0.0, json_schema_extra=FREE)
    """Size of the key-value cache on the CPU in GiB; of each worker with tensor parallelism."""

    gpu_memory_utilization: float = Field(default=0.9, gt=0.0, le=1.0, json_schema_extra=FREE)
    """Share of a GPU's memory that the engine takes."""

    tensor_parallel_size: int = Field(default=1, ge=1, json_schema_extra=FREE)
    """GPUs that one engine spans; on the CPU, processes that share its cores."""

    request_seeds: bool = True
    """Send every request with a seed of its own, a function of the plan. Without, the same plan gives
    other texts."""

    enforce_eager: bool = Field(default=False, json_schema_extra=FREE)
    """Skip torch.compile: a faster start, slower steps."""

    gpus_per_engine: int = Field(default=0, ge=0, json_schema_extra=FREE)
    """GPUs that one engine actor asks Ray for; 0 runs on the CPU. With tensor parallelism, its size."""

    cpus_per_engine: float = Field(default=1.0, ge=0.0, json_schema_extra=FREE)
    """CPUs that one engine actor asks Ray for. An engine on the CPU computes with its share of the
    machine's cores (all of them ÷ max_engines), but no fewer threads than this."""

    node_labels: NodeLabels = Field(default={}, json_schema_extra=FREE)
    """Ray labels of the nodes that may hold an engine, and the tasks that read for it, e.g.
    {music-ray/group: generation}; any when empty. Plain values, no operators such as in(x, y). Without them
    Ray's autoscaler starts whatever it can fill most: for several engines at once one node with as many
    GPUs, perhaps on demand, where single ones on spot were meant."""

    min_engines: int = Field(default=1, ge=1, json_schema_extra=FREE)
    """Engine actors at the start."""

    max_engines: int = Field(default=1, ge=1, json_schema_extra=FREE)
    """Engine actors that the pool may grow to."""

    @model_validator(mode="after")
    def _fits_its_kind(self) -> EngineConfig:
        if self.kind == "endpoint" and self.endpoint is None:
            raise ValueError(
                "kind=endpoint needs to know which: set endpoint.base_url, e.g. https://api.openai.com/v1"
            )
        if self.kind == "vllm" and self.endpoint is not None:
            raise ValueError("endpoint is set, but kind is vllm: set kind=endpoint, or remove endpoint")
        if self.kind == "endpoint" and self.gpus_per_engine:
            raise ValueError(
                f"gpus_per_engine ({self.gpus_per_engine}) would hold GPUs that an endpoint does not use: "
                "set it to 0"
            )
        return self

    def __hash__(self) -> int:
        """Equal engines are started once: they are keys. Of its own, since node_labels has no hash."""
        return hash((self.kind, self.model, self.revision))

    @property
    def tokenizer(self) -> str:
        """The model whose chat template counts tokens and is continued in user.mode=template."""
        return (self.endpoint.tokenizer if self.endpoint else None) or self.model


def begin_problems(engine: EngineConfig, name: str, sampling: SamplingConfig) -> list[str]:
    """Whether a role's engine can begin its texts as its sampling says; `name` is the role's section."""
    if not sampling.begin or engine.kind != "endpoint":
        return []
    return [
        f"{name}.sampling.begin ({sampling.begin!r}) can't be put into the mouth of a chat endpoint "
        f"({engine.model}): leave it out, or use an engine of kind vllm"
    ]


def engine_problems(engine: EngineConfig, name: str, longest: int) -> list[str]:
    """Why an engine can't be used with these values together, each with its remedy.

    Args:
        name: the section's dotted name, for the messages.
        longest: max_tokens of the longest text that it is to write.
    """
    problems = []
    # An endpoint knows its own limit, and refuses what is too long.
    if engine.kind != "endpoint" and longest >= engine.max_model_len:
        problems.append(
            f"a reply of {longest} tokens does not fit {name}.max_model_len ({engine.max_model_len}): "
            f"raise {name}.max_model_len or lower sampling.max_tokens"
        )
    batched = engine.max_num_batched_tokens
    if batched is not None and engine.gpus_per_engine == 0 and batched < engine.max_model_len:
        problems.append(
            f"{name}.max_num_batched_tokens ({batched}) is below {name}.max_model_len "
            f"({engine.max_model_len}): on the CPU vLLM can't split the prefill of a seeded request, "
            "raise it or leave it empty"
        )
    if batched is not None and engine.max_num_seqs is not None and batched < engine.max_num_seqs:
        problems.append(
            f"{name}.max_num_batched_tokens ({batched}) is below {name}.max_num_seqs "
            f"({engine.max_num_seqs}): a step takes a token of each, raise it or leave it empty"
        )
    if engine.gpus_per_engine and engine.gpus_per_engine < engine.tensor_parallel_size:
        problems.append(
            f"{name}.tensor_parallel_size ({engine.tensor_parallel_size}) exceeds {name}.gpus_per_engine "
            f"({engine.gpus_per_engine}): set both to the same number"
        )
    if engine.kind == "vllm" and engine.gpus_per_engine > engine.tensor_parallel_size:
        problems.append(
            f"{name}.gpus_per_engine ({engine.gpus_per_engine}) exceeds {name}.tensor_parallel_size "
            f"({engine.tensor_parallel_size}): the engine would leave GPUs idle, set both to the same number"
        )
    if engine.min_engines > engine.max_engines:
        problems.append(
            f"{name}.min_engines ({engine.min_engines}) exceeds {name}.max_engines "
            f"({engine.max_engines}): raise {name}.max_engines"
        )
    return problems
