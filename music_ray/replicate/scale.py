"""How much of everything a replication makes."""

from __future__ import annotations

from dataclasses import dataclass, replace

SHORT_ARMS = ("A0", "A1", "A2")
ARMS = (*SHORT_ARMS, "A3", "A4", "A5", "A6")
SUITES = ("S1", "S2", "S3", "S4", "S4_control", "S5", "S6", "S6_control", "S7")
DEV_SUITES = {"dev_S7": "S7", "dev_S1": "S1"}
"""Suites of the development split, and of which kind they are. dev_S7: whether A0 has learnt enough to
conclude anything. dev_S1: whether A1 has learnt what D_MUSIC holds; by these two the training is tuned."""
DEV_NATURAL = "dev_natural"
"""Final turns of the development split with the language model's own errors."""
DEV_EARLY = "dev_S2"
"""The same in earlier turns: what S2 is, but to be looked at while things are tuned."""
NATURAL = ("S2", DEV_NATURAL, DEV_EARLY)
"""What is made of samples: two of one first message are one cluster."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Sizes of one replication; all arms share them."""

    name: str
    arms: tuple[str, ...]
    seeds: int
    """Training seeds of every arm."""
    preferences: int
    """Pairs of D with errors that a program made."""
    music: int
    """Pairs that take D_MUSIC's place, in every arm."""
    rollouts: int
    """Seeds that are rolled out for them; some give no pair."""
    preference_samples: int
    """Rollouts that the natural errors of D are looked for in; 0: D has none."""
    samples: int
    """Rollouts that the natural errors of S2 are looked for in."""
    dev_samples: int
    """Rollouts of the development split's first messages, for natural errors in final turns."""
    suite_pairs: int
    """Pairs of each suite; S2 has as many as the samples give, and at most these."""
    natural_temperature: float = 1.4
    """The assistant's sampling temperature where its own errors are looked for: samples and best-of-N. At 1 a
    third of them is what the language model does not know (docs/explanation/miniature.md)."""
    new_layers: int = 2
    """Layers that reward models have on top of the language model's (music_ray/miniature/deepen.py)."""
    best_of_n_prompts: int = 0
    """First messages of best-of-N, for the models of each training seed; 0 leaves it out."""
    suites: tuple[str, ...] = SUITES
    overrides: tuple[str, ...] = ()
    """KEY=VALUE words for every run's configuration."""


SMOKE = Scale(
    "smoke", ("A0", "A1"), 1, preferences=600, music=250, rollouts=600, preference_samples=0, samples=0,
    dev_samples=0, suite_pairs=300, suites=("S1", "S7"), overrides=("train.steps=150", "train.warmup_steps=8",
        "train.learning_rate=2.0e-3", "train.pairs_per_step=16"),
)  # fmt: skip
"""Does the whole road in minutes; shows a direction, and nothing of sizes."""
SHORT = Scale(
    "short", SHORT_ARMS, 1, preferences=20_000, music=8_000, rollouts=20_000, preference_samples=30_000,
    samples=21_000, dev_samples=4_000, suite_pairs=1_500, best_of_n_prompts=200,
)  # fmt: skip
FULL = Scale(
    "full", ARMS, 5, preferences=30_000, music=12_000, rollouts=30_000, preference_samples=30_000,
    samples=75_000, dev_samples=10_000, suite_pairs=5_000, best_of_n_prompts=400,
    overrides=("train.steps=1480", "train.checkpoint_every=1480"),
)  # fmt: skip
"""Half as many pairs again as SHORT, in as many more steps: the most that was tried on the development
split (docs/explanation/miniature.md, "Third run")."""
ABLATIONS = replace(
    SHORT, name="ablations", best_of_n_prompts=0,
    arms=("A0", "A1", "schedule-all", "schedule-first", "mode-neighbour", "mode-resample", "history-replayed",
        "cut-random", "share-half", "share-quarter"),
)  # fmt: skip
"""What the paper leaves open, beside A0 and A1 (rollouts.VARIANTS, arms.SHARES)."""
SCALES = {scale.name: scale for scale in (SMOKE, SHORT, FULL, ABLATIONS)}
