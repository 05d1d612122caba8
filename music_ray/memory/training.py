"""What a reward training takes of each worker's memory, from the model's size and the train section.

The parts and where their formulas come from:

- parameters, gradients, optimizer: ZeRO stage 3 (arXiv 1910.02054, section 5), each divided by the
  number of workers: the working weights, 4 bytes of float32 gradient sums, and 12 of float32 master
  weights and Adam's two moments for each trained weight;
- activations: counted as in arXiv 2205.05198 (section 4), but for gated feed-forwards, root-mean-square
  norms and no dropout, from what transformers' layers keep for the backward pass;
- gathered weights and buffers: what DeepSpeed's stage3.py really allocates at its defaults.

It is arithmetic: kernels' scratch memory, the allocator's gaps and what a library holds on the side
are in `PROCESS` and in the share of a GPU that `fitting.py` leaves free.
"""

from __future__ import annotations

from dataclasses import dataclass

from music_ray.config import LoraConfig, TrainConfig
from music_ray.memory.gpus import GIB
from music_ray.memory.model_size import ModelSize

REDUCE_BUCKET = 500_000_000
PREFETCH_BUCKET = 50_000_000
REUSE_DISTANCE = 1_000_000_000
"""DeepSpeed's defaults, in elements (reduce_bucket_size, stage3_prefetch_bucket_size,
stage3_max_reuse_distance): reward/zero3.py leaves them as they are on GPUs, and a test compares."""
CPU_REDUCE_BUCKET = 4_000_000
"""reduce_bucket_size on the CPU, where messages are cheap and reward/zero3.py sets it."""

PROCESS = 1.2 * GIB
"""Of a worker on the CPU besides: Python, torch, transformers, DeepSpeed, Ray (measured: 0.8 GiB of memory of
its own, the rest are libraries' files and Ray's worker)."""
CUDA_CONTEXT = 1.5 * GIB
"""Of a worker on its GPU before it holds a model: CUDA's context, cuBLAS's and NCCL's buffers. A guess
from what others report; not measured here."""

_FLOAT32 = 4


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes of one worker: of its GPU, or without GPUs of its process."""

    parameters: float
    """The worker's part of the working weights."""
    gradients: float
    """Its part of the float32 gradient sums."""
    optimizer: float
    """Its part of the master weights and Adam's moments."""
    activations: float
    """What the longest pass keeps for the backward pass, and the backward pass's own temporaries."""
    working: float
    """The most that is there beside these at once: gathered weights, gradients on their way between the
    workers, the optimizer step's temporaries; on GPUs less the activations that are gone by then."""
    process: float
    """Libraries and contexts."""
    host: float
    """With GPUs and offload: of the machine's memory. Else 0."""
    export: float
    """Of rank 0's machine while it writes the model: all weights, and the model loaded again."""

    @property
    def total(self) -> float:
        """The most that one worker takes while it trains."""
        states = self.parameters + self.gradients + self.optimizer
        return states + self.activations + self.working + self.process


def training_memory(size: ModelSize, train: TrainConfig, world_size: int) -> MemoryPlan:
    """What each of `world_size` workers takes.

    With P weights, T of them trained, w bytes a working weight and N workers, ZeRO-3 keeps w·P/N, 4·T/N
    and 12·T/N bytes. Offload moves them to the host; there the optimizer's gradients are held twice.

    Beside them there are three moments of which the fullest counts:

    - the turn from forward to backward: all activations; w · min(P, 0.55·10⁹ + one layer) of gathered
      weights, since weights that come again within 10⁹ elements are not let go; and a copy of the
      gradients that are sent together, 4 bytes each, 0.5·10⁹ at most;
    - the end of the backward pass: the embeddings gathered, w·E, their whole gradient, w·E, and its
      float32 form, 4·E;
    - the step: the sub-group's gradients once more and Adam's temporaries, 8 bytes (12 on the CPU) for
      each of min(sub_group_size, T/N).

    A GPU holds the bucket of 0.5·10⁹ float32 gradients from the start, and its activations are gone at
    the end of the backward pass. On the CPU a page that is never written to takes nothing, but glibc
    keeps the memory of activations and gathered weights for the next pass (measured: bench/memory.py).
    One worker alone gathers nothing, unless its weights are offloaded.

    Args:
        size: of the whole model; train.num_layers is taken into account.
    """
    size = size.first_layers(train.num_layers)
    width, on_gpu = bytes_per_weight(train), train.use_gpu
    total, trained = size.parameters, num_trained(size, train.lora)
    offload_parameters = train.zero.offload_parameters != "none"
    offload_optimizer = train.zero.offload_optimizer != "none"
    parameters = width * total / world_size
    gradients = _FLOAT32 * trained / world_size * (2 if offload_optimizer else 1)
    optimizer = 3 * _FLOAT32 * trained / world_size
    step = min(train.zero.sub_group_size, trained / world_size) * _FLOAT32 * (2 if on_gpu else 3)
    kept = activations(size, train)
    bucket = _FLOAT32 * min(reduce_bucket(train), trained)
    gathered = _gathered_at_the_turn(size, train, world_size)
    moments = [gathered + bucket, _end_of_backward(size, train, world_size), gathered + step]
    if on_gpu:
        moments = [moments[0], moments[1] - kept, step - kept]
    host = 0.0
    if on_gpu and offload_parameters:
        host, parameters = parameters, 0.0
    if on_gpu and offload_optimizer:
        host, gradients, optimizer = host + gradients + optimizer + step, 0.0, 0.0
        moments.pop()
    return MemoryPlan(
        parameters=parameters,
        gradients=gradients,
        optimizer=optimizer,
        activations=kept,
        working=(_FLOAT32 * reduce_bucket(train) if on_gpu else bucket) + max(moments),
        process=CUDA_CONTEXT if on_gpu else PROCESS,
        host=host,
        export=2.0 * width * total,
    )


def reduce_bucket(train: TrainConfig) -> int:
    """Gradients that are reduced together, in elements."""
    return REDUCE_BUCKET if train.use_gpu else CPU_REDUCE_BUCKET


def num_trained(size: ModelSize, lora: LoraConfig | None) -> int:
    """Weights that get a gradient: all, or the adapters and the head.

    An adapter of a layer in → out has rank · (in + out) weights; names that are not a Llama-like
    decoder's count nothing.
    """
    if lora is None:
        return size.parameters
    hidden, inner = size.hidden, size.heads * size.head_dim
    shapes = {
        "q_proj": hidden + inner,
        "k_proj": hidden + size.kv_heads * size.head_dim,
        "v_proj": hidden + size.kv_heads * size.head_dim,
        "o_proj": inner + hidden,
        "gate_proj": hidden + size.intermediate,
        "up_proj": hidden + size.intermediate,
        "down_proj": size.intermediate + hidden,
    }
    adapted = sum(shapes.get(name, 0) for name in lora.target_modules)
    return lora.rank * adapted * size.num_layers + hidden


# -- activations -----------------------------------------------------------------------------------


def tokens_of_a_pass(train: TrainConfig) -> int:
    """Tokens that one pass of a worker can hold: a pair has two sides of train.max_tokens at most."""
    pair = 2 * train.max_tokens
    return train.micro_pairs * pair if train.packing == "padded" else max(train.micro_tokens, pair)


def activations(size: ModelSize, train: TrainConfig) -> float:
    """Bytes of activations at the turn of the longest pass.

    Without activation checkpointing all layers keep theirs. With it each layer keeps its input, w·h a
    token, and one layer at a time is computed again. The backward pass of a layer has as temporaries the
    gradients of its feed-forward's four inner vectors, or of three matrices of attention logits where
    those are made: whichever are larger.
    """
    tokens, width = tokens_of_a_pass(train), bytes_per_weight(train)
    layer = tokens * layer_bytes_per_token(size, train)
    kept = size.num_layers * layer
    if train.activation_checkpointing:
        kept = size.num_layers * tokens * width * size.hidden + layer
    logits = 0.0
    if _makes_logits(size, train):
        # Packed conversations are computed one after the other, padded ones together.
        queries = tokens if train.packing == "padded" else min(tokens, train.max_tokens)
        logits = 3.0 * _FLOAT32 * size.heads * queries * train.max_tokens
    return kept + max(4.0 * width * tokens * size.intermediate, logits)


def layer_bytes_per_token(size: ModelSize, train: TrainConfig) -> float:
    """Bytes that one layer keeps of one token for its backward pass.

    With h hidden and f feed-forward numbers, a heads of d numbers (k for keys) and w bytes a number:

    - a norm before a block: its input and the normed input, in float32 where the family works so, and
      the scaled output: 12·h in float32; in bfloat16 8·h, or 10·h with Gemma's norms, whose normed
      input is float32 too. A norm after a block (Gemma-2) keeps no output: 8·h;
    - attention: queries, keys, values and the output, once more where it is laid out anew for the
      output matrix; keys and values for each head instead of each group where the function repeats
      them; and 8 bytes for each head and key (tanh and float32 softmax) where it makes the logits;
    - feed-forward: gate, its activation, up, their product: 4·w·f.
    """
    width, inner, groups = bytes_per_weight(train), size.heads * size.head_dim, size.kv_heads * size.head_dim
    four = size.norms_per_layer == 4
    before = 12 if width == _FLOAT32 else (10 if four else 8)
    norms = size.hidden * (2 * before + (2 * 8 if four else 0))
    kind = _attention(size, train)
    numbers = {
        "segments": (7 if train.packing == "shared_prefix" else 5) * inner,
        "eager": 4 * inner,
    }.get(kind, 3 * inner + 2 * groups)
    logits = 8.0 * size.heads * train.max_tokens if _makes_logits(size, train) else 0.0
    return norms + width * (numbers + 4 * size.intermediate) + logits


def _attention(size: ModelSize, train: TrainConfig) -> str:
    """segments, flex, eager, sdpa or flash_attention_2."""
    if train.pass_attention != "auto":  # noqa: S105  (no password)
        return train.pass_attention
    return "eager" if size.soft_capped else "sdpa"


def _makes_logits(size: ModelSize, train: TrainConfig) -> bool:
    """Whether the attention writes its matrix of logits to memory."""
    kind = _attention(size, train)
    return kind == "eager" or (kind == "segments" and size.soft_capped)


# -- weights that are whole for a while ------------------------------------------------------------


def _gathered_at_the_turn(size: ModelSize, train: TrainConfig, world_size: int) -> float:
    # A weight at a distance x from the turn comes again after 2x elements.
    near = REUSE_DISTANCE // 2 + PREFETCH_BUCKET + size.layer_parameters
    return _gathered(min(size.parameters, near), train, world_size)


def _end_of_backward(size: ModelSize, train: TrainConfig, world_size: int) -> float:
    embeddings = size.embedding_parameters
    gathered = _gathered(min(size.parameters, embeddings + PREFETCH_BUCKET), train, world_size)
    if train.lora is not None:
        return gathered + _FLOAT32 * min(reduce_bucket(train), num_trained(size, train.lora))
    whole = bytes_per_weight(train) * embeddings
    return gathered + whole + _FLOAT32 * max(min(reduce_bucket(train), size.parameters), embeddings)


def _gathered(elements: float, train: TrainConfig, world_size: int) -> float:
    alone = world_size == 1 and train.zero.offload_parameters == "none"
    return 0.0 if alone else float(bytes_per_weight(train) * elements)


def bytes_per_weight(train: TrainConfig) -> int:
    """Of a working weight and of most activations."""
    return 4 if train.precision == "float32" else 2
