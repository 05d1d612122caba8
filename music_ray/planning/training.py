"""The plan of the mix, train and evaluate stages: pairs, passes, tokens, what is too long, hours.

Hours come from a measured rate, or from operations: 6 for each parameter and token (8 with activation
checkpointing, 2 less with LoRA, 2 to score), embeddings and attention not counted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from music_ray.config import RunConfig
from music_ray.costs import spent
from music_ray.memory.model_size import model_size
from music_ray.planning.known import Known
from music_ray.planning.lengths import read_preferences
from music_ray.planning.memory import plan_memory
from music_ray.planning.plan import Bounds, Plan, Quantity, add, scale
from music_ray.planning.rollouts import conversation_lengths

_NUM_SIDES, _NUM_MODELS = 2, 2
"""Both sides of a pair are scored, by the trained and by the untrained model."""
_ORIGINS = {"preferences": "D", "music": "D_MUSIC"}
"""What train.mix_weights calls the sources."""


@dataclass(frozen=True)
class _Source:
    """One source of the mix."""

    number: Bounds
    """Pairs."""
    sides: np.ndarray
    """Tokens of both sides of a sample of its pairs, float[pairs, 2]."""
    basis: str

    def over(self, max_tokens: int) -> float:
        """Share of pairs with a side that is too long."""
        return float((self.sides.max(axis=1) > max_tokens).mean()) if len(self.sides) else 0.0

    def pair_tokens(self, max_tokens: int, *, cut: bool) -> float:
        """Mean tokens of a pair that is trained on."""
        sides = np.minimum(self.sides, max_tokens) if cut else self.sides[self.sides.max(1) <= max_tokens]
        return float(sides.sum(axis=1).mean()) if len(sides) else 0.0


def plan_training(known: Known, plan: Plan) -> None:
    """Adds mix.*, train.* and evaluate.* to the plan; plan_rollouts must have run."""
    music = _music(known, plan.quantities["pairs.accepted"].bounds)
    preferences = _preferences(known, plan)
    _plan_mix(known, plan, preferences, music)
    plan_memory(known, plan)
    _plan_evaluation(known, plan, music)


def _music(known: Known, accepted: Bounds) -> _Source:
    lengths, basis = conversation_lengths(known)
    # One length for both sides: the branches have as many turns, and the same speakers.
    return _Source(accepted, np.stack([lengths, lengths], axis=1), basis)


def _preferences(known: Known, plan: Plan) -> _Source | None:
    """D's training part; None where nobody knows yet how large it is, or the mix leaves it out."""
    mix = known.config.mix
    if not mix.include_preferences:
        return None
    if not known.has_seeds:
        plan.notes.append(
            "pairs of D in the mix unknown, and with them passes and training tokens: run "
            "`music-ray seeds CONFIG` first"
        )
        return None
    left_out = mix.held_out_fraction * known.num_seeds  # pairs that share a held-out seed conversation
    number = max(0.0, known.counts("seeds")["train_pairs"] - left_out)
    return _Source((number, number, number), read_preferences(known.run, "train"), "the pairs that are there")


def _plan_mix(known: Known, plan: Plan, preferences: _Source | None, music: _Source) -> None:
    config = known.config
    train = config.train
    quantities = plan.quantities
    sources = {}
    if preferences is not None:
        sources["preferences"] = preferences
    if config.mix.include_music:
        kept = scale(music.number, 1 - config.mix.held_out_fraction)
        sources["music"] = _Source(kept, music.sides, music.basis)
    for name, source in sources.items():
        quantities[f"mix.{name}"] = Quantity.of(source.number, "pairs", source.basis)
    for name, source in sources.items():
        over = source.over(train.max_tokens)
        quantities[f"train.over_length_{name}"] = Quantity.exactly(over, "of its pairs", source.basis)
    seen = float(train.steps * train.pairs_per_step)
    quantities["train.pairs_seen"] = Quantity.exactly(seen, "pairs", "train.steps × train.pairs_per_step")
    if config.mix.include_preferences and preferences is None:
        return
    cut = train.over_length == "cut"
    # What is cut mostly stays; what is dropped is gone.
    stays = {
        name: scale(source.number, 1.0 if cut else 1.0 - source.over(train.max_tokens))
        for name, source in sources.items()
    }
    if not any(number[1] for number in stays.values()):
        plan.notes.append("no pair is left to train on: raise train.max_tokens, or set train.over_length=cut")
        return
    taken = _taken(known, plan, stays, seen)
    if taken is None:
        return
    tokens = sum(
        taken[name] * source.pair_tokens(train.max_tokens, cut=cut) for name, source in sources.items()
    )
    quantities["train.tokens"] = Quantity.exactly(tokens, "tokens", "both sides, without padding")
    _plan_train_hours(known, plan, tokens)


def _taken(known: Known, plan: Plan, stays: dict[str, Bounds], seen: float) -> dict[str, float] | None:
    """How many of the seen pairs are of each source; adds the passes over each. None where one has too few.

    Args:
        stays: pairs of each source that can be trained on.
        seen: pairs over all steps.
    """
    train = known.config.train
    there = {name: number[1] for name, number in stays.items()}
    if train.mix_weights is None:
        together = add(*stays.values())
        basis = "every source alike: pairs are drawn in one order over the whole mix"
        for name in stays:
            plan.quantities[f"train.passes_{name}"] = _passes(seen, together, basis)
        return {name: seen * number / together[1] for name, number in there.items()}
    weights = {name: Fraction(str(train.mix_weights[_ORIGINS[name]])) for name in stays}
    shares = {name: weight / sum(weights.values()) for name, weight in weights.items()}
    for name, share in shares.items():
        if there[name] < (most := math.ceil(train.pairs_per_step * share)):
            plan.notes.append(
                f"train.mix_weights asks for up to {most} pairs of {_ORIGINS[name]} in a step, but about "
                f"{there[name]:.0f} are left to train on: lower its weight or train.pairs_per_step, or get "
                "more pairs"
            )
            return None
    taken = {name: seen * float(share) for name, share in shares.items()}
    for name in stays:
        basis = f"{float(shares[name]):.3g} of all that is seen (train.mix_weights), in an order of its own"
        plan.quantities[f"train.passes_{name}"] = _passes(taken[name], stays[name], basis)
    return taken


def _passes(taken: float, pairs: Bounds, basis: str) -> Quantity:
    fewest, expected, most = pairs
    return Quantity(taken / most, taken / expected, taken / max(fewest, 1.0), "passes", basis)


def _plan_train_hours(known: Known, plan: Plan, tokens: float) -> None:
    config = known.config
    train, costs = config.train, config.costs
    rate, basis = costs.train_tokens_per_second_per_worker, "costs.train_tokens_per_second_per_worker"
    if rate is None:
        operations = 6.0 + (2.0 if train.activation_checkpointing else 0.0) - (2.0 if train.lora else 0.0)
        rate, basis = _rate_of_operations(config, operations, plan)
    if rate is None:
        plan.notes.append(
            "hours and cost of training unknown: set costs.train_tokens_per_second_per_worker, or "
            "costs.peak_tflops and costs.mfu"
        )
        return
    seconds = tokens / rate  # of workers
    wall = seconds / train.num_workers / 3600
    plan.quantities["train.wall_hours"] = Quantity.exactly(
        wall, "hours", f"{train.num_workers} worker(s); {basis}"
    )
    _add_cost(known, plan, "train", seconds if train.use_gpu else 0.0, seconds * train.cpus_per_worker, basis)


def _rate_of_operations(config: RunConfig, operations: float, plan: Plan) -> tuple[float | None, str]:
    """Tokens a second of one GPU, and the basis; None where its peak or the model is not known."""
    costs, train = config.costs, config.train
    if costs.peak_tflops is None or costs.mfu is None or not train.use_gpu:
        return None, ""
    size = model_size(train.base_model, train.revision)
    if size is None:
        note = f"size of {train.base_model} unknown: it has no config.json on this machine that says it"
        if note not in plan.notes:
            plan.notes.append(note)
        return None, ""
    parameters = size.matrix_parameters(train.num_layers)
    rate = costs.mfu * costs.peak_tflops * 1e12 / (operations * parameters)
    return rate, f"{operations:g} operations × {parameters / 1e9:.2f} billion parameters, costs.mfu"


def _plan_evaluation(known: Known, plan: Plan, music: _Source) -> None:
    config = known.config
    limit = config.evaluate.max_pairs
    held_out = scale(music.number, config.mix.held_out_fraction)[1]
    suites = [(held_out, music.sides)]
    if known.has_seeds:
        sides = read_preferences(known.run, "held_out")
        suites.append((float(known.counts("seeds")["held_out_pairs"]), sides))
    pairs, tokens = 0.0, 0.0
    for number, sides in suites:
        taken = min(number, limit) if limit else number
        pairs += taken
        tokens += taken * float(sides.sum(axis=1).mean()) if len(sides) else 0.0
    note = (
        "MUSIC pairs and held-out pairs of D" if known.has_seeds else "MUSIC pairs alone; D is not known yet"
    )
    plan.quantities["evaluate.pairs"] = Quantity.exactly(pairs, "pairs", note)
    tokens *= _NUM_MODELS
    plan.quantities["evaluate.tokens"] = Quantity.exactly(tokens, "tokens", "both sides, both models")
    if config.evaluate.use_gpu:
        rate, basis = _rate_of_operations(config, 2.0, plan)
        if rate is not None:
            _add_cost(known, plan, "evaluate", tokens / rate, 0.0, basis)


def _add_cost(
    known: Known, plan: Plan, stage: str, gpu_seconds: float, cpu_seconds: float, basis: str
) -> None:
    bill = spent(gpu_seconds, cpu_seconds, {}, known.config)
    plan.quantities[f"{stage}.gpu_hours"] = Quantity.exactly(bill.gpu_hours, "GPU hours", basis)
    if bill.cost is not None and not bill.unpriced:
        plan.quantities[f"{stage}.cost"] = Quantity.exactly(bill.cost, bill.currency, "costs")
