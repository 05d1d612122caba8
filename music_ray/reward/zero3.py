"""DeepSpeed ZeRO stage 3 around the reward model: its configuration, its engine, one training step.

The engine runs with one gradient accumulation step and explicit boundaries, and the loss is scaled by
hand, so that any split of a step's pairs over micro-steps and ranks gives the same gradients. All
passes go through `engine(...)`: calling an inner module would not advance DeepSpeed's micro-step,
and later micro-steps would overwrite gradients.
"""

from __future__ import annotations

import ctypes
import logging
import os
import warnings
from typing import Any

from music_ray.config import LoraConfig, TrainConfig
from music_ray.memory.training import CPU_REDUCE_BUCKET

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
"""Of mallopt(3)."""


def prepare_process(train: TrainConfig) -> None:
    """Settings that must be made before DeepSpeed is imported in a worker."""
    if not train.use_gpu:
        keep_freed_memory()
        os.environ["DS_ACCELERATOR"] = "cpu"
        # DeepSpeed decorates the Muon optimizer, which is not used here, with torch.compile: that alone
        # would import the whole compiler, seconds in every worker.
        os.environ["TORCHDYNAMO_DISABLE"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import torch

    torch.set_num_threads(max(1, int(train.cpus_per_worker)))
    import deepspeed.ops
    import transformers
    from deepspeed.utils import logger

    logger.setLevel(logging.ERROR)
    # DeepSpeed calls collectives by names that torch 2.13 renames, several times a layer.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")
    transformers.logging.set_verbosity_error()
    logging.getLogger("huggingface_hub.serialization").setLevel(logging.ERROR)
    transformers.logging.disable_progress_bar()
    # On the CPU DeepSpeed would compile a shared-memory all-reduce with the C++ compiler at every new
    # machine (half a minute). Only its inference engine calls it; training goes through gloo anyway.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def keep_freed_memory() -> None:
    """Has glibc's malloc keep what is freed in this process, large blocks too; elsewhere nothing changes.

    By itself it gives every block above 32 MiB back to the system at once, and the system zeroes the same
    pages again at the next pass: a fifth of a step's time in a small trial (docs/explanation/lab-log.md).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)
        mallopt(_M_TOP_PAD, 2**26)


def deepspeed_config(train: TrainConfig) -> dict[str, Any]:
    """DeepSpeed's configuration of a training run."""
    zero: dict[str, Any] = {
        "stage": 3,
        "overlap_comm": train.use_gpu,
        "contiguous_gradients": True,
        "sub_group_size": train.zero.sub_group_size,
    }
    if not train.use_gpu:
        # Gradients wait in the bucket, which by default holds those of 500 million parameters: that is
        # for networks whose every message is dear. And gloo has no reduce-scatter of its own, only copies
        # around its all-reduce.
        zero |= {"reduce_bucket_size": CPU_REDUCE_BUCKET, "reduce_scatter": False}
    for key, device in (
        ("offload_optimizer", train.zero.offload_optimizer),
        ("offload_param", train.zero.offload_parameters),
    ):
        if device != "none":
            zero[key] = {"device": device, "pin_memory": train.use_gpu}
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": train.gradient_clipping,
        "zero_optimization": zero,
        # torch's AdamW with offload instead of DeepSpeed's own, which must be compiled first.
        "zero_force_ds_cpu_optimizer": False,
        # Gradients are summed in float32 over ranks and micro-steps also where passes run in bfloat16.
        "communication_data_type": "fp32",
        "data_types": {"grad_accum_dtype": "fp32"},
        "steps_per_print": 10**9,
    }
    if train.precision == "bfloat16":
        config["bf16"] = {"enabled": True}
    return config


def build_engine(train: TrainConfig, model_path: str, *, head_seed: int, pad_token_id: int) -> Any:
    """Loads the reward model partitioned and wraps it in a DeepSpeed engine.

    Must be called on every rank, after torch.distributed is initialised.
    """
    import deepspeed
    from transformers.integrations.deepspeed import HfDeepSpeedConfig, unset_hf_deepspeed_config

    from music_ray.reward_model import RewardModel, load_reward_model

    config = deepspeed_config(train)
    deepspeed.init_distributed(verbose=False)
    # While this object lives, transformers loads every model partitioned: not a moment longer than here.
    partitioned = HfDeepSpeedConfig(config)
    classifier = load_reward_model(
        model_path,
        revision=train.revision,
        num_layers=train.num_layers,
        attention=train.pass_attention,
        dtype=train.precision,
        head_seed=head_seed,
        pad_token_id=pad_token_id,
    )
    unset_hf_deepspeed_config()
    del partitioned
    restore_rotary_frequencies(classifier)
    if train.lora is not None:
        add_adapters(classifier, train.lora, head_seed)
    if train.activation_checkpointing:
        classifier.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model = RewardModel(classifier)
    engine, _, _, _ = deepspeed.initialize(model=model, optimizer=_optimizer(model, train), config=config)
    engine.train()
    return engine


def restore_rotary_frequencies(classifier: Any) -> None:
    """Computes the rotary embeddings' frequencies again, outside of zero.Init.

    Inside of it every new tensor gets the dtype of the parameters. In bfloat16 the frequencies are
    rounded to 8 bits, and at position 1,000 the angles are off by a third of a radian: a model that was
    trained so scores otherwise once it is loaded without DeepSpeed.
    """
    for module in classifier.modules():
        if hasattr(module, "inv_freq"):
            fresh = type(module)(module.config)
            for name, buffer in fresh.named_buffers(recurse=False):
                setattr(module, name, buffer.to(getattr(module, name).device))


def add_adapters(classifier: Any, lora: LoraConfig, seed: int) -> None:
    """Adds LoRA adapters in place; they and the head stay trainable, all else is frozen.

    Raises:
        ConfigError: no layer of the model has one of the names in train.lora.target_modules.
    """
    import torch
    from peft import LoraConfig as PeftLoraConfig
    from peft import inject_adapter_in_model

    from music_ray.errors import ConfigError

    names = {name.rpartition(".")[2] for name, _ in classifier.named_modules()}
    if not names & set(lora.target_modules):
        raise ConfigError(
            f"train.lora.target_modules {lora.target_modules} names no layer of {type(classifier).__name__}: "
            "its linear layers have other names"
        )
    adapters = PeftLoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # a scale, any number will do
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
    )
    torch.manual_seed(seed % 2**63)  # every rank must draw the same adapters
    inject_adapter_in_model(adapters, classifier)
    dtype = classifier.score.weight.dtype
    for name, parameter in classifier.named_parameters():
        parameter.requires_grad_("lora_" in name or name.startswith("score."))
        if "lora_" in name:
            parameter.data = parameter.data.to(dtype)


def _optimizer(model: Any, train: TrainConfig) -> Any:
    """AdamW with weight decay on matrices, none on norms and biases."""
    import torch

    groups: dict[bool, list[Any]] = {True: [], False: []}
    for parameter in model.parameters():
        if parameter.requires_grad:
            # A partitioned parameter's own shape is [0].
            shape = getattr(parameter, "ds_shape", parameter.shape)
            groups[len(shape) >= 2].append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "weight_decay": train.weight_decay if decayed else 0.0}
            for decayed, parameters in groups.items()
            if parameters
        ],
        lr=train.learning_rate,
        betas=train.adam_betas,
        # One pass over the state instead of a dozen, where it is in main memory.
        fused=True if not train.use_gpu or train.zero.offload_optimizer == "cpu" else None,
    )


def set_learning_rate(engine: Any, value: float) -> None:
    """Sets the learning rate of the next optimizer step in all parameter groups."""
    for group in engine.optimizer.param_groups:
        group["lr"] = value
