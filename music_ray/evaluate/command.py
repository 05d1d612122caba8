"""What `music-ray evaluate --model … --pairs …` does with its words; with a CONFIG it is a run's stage."""

from __future__ import annotations

from collections.abc import Sequence

from music_ray.errors import ConfigError
from music_ray.evaluate.any_model import evaluate_models
from music_ray.evaluate.show import print_evaluation
from music_ray.evaluate.sides import Tools
from music_ray.progress import say


def evaluate_any(
    models: Sequence[str],
    pairs: Sequence[str],
    out: str | None,
    verdicts: str | None,
    words: Sequence[str],
    tools: Tools,
    *,
    sensitivity: bool = False,
    dry_run: bool = False,
) -> None:
    """Evaluates models on pair sets and prints the tables; see evaluate_models for the arguments.

    Raises:
        MusicRayError: as evaluate_models, and for words that do not go together.
    """
    if sensitivity and not (models and pairs):
        raise ConfigError("--sensitivity goes with --model and --pairs: name both, or leave it out")
    if not models or not pairs:
        raise ConfigError("evaluate needs a CONFIG, or both --model and --pairs")
    if dry_run:
        raise ConfigError("--dry-run goes with a CONFIG, not with --model: leave it out")
    for option, names in (("--model", models), ("--pairs", pairs)):
        twice = next((name for index, name in enumerate(names) if name in names[:index]), None)
        if twice is not None:
            raise ConfigError(f"{option} {twice} is given twice: name it once")
    wrong = next((word for word in words if "=" not in word), None)
    if wrong is not None:
        raise ConfigError(
            f"{wrong} is no KEY=VALUE: with --model there is no CONFIG, and every file of pairs has its own "
            "--pairs"
        )
    result = evaluate_models(models, pairs, out, verdicts, words, tools, sensitivity=sensitivity)
    print_evaluation(result)
    say(f"evaluate: {result['file']}")
