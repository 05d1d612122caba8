"""Configuration of the engine, the roles, the contrast, the rollouts and the quality gates."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, field_validator

from music_ray.config.base import FREE, Section


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


class EngineConfig(Section):
    """The model that plays user and assistant, and the process it runs in."""

    kind: Literal["vllm", "scripted"] = "vllm"
    """vllm: a real model inside the actor. scripted: fixed text without a model, for tests and for
    measuring the overhead of everything else."""

    model: str = "google/gemma-2-9b-it"
    """A Hugging Face model id or folder with a chat template, or `demo:smollm2-135m-instruct`."""

    revision: str | None = None
    """Commit, tag or branch of a hub model; the hub's default branch when empty."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of the weights; auto is float32 on the CPU (bfloat16 is emulated on AVX2 and
    measured five times slower) and the model's own on GPUs."""

    max_model_len: int = Field(default=4096, ge=64)
    """Longest prompt plus reply in tokens that the engine accepts."""

    max_num_seqs: int = Field(default=64, ge=1, json_schema_extra=FREE)
    """Most requests that run at once (vLLM's default differs by device: always explicit here)."""

    max_num_batched_tokens: int | None = Field(default=None, ge=64, json_schema_extra=FREE)
    """Most tokens of one engine step; when empty max_model_len on the CPU (2,048 at least), where a
    seeded request whose prefill is split kills vLLM 0.32, and 16,384 on GPUs."""

    kv_cache_gib: float = Field(default=1.0, gt=0.0, json_schema_extra=FREE)
    """Size of the key-value cache on the CPU in GiB (VLLM_CPU_KVCACHE_SPACE)."""

    gpu_memory_utilization: float = Field(default=0.9, gt=0.0, le=1.0, json_schema_extra=FREE)
    """Share of a GPU's memory that the engine takes."""

    tensor_parallel_size: int = Field(default=1, ge=1, json_schema_extra=FREE)
    """GPUs that one engine spans."""

    enforce_eager: bool = Field(default=False, json_schema_extra=FREE)
    """Skip torch.compile: a faster start, slower steps."""

    gpus_per_engine: int = Field(default=0, ge=0, json_schema_extra=FREE)
    """GPUs that one engine actor asks Ray for; 0 runs on the CPU. With tensor parallelism, its size."""

    cpus_per_engine: float = Field(default=1.0, ge=0.0, json_schema_extra=FREE)
    """CPUs that one engine actor asks Ray for."""

    min_engines: int = Field(default=1, ge=1, json_schema_extra=FREE)
    """Engine actors at the start."""

    max_engines: int = Field(default=1, ge=1, json_schema_extra=FREE)
    """Engine actors that the pool may grow to."""


_USER_SAMPLING: dict[str, Any] = {"temperature": 0.8, "max_tokens": 64}


class UserConfig(Section):
    """The user simulator."""

    mode: Literal["prompted", "template"] = "prompted"
    """prompted: the model is told to play the user. template: it continues the bare chat template
    after the user header, which small instruct models do well."""

    sampling: SamplingConfig = SamplingConfig(**_USER_SAMPLING)
    """How user messages are sampled: by default at temperature 0.8 with at most 64 tokens, the paper's
    budget."""

    max_attempts: int = Field(default=3, ge=1)
    """Draws of a user message before the branch stops with the reason empty_user_message."""

    @field_validator("sampling", mode="before")
    @classmethod
    def _own_defaults(cls, value: Any) -> Any:
        """A sampling section that sets one key keeps the user's defaults for the others."""
        return _USER_SAMPLING | value if isinstance(value, dict) else value


class AssistantConfig(Section):
    """The assistant that answers."""

    sampling: SamplingConfig = SamplingConfig()
    """How replies are sampled."""

    hint: str | None = None
    """A sentence appended to the last user message of every prompt, such as a request for brevity; it
    is not part of the recorded conversation. None sends the conversation as it is."""


SCHEDULE_HELP = "all | from_turn:K | probability:P | turns:[K, …]"


def parse_schedule(text: str) -> tuple[str, float | list[int]]:
    """A contrast schedule as (kind, argument).

    Raises:
        ValueError: the text is not one of all | from_turn:K | probability:P | turns:[K, …].
    """
    if text == "all":
        return "from_turn", [1]
    if match := re.fullmatch(r"from_turn:\s*(\d+)", text):
        return "from_turn", [int(match[1])]
    number = r"\d+\.?\d*|\.\d+"
    if (match := re.fullmatch(rf"probability:\s*({number})", text)) and 0 < float(match[1]) <= 1:
        return "probability", float(match[1])
    if match := re.fullmatch(r"turns:\s*\[\s*(\d+(?:\s*,\s*\d+)*)\s*,?\s*\]", text):
        return "turns", sorted({int(part) for part in match[1].split(",")})
    raise ValueError(f"schedule {text!r} is not one of {SCHEDULE_HELP} (P above 0 and at most 1)")


class ContrastConfig(Section):
    """How the rejected branch is spoiled (docs/explanation/method.md)."""

    mode: Literal["joint", "two_step", "neighbour", "resample"] = "joint"
    """joint: one call writes the modified instruction and the reply to it. two_step: first the
    instruction, then a clean call that answers it. neighbour: the instruction is a similar user
    message from the pool of seeds (TF-IDF). resample: it is another message that the user simulator
    draws at the same point. The first two need a capable model."""

    schedule: str = "all"
    """The assistant turns that are spoiled: all | from_turn:K | probability:P | turns:[K, …], counted
    from 1 after the seed. With probability, a row in which no turn was drawn gets one turn, drawn
    uniformly, so that every row has a contrast. The paper does not say which turns: an ablation."""

    max_attempts: int = Field(default=3, ge=1)
    """Calls per modified instruction before the row ends with contrast_unparsed or
    contrast_not_different."""

    pool_size: int = Field(default=2000, ge=2)
    """neighbour: how many user messages the pool holds (the first of D's training part)."""

    max_similarity: float = Field(default=0.8, gt=0.0, le=1.0)
    """A modified instruction at least this like the user's message (neighbour: TF-IDF cosine; all modes:
    shared words over all words) asks the same in other words, and is drawn again."""

    sampling: SamplingConfig = SamplingConfig()
    """How the contrast calls are sampled: joint's only call, two_step's first. The reply to a modified
    instruction that stands alone is sampled like any assistant reply."""

    @field_validator("schedule")
    @classmethod
    def _known_schedule(cls, text: str) -> str:
        parse_schedule(text)
        return text


class GenerateConfig(Section):
    """The rollouts and how they are spread over the engines."""

    turns: int = Field(default=5, ge=1, le=64)
    """T: assistant turns that every rollout goes on for after its seed (paper: 5)."""

    conversations_per_task: int = Field(default=16, ge=1, json_schema_extra=FREE)
    """Seeds in one Ray Data task. A block is released when its slowest row ends, so small."""

    tasks_in_flight: int = Field(default=8, ge=2, json_schema_extra=FREE)
    """Tasks that run at once in one engine actor; times conversations_per_task should exceed
    engine.max_num_seqs or the engine runs dry."""

    flush_rows: int = Field(default=256, ge=1, json_schema_extra=FREE)
    """An actor writes its finished rollouts as one shard as soon as it holds this many …"""

    flush_seconds: float = Field(default=20.0, gt=0.0, json_schema_extra=FREE)
    """… or after this many seconds. What is in flight since the last flush is all a crash can cost."""


class GatesConfig(Section):
    """Quality gates of the pairs stage. A rollout that fails one is counted under the gate's name."""

    empty: bool = True
    """Refuse a rollout in which any generated message is empty."""

    cut_off: bool = True
    """Refuse a rollout in which a reply or user message ended at its token limit."""

    branches_equal: bool = True
    """Refuse a rollout in which a contrasted reply equals the chosen reply of the same turn."""

    template_leak: bool = True
    """Refuse a rollout in which chat-template or role markers leaked into the text."""

    looping: bool = True
    """Refuse a rollout in which a message repeats itself (a word n-gram or line, see loop_ngram)."""

    loop_ngram: int = Field(default=8, ge=2)
    """looping: length in words of the n-gram that must not recur too often."""

    loop_count: int = Field(default=3, ge=2)
    """looping: how often the same n-gram (or the same line) makes a message a loop."""


class PairsConfig(Section):
    """From rollouts to pairs."""

    gates: GatesConfig = GatesConfig()
    """Which gates a rollout must pass, and their bounds."""
