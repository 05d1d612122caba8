"""Which generated turns of a rejected branch are spoiled: a function of configuration and ids alone."""

from __future__ import annotations

from music_ray.config import parse_schedule
from music_ray.schema import unit_interval


def contrast_turns(schedule: str, num_turns: int, run_seed: int, seed_id: int) -> frozenset[int]:
    """The contrast turns of one rollout, counted from 1; never empty.

    Args:
        schedule: all | from_turn:K | probability:P | turns:[K, …] (ContrastConfig.schedule).
        num_turns: T.
        run_seed, seed_id: what `probability` draws by, so that a retry draws the same turns.
    """
    kind, argument = parse_schedule(schedule)
    turns = range(1, num_turns + 1)
    if isinstance(argument, list):
        if kind == "from_turn":
            return frozenset(turn for turn in turns if turn >= argument[0])
        return frozenset(argument)
    drawn = frozenset(t for t in turns if unit_interval("contrast", run_seed, seed_id, t) < argument)
    if drawn:
        return drawn
    # A row without a contrast would have equal branches: the one turn it gets is drawn uniformly.
    return frozenset({1 + int(unit_interval("one contrast", run_seed, seed_id) * num_turns)})
