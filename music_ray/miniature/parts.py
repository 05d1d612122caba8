"""Which seeds belong to what: training data and evaluation suites never share one.

They never share a list either: users of the training split write out other lists than those of the suites
(world.split_of), so that no conversation can stand in both, not even by chance.
"""

from __future__ import annotations

from music_ray.miniature.world import Split

WIDTH = 10**9
"""Seeds of one part."""
RUN_WIDTH = 10**7
"""Seeds of one run of a part: 100 runs give sets without a common seed."""
PARTS: tuple[str, ...] = (
    "corpus", "preferences", "prompts", "dev", "S1", "S2", "S3", "S4", "S4_control", "S5", "S6",
    "S6_control", "S7", "best_of_n",
)  # fmt: skip
"""S2: first messages that the language model samples from. prompts: the same for training data. dev: whatever
is looked at before the hypotheses are tested."""
_SPLITS: dict[str, Split] = {"corpus": "train", "preferences": "train", "prompts": "train", "dev": "dev"}


def seeds(part: str, run: int = 0) -> range:
    """The seeds of one run of a part.

    Args:
        run: 0 to 99.

    Raises:
        ValueError: no such part or run.
    """
    if part not in PARTS:
        raise ValueError(f"no part {part!r} of the miniature: one of {', '.join(PARTS)}")
    if not 0 <= run < WIDTH // RUN_WIDTH:
        raise ValueError(f"run {run} of {part}: a part has runs 0 to {WIDTH // RUN_WIDTH - 1}")
    start = PARTS.index(part) * WIDTH + run * RUN_WIDTH
    return range(start, start + RUN_WIDTH)


def split_of_part(part: str) -> Split:
    """The split whose lists the users of a part write out."""
    return _SPLITS.get(part, "suites")
