"""What other stages lend best-of-N, since no stage imports another: who speaks, and who scores.

Both are made inside the engine actors, so they travel there as functions that can be imported.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from music_ray.config import RunConfig
from music_ray.engines.base import Completion
from music_ray.schema import Message


class Speakers(Protocol):
    """Assistant and user simulator (music_ray.generate.speakers)."""

    async def reply(self, history: Sequence[Message], number: int) -> Completion:
        """A candidate for the next reply: the same for the same history and number."""
        ...

    async def question(self, history: Sequence[Message]) -> Completion:
        """The user's next message: the same for the same history."""
        ...

    def describe(self) -> dict[str, str]:
        """`engine`, `model`, `model_revision` and `user_model`: recorded in every row."""
        ...


class RowScorer(Protocol):
    """The worker of the scoring job (music_ray.score.worker), used without the job."""

    async def work(self, row: dict[str, Any]) -> Any:
        """A row with `messages`, and empty `reason` and `detail`; what comes back has a `score`, or a
        `reason` and a `detail` why there is none."""
        ...

    def counts(self) -> dict[str, int]:
        """Calls and tokens so far."""
        ...


@dataclass(frozen=True)
class Tools:
    """What is lent."""

    check_model: Callable[[str], Any]
    """Refuses a folder that is no reward model; what it returns has a `digest` of the model."""
    scoring_config: Callable[[Any, str, Sequence[str]], RunConfig]
    """The configuration of a scorer: (what check_model returned, a folder, overrides); or it refuses."""
    scorer: Callable[..., RowScorer]
    """Loads a reward model: (its configuration, run epoch, {}, metrics)."""
    speakers: Callable[..., Speakers]
    """Starts the engines: (configuration, counter of calls and tokens, metrics)."""
