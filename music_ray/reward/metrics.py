"""What a training step is measured by: loss, rewards, speed, and how much of the computing was needed.

Knows the pairs of a step and their rewards; it does not know how they were laid out, over how many
ranks, or where the numbers are written.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from music_ray.reward.data import PairTokens
from music_ray.reward.packing import num_shared

PEAK_FLOPS = {
    "A100": 312e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200 NVL": 835e12,
    "H200": 989e12,
    "L4": 121e12,
    "L40S": 362e12,
    "A10G": 70e12,
}
"""Dense bfloat16 operations a second by tensor cores, from NVIDIA's data sheets of these products; the
sheets of H100, H200 and L4 print twice as much, for matrices that are half zeros. A row counts when all
its words are in the name that torch gives the device, the first such row."""


@dataclass(frozen=True)
class GroupResult:
    """Some pairs of a step: those of one origin or one source."""

    pairs: int
    loss: float
    accuracy: float
    margin: float


@dataclass(frozen=True)
class StepResult:
    """What one optimizer step saw, the same on every rank and for every number of ranks."""

    loss: float
    """Mean loss of the pairs, as it was trained on."""
    accuracy: float
    """Share of pairs whose chosen side has the higher reward; a tie counts as wrong."""
    margin: float
    """Mean of chosen minus rejected reward."""
    chosen_reward: float
    rejected_reward: float
    gradient_norm: float
    """Global norm before clipping."""
    learning_rate: float
    pairs: int
    tokens: int
    """Real tokens of both sides, without padding."""
    seconds: float
    chosen_reward_std: float
    """Standard deviation over the step's pairs (divided by their number, so 0 for one pair)."""
    rejected_reward_std: float
    tokens_per_second: float
    """Real tokens a second over all ranks."""
    pairs_per_second: float
    padding_share: float
    """Share of the computed tokens that no side holds: 1 - tokens / computed, 0 where fewer were computed."""
    shared_share: float
    """Share of the real tokens that did not have to be computed, because a pair's sides begin alike and
    the beginning was computed once: 1 - computed / tokens, 0 where more were computed. Padding at a pack's
    end is counted as computed, so this is what was saved after all."""
    mfu: float | None
    """Model FLOPs utilisation, see FlopCounter; None where the device's peak is not known."""
    by_origin: dict[str, GroupResult]
    """D and D_MUSIC apart."""
    by_source: dict[str, GroupResult]


def step_result(
    *,
    pairs: PairTokens,
    batch: list[int],
    rewards: Any,
    losses: Any,
    gradient_norm: float,
    learning_rate: float,
    computed_tokens: int,
    seconds: float,
    flops: FlopCounter | None,
) -> StepResult:
    """Measures a finished step.

    Args:
        batch: indices of the step's pairs.
        rewards: of chosen and rejected sides, [2, b].
        losses: of the pairs, [b].
        computed_tokens: tokens that went through the layers on all ranks, padding included.
        seconds: wall time of the step.
        flops: counts the step's FLOPs; None where nobody asks for the MFU.
    """
    chosen, rejected = rewards.double().cpu().numpy()
    loss = losses.double().cpu().numpy()
    sides = [pairs.sides(index) for index in batch]
    tokens = sum(len(side) for pair in sides for side in pair)
    seconds = max(seconds, 1e-9)
    return StepResult(
        **vars(_group(chosen, rejected, loss)),
        chosen_reward=float(chosen.mean()),
        rejected_reward=float(rejected.mean()),
        gradient_norm=gradient_norm,
        learning_rate=learning_rate,
        tokens=tokens,
        seconds=seconds,
        chosen_reward_std=float(chosen.std()),
        rejected_reward_std=float(rejected.std()),
        tokens_per_second=tokens / seconds,
        pairs_per_second=len(batch) / seconds,
        padding_share=max(0.0, 1 - tokens / max(computed_tokens, 1)),
        shared_share=max(0.0, 1 - computed_tokens / tokens),
        mfu=flops.utilisation(sides, seconds) if flops is not None else None,
        by_origin=_by_name([pairs.origins[index] for index in batch], chosen, rejected, loss),
        by_source=_by_name([pairs.sources[index] for index in batch], chosen, rejected, loss),
    )


def _group(chosen: np.ndarray, rejected: np.ndarray, loss: np.ndarray) -> GroupResult:
    return GroupResult(
        pairs=len(loss),
        loss=float(loss.mean()),
        accuracy=float((chosen > rejected).mean()),
        margin=float((chosen - rejected).mean()),
    )


def _by_name(
    names: Sequence[str], chosen: np.ndarray, rejected: np.ndarray, loss: np.ndarray
) -> dict[str, GroupResult]:
    column = np.array(names)
    return {
        name: _group(chosen[column == name], rejected[column == name], loss[column == name])
        for name in sorted(set(names))
    }


# -- FLOPs -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FlopCounter:
    """Floating-point operations that a step needs, whatever it computed.

    A pair needs each of its tokens once: the common beginning of its sides counts once, and neither
    padding nor what activation checkpointing computes again counts at all. So a layout that wastes has a
    lower utilisation, not more work. With N weights in matrix products, of them M trained, t tokens, and
    a(s) pairs of a query and a key that the mask of a layer lets a sequence of s tokens have:

        (4 N + 2 M) t + 12 w sum over layers and sequences of a(s)

    A multiplication and an addition a weight and token forward (2 N), as many for the gradients of the
    activations (2 N) and of the trained weights (2 M): 6 N where all are trained. Attention has two
    products of `w` (heads x head size) a query-key pair, 4 w forward and 8 w backward; a(s) is
    s (s + 1) / 2 under the causal mask, less where a sliding window cuts it: the PaLM paper's count
    (arXiv 2204.02311, appendix B) with the half of the products that the mask takes away left out. Left
    out as well: embeddings, which are looked up, norms, and the reward head, which sees two tokens a pair.
    """

    matrix_weights: int
    """N: weights in matrix products, without embeddings and reward head."""
    trained_weights: int
    """M: how many of them are trained."""
    attention_width: int
    """w: query heads times head size."""
    windows: tuple[int | None, ...]
    """Sliding window of each layer in tokens, the query's own included; None sees all before it."""
    peak_flops: float | None = None
    """Dense operations a second of all devices together; None where they are not known."""

    @classmethod
    def of(cls, classifier: Any, *, peak_flops: float | None = None) -> FlopCounter:
        """The counter of a sequence classifier, whole or partitioned by ZeRO-3.

        Args:
            peak_flops: of all devices together; see device_peak.
        """
        matrix, trained = 0, 0
        for name, parameter in classifier.named_parameters():
            shape = getattr(parameter, "ds_shape", parameter.shape)
            if len(shape) == 2 and "embed" not in name and not name.startswith("score."):
                size = int(np.prod(shape))
                matrix += size
                trained += size if parameter.requires_grad else 0
        config = classifier.config.get_text_config()
        head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return cls(matrix, trained, config.num_attention_heads * head, _windows(config), peak_flops)

    def flops(self, sides: Iterable[tuple[np.ndarray, np.ndarray]]) -> float:
        """Operations of one optimizer step.

        Args:
            sides: token ids of chosen and rejected side of each pair, [s] each.
        """
        tokens = attended = 0
        for chosen, rejected in sides:
            shared = num_shared(chosen, rejected)
            tokens += len(chosen) + len(rejected) - shared
            for window in self.windows:
                attended += _attended(len(chosen), window) + _attended(len(rejected), window)
                attended -= _attended(shared, window)
        weights = 4 * self.matrix_weights + 2 * self.trained_weights
        return float(weights * tokens + 12 * self.attention_width * attended)

    def utilisation(self, sides: Iterable[tuple[np.ndarray, np.ndarray]], seconds: float) -> float | None:
        """MFU: needed operations over what the devices could have done meanwhile; None without a peak."""
        if self.peak_flops is None:
            return None
        return self.flops(sides) / (seconds * self.peak_flops)


def device_peak(device_name: str, num_devices: int = 1, precision: str = "bfloat16") -> float | None:
    """Dense operations a second of some GPUs, from PEAK_FLOPS; None where it is not known.

    Args:
        device_name: as torch.cuda.get_device_name says it, e.g. "NVIDIA H100 80GB HBM3".
        precision: number format of the passes; only bfloat16's peaks are known here.
    """
    words = set(device_name.replace("-", " ").split())
    if precision != "bfloat16" or "MIG" in words:  # A slice of a GPU has a slice of its peak.
        return None
    for product, peak in PEAK_FLOPS.items():
        if set(product.split()) <= words:
            return peak * num_devices
    return None


def _attended(tokens: int, window: int | None) -> int:
    """Query-key pairs of a sequence under the causal mask: the i-th token sees min(i, window)."""
    full = tokens if window is None else min(tokens, window)
    return full * (full + 1) // 2 + (tokens - full) * full


def _windows(config: Any) -> tuple[int | None, ...]:
    window = getattr(config, "sliding_window", None)
    # Where layers are not told apart (Mistral), a window is all layers'.
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"] * config.num_hidden_layers
    return tuple(window if kind == "sliding_attention" else None for kind in kinds)
