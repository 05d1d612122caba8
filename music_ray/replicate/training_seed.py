"""One training seed of a replication: its arms are trained, scored and let pick, unless that is known."""

from __future__ import annotations

from pathlib import Path

from music_ray.evaluate.sides import Tools
from music_ray.replicate.clock import Clock
from music_ray.replicate.outcomes import Outcomes
from music_ray.replicate.picks import compare_picks
from music_ray.replicate.rollouts import Recipe
from music_ray.replicate.scoring import score_suites
from music_ray.replicate.training import arms_at_once, is_trained, train_arms

SCORING = (
    "score.engine=packed", "evaluate.bootstrap_samples=100", "engine.min_engines=2", "engine.max_engines=2",
    "engine.cpus_per_engine=0.5", "generate.conversations_per_task=512", "generate.flush_rows=2048",
)  # fmt: skip
"""Two actors of a thread each, and large tasks: a conversation takes 2 ms, so what a task and a shard take by
themselves counts."""
PICKERS = {"A0", "A1"}
"""Whose picks are compared."""


def bring_to_outcomes(
    recipe: Recipe, outcomes: Outcomes, files: dict[str, Path], seed: int, tools: Tools, clock: Clock
) -> None:
    """Trains and scores the arms of a training seed whose outcomes are not there yet, and compares picks.

    Args:
        files: the file of each arm's pairs.

    Raises:
        MusicRayError: as the stages.
    """
    unknown = {arm for arm in files if not outcomes.has(arm, seed)}
    pickers = PICKERS if recipe.scale.best_of_n_prompts else set()
    if outcomes.has_picks(seed) and not pickers & unknown:
        pickers = set()
    # A picker whose model was removed is trained again, and then scored again: one and the same model is
    # behind an arm's accuracy and its picks.
    unknown |= {arm for arm in pickers if not is_trained(recipe, arm, seed)}
    wanted = [arm for arm in files if arm in unknown | pickers]
    models: dict[str, Path] = {}
    # Scored as soon as they are trained: what is interrupted keeps the outcomes that it has paid for.
    at_once = arms_at_once(recipe) if wanted else 1
    for start in range(0, len(wanted), at_once):
        models |= train_arms(recipe, {arm: files[arm] for arm in wanted[start : start + at_once]}, seed)
        clock.lap("training")
        for arm in wanted[start : start + at_once]:
            if arm in unknown:
                scores = recipe.out / "scores" / f"{arm}-{seed}"
                outcomes.write(arm, seed, score_suites(models[arm], outcomes.suites, scores, tools, SCORING))
                clock.lap("scoring")
        if pickers and pickers <= models.keys():  # at once: of another sitting their models may be gone
            outcomes.write_picks(seed, compare_picks(recipe, models["A1"], models["A0"], seed))
            clock.lap("best-of-N")
            pickers = set()
