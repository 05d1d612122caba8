"""Configuration of the mix, the reward training and the evaluation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from music_ray.config.base import FREE, Section
from music_ray.config.labels import NodeLabels

DecayRate = Annotated[float, Field(ge=0.0, lt=1.0)]
MixWeight = Annotated[float, Field(gt=0.0, strict=True)]
OF_PACKS = ("segments", "flex")
"""Attention implementations that know a pack's layout (music_ray.packed_attention)."""


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
    """Dropout before the adapters. Its masks follow from the seed, the step and the worker: the same after a
    resume, others with another number of workers."""

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


class LossConfig(Section):
    """The loss of a pair; with the defaults Bradley-Terry's, -log sigmoid(r_chosen - r_rejected)."""

    margin: bool = False
    """Whether the sides must be apart by the pair's `margin` (a column of D; pairs without one, such as
    MUSIC pairs, have 0): -log sigmoid(r_chosen - r_rejected - margin), as for Llama 2 (arXiv 2307.09288,
    section 3.2.2). A pair whose margin is negative or no finite number is dropped and counted."""

    label_smoothing: float = Field(default=0.0, ge=0.0, lt=0.5)
    """Probability p with which a label counts as wrong: -(1 - p) log sigmoid(d) - p log sigmoid(-d), where
    d is what stands in the sigmoid otherwise; its minimum is at d = log((1 - p) / p). After equation 3 of
    Mitchell, "A note on DPO with noisy preferences & relationship to IPO" (2023, conservative DPO)."""

    centring: float = Field(default=0.0, ge=0.0)
    """Weight of (r_chosen + r_rejected)², which draws the rewards to a mean of 0 and does not act on
    their difference (Eisenstein et al., arXiv 2312.09244; TRL's center_rewards_coefficient, e.g. 0.01)."""


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

    node_labels: NodeLabels = Field(default={}, json_schema_extra=FREE)
    """Ray labels of the nodes that may hold a worker, e.g. {music-ray/group: training}; any when empty.
    Plain values, as in engine.node_labels."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """Number format of forward and backward; the master weights and moments are float32 always."""

    packing: Literal["shared_prefix", "packed", "padded"] = Field(
        default="shared_prefix", json_schema_extra=FREE
    )
    """How the pairs of a pass are laid out. shared_prefix: one row without padding, in which the common
    start of a pair's sides is computed once. packed: the same, each side whole. padded: a row a side,
    as long as the longest. The rewards are the same in all three (to float32's last places)."""

    micro_tokens: int = Field(default=4096, ge=16, json_schema_extra=FREE)
    """Tokens in one forward and backward pass of one worker where pairs are packed; a pair that is
    longer has a pass of its own. More is faster and takes more memory for activations."""

    attention: Literal["auto", "segments", "flex", "eager", "sdpa", "flash_attention_2"] = "auto"
    """Attention implementation. auto: where pairs are packed, flex (FlexAttention) on GPUs and segments
    (a batch for conversations of like length) elsewhere; where they are padded, eager if the model soft-caps
    its attention logits (Gemma-2: transformers' sdpa ignores the cap silently), else sdpa."""

    activation_checkpointing: bool = Field(default=False, json_schema_extra=FREE)
    """Recompute activations in the backward pass; changes no number."""

    steps: int = Field(default=2500, ge=1)
    """Optimizer steps (paper: 2,500)."""

    pairs_per_step: int = Field(default=64, ge=1)
    """Preference pairs in one optimizer step over all workers (paper: 64)."""

    micro_pairs: int = Field(default=1, ge=1, json_schema_extra=FREE)
    """Pairs in one forward and backward pass of one worker where they are padded (train.packing)."""

    loss: LossConfig = LossConfig()
    """The loss of a pair."""

    mix_weights: dict[str, MixWeight] | None = None
    """Shares of D and D_MUSIC in every stretch of the stream of pairs, e.g. {D: 0.7, D_MUSIC: 0.3};
    only their ratio counts. Each is gone through in passes of its own. Empty: all pairs are one pass."""

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
    """How many of the newest checkpoints are kept; the best by train.best_by is kept besides."""

    evaluate_every: int | None = Field(default=250, ge=1, json_schema_extra=FREE)
    """Steps between evaluations on the held-out pairs, one more after the last step; none when empty.
    An evaluation changes no weight, only which checkpoint counts as the best. The best so far is saved
    at once, whatever checkpoint_every says."""

    evaluate_pairs: int = Field(default=500, ge=1, json_schema_extra=FREE)
    """At most this many pairs of each held-out suite (the first by id hash) are scored while training.
    When it is changed in the middle of a run, the best is sought anew from there on."""

    best_by: Literal["mean", "music_accuracy", "preferences_accuracy", "loss"] = Field(
        default="mean", json_schema_extra=FREE
    )
    """What makes a checkpoint the best: the mean accuracy over the held-out suites that there are, the
    accuracy on one of them, or the lowest mean loss. Of equal accuracies the lower loss is better."""

    export: Literal["last", "best"] = Field(default="last", json_schema_extra=FREE)
    """Which weights become the model: those after the last step, or the best checkpoint's by
    train.best_by. Changed for a finished run it counts once model/ is removed and the train stage is
    run again, which then goes on from the checkpoints."""

    wandb_project: str | None = Field(default=None, min_length=1, json_schema_extra=FREE)
    """Weights & Biases project that the driver sends the training log to; none when empty. It needs the
    package wandb and WANDB_API_KEY in the driver's environment (or WANDB_MODE=offline)."""

    max_failures: int = Field(default=3, ge=-1, json_schema_extra=FREE)
    """Times that Ray Train restarts the workers after one dies, from the last checkpoint; -1: always."""

    lora: LoraConfig | None = None
    """Train low-rank adapters instead of all weights; None trains all."""

    zero: ZeroConfig = ZeroConfig()
    """DeepSpeed ZeRO-3's settings."""

    @property
    def pass_attention(self) -> str:
        """The attention of training's own passes; what `auto` means where pairs are packed."""
        if self.attention != "auto" or self.packing == "padded":
            return self.attention
        return "flex" if self.use_gpu else "segments"

    @property
    def padded_attention(self) -> str:
        """The attention where conversations are padded, as evaluation and the export's check do."""
        return "auto" if self.attention in OF_PACKS else self.attention


def weight_problems(mix: MixConfig, train: TrainConfig) -> list[str]:
    """Weights that do not fit the mix, with their remedy."""
    included = {"D": mix.include_preferences, "D_MUSIC": mix.include_music}
    held = [origin for origin, is_included in included.items() if is_included]
    if train.mix_weights is None or set(train.mix_weights) == set(held):
        return []
    return [
        f"train.mix_weights names {' and '.join(train.mix_weights) or 'nothing'}, but the mix holds "
        f"{' and '.join(held) or 'nothing'} (mix.include_preferences, mix.include_music): name just these, "
        "or leave train.mix_weights empty"
    ]


def train_problems(train: TrainConfig) -> list[str]:
    """Combinations of the train section's keys that could only fail later, each with its remedy."""
    problems = []
    if train.warmup_steps >= train.steps:
        problems.append(
            f"train.warmup_steps ({train.warmup_steps}) must be below train.steps ({train.steps}): lower it"
        )
    if train.pairs_per_step < train.num_workers:
        problems.append(
            f"train.num_workers ({train.num_workers}) exceeds train.pairs_per_step "
            f"({train.pairs_per_step}): a worker would have no pair, lower train.num_workers"
        )
    of_packs, packed = train.attention in OF_PACKS, train.packing != "padded"
    if train.attention != "auto" and of_packs != packed:
        fitting = "segments or flex" if packed else "eager, sdpa or flash_attention_2"
        remedy = "train.packing=padded" if packed else "train.packing=shared_prefix"
        problems.append(
            f"train.attention={train.attention} does not go with train.packing={train.packing}: set "
            f"train.attention to auto, {fitting}, or {remedy}"
        )
    if train.attention == "flash_attention_2" and not train.use_gpu:
        problems.append("train.attention=flash_attention_2 needs train.use_gpu=true")
    if train.attention == "flex" and not train.use_gpu:
        problems.append(
            "train.attention=flex needs train.use_gpu=true (FlexAttention has no backward pass on CPUs): use "
            "train.attention=segments"
        )
    if train.export == "best" and train.evaluate_every is None:
        problems.append(
            "train.export=best needs evaluations to find the best checkpoint by: set train.evaluate_every, "
            "or train.export=last"
        )
    return problems


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
