"""Configuration of the mix, the reward training and the evaluation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from music_ray.config.base import FREE, Section

DecayRate = Annotated[float, Field(ge=0.0, lt=1.0)]


class MixConfig(Section):
    """D_aug = D ∪ D_MUSIC (design: step 4 of the method)."""

    include_preferences: bool = True
    """Whether D's training part is in the mix; without it the model sees MUSIC pairs alone."""

    include_music: bool = True
    """Whether the MUSIC pairs are in the mix; without them this is the baseline."""

    held_out_fraction: float = Field(default=0.02, ge=0.0, lt=1.0)
    """Share of seed conversations (by hash) whose MUSIC pairs are kept for evaluation; pairs of D that
    share the conversation leave the mix as well, so that nothing of them is trained on."""


class LoraConfig(Section):
    """Low-rank adapters (peft) instead of training every weight; merged into the model at export."""

    rank: int = Field(default=16, ge=1)
    """Rank of the adapters."""

    alpha: float = Field(default=32.0, gt=0.0)
    """Scale of the adapters: their output is multiplied by alpha / rank."""

    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Dropout before the adapters."""

    target_modules: list[str] = Field(
        default=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"], min_length=1
    )
    """Names of the linear layers that get an adapter."""


class ZeroConfig(Section):
    """DeepSpeed ZeRO stage 3."""

    offload_optimizer: Literal["none", "cpu"] = Field(default="none", json_schema_extra=FREE)
    """Where the optimizer's fp32 weights and moments live."""

    offload_parameters: Literal["none", "cpu"] = Field(default="none", json_schema_extra=FREE)
    """Where the partitioned parameters wait between uses."""

    sub_group_size: int = Field(default=1_000_000_000, ge=1000, json_schema_extra=FREE)
    """Elements per optimizer sub-group: smaller means less memory for the step, more kernel launches."""


class TrainConfig(Section):
    """Fine-tuning of the reward model."""

    base_model: str = "google/gemma-2-9b-it"
    """A Hugging Face model id or folder with a chat template, or `demo:smollm2-135m-instruct`."""

    revision: str | None = None
    """Commit, tag or branch of a hub model."""

    num_layers: int | None = Field(default=None, ge=1)
    """Keep only the model's first layers; all when empty."""

    num_workers: int = Field(default=2, ge=1, json_schema_extra=FREE)
    """Training workers (ranks). The global batches do not depend on it."""

    use_gpu: bool = Field(default=False, json_schema_extra=FREE)
    """One GPU a worker; otherwise DeepSpeed's CPU accelerator is used."""

    cpus_per_worker: float = Field(default=1.0, gt=0.0, json_schema_extra=FREE)
    """CPUs that one worker asks Ray for, and its number of torch threads."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """Number format of forward and backward; the master weights and moments are float32 always."""

    attention: Literal["auto", "eager", "sdpa", "flash_attention_2"] = "auto"
    """Attention implementation. auto is eager where the model soft-caps its attention logits
    (Gemma-2: transformers' sdpa ignores the cap silently) and sdpa elsewhere."""

    activation_checkpointing: bool = Field(default=False, json_schema_extra=FREE)
    """Recompute activations in the backward pass; changes no number."""

    steps: int = Field(default=2500, ge=1)
    """Optimizer steps (paper: 2,500)."""

    pairs_per_step: int = Field(default=64, ge=1)
    """Preference pairs in one optimizer step over all workers (paper: 64)."""

    micro_pairs: int = Field(default=1, ge=1, json_schema_extra=FREE)
    """Pairs in one forward and backward pass of one worker."""

    learning_rate: float = Field(default=2e-6, gt=0.0)
    """Peak learning rate (paper: 2e-6)."""

    lr_schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Shape of the learning rate after the warm-up, down to 0 (constant: stays)."""

    warmup_steps: int = Field(default=0, ge=0)
    """Steps of linear warm-up."""

    weight_decay: float = Field(default=0.0, ge=0.0)
    """AdamW weight decay on matrices; norms and biases get none."""

    adam_betas: tuple[DecayRate, DecayRate] = (0.9, 0.95)
    """AdamW's decay rates of the two moments."""

    gradient_clipping: float = Field(default=1.0, gt=0.0)
    """Largest global gradient norm."""

    max_tokens: int = Field(default=2048, ge=16)
    """Longest conversation in tokens (paper: 2,048)."""

    over_length: Literal["drop", "cut"] = "drop"
    """A pair over max_tokens is dropped and counted, or cut: both sides lose the same shared turns
    from the start, never one in which they differ; what is still too long is dropped and counted."""

    checkpoint_every: int = Field(default=250, ge=1, json_schema_extra=FREE)
    """Steps between resumable checkpoints; the last step is always saved."""

    keep_checkpoints: int = Field(default=2, ge=1, json_schema_extra=FREE)
    """How many of the newest checkpoints are kept."""

    max_failures: int = Field(default=3, ge=-1, json_schema_extra=FREE)
    """Times that Ray Train restarts the workers after one dies, from the last checkpoint; -1: always."""

    lora: LoraConfig | None = None
    """Train low-rank adapters instead of all weights; None trains all."""

    zero: ZeroConfig = ZeroConfig()
    """DeepSpeed ZeRO-3's settings."""


class EvaluateConfig(Section):
    """Evaluation on held-out pairs."""

    batch_size: int = Field(default=8, ge=1, json_schema_extra=FREE)
    """Conversations scored at once."""

    use_gpu: bool = Field(default=False, json_schema_extra=FREE)
    """Score on the first GPU."""

    max_pairs: int | None = Field(default=None, ge=1)
    """At most this many pairs of each held-out suite (the first by id hash); all when empty."""

    bootstrap_samples: int = Field(default=2000, ge=100)
    """Resamples behind each interval."""

    confidence: float = Field(default=0.95, gt=0.5, lt=1.0)
    """Coverage of the bootstrap intervals."""


class ReportConfig(Section):
    """The HTML report."""

    max_pairs: int = Field(default=40, ge=1)
    """At most this many pairs are shown to read (the first by id hash)."""


class PlanConfig(Section):
    """Seconds that each stage may take; the report shows them beside the truth."""

    setup: float | None = Field(default=None, gt=0.0, json_schema_extra=FREE)
    """Preparing the models (conversion, download)."""

    seeds: float | None = Field(default=None, gt=0.0, json_schema_extra=FREE)
    """The seeds stage."""

    generate: float | None = Field(default=None, gt=0.0, json_schema_extra=FREE)
    """The generate stage, start of Ray and engine included."""

    pairs: float | None = Field(default=None, gt=0.0, json_schema_extra=FREE)
    """The pairs stage."""

    mix: float | None = Field(default=None, gt=0.0, json_schema_extra=FREE)
    """The mix stage."""

    train: float | None = Field(default=None, gt=0.0, json_schema_extra=FREE)
    """The train stage, export included."""

    evaluate: float | None = Field(default=None, gt=0.0, json_schema_extra=FREE)
    """The evaluate stage."""

    report: float | None = Field(default=None, gt=0.0, json_schema_extra=FREE)
    """The report stage."""
