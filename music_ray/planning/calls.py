"""The calls of one rollout, from the configuration alone: how many, by whom, on how long a prompt.

A rollout is grown here as generate grows it, with lengths in the place of texts. Prompts are paths in a
tree of text pieces; what an earlier call of the same rollout has run through the engine lies in its
prefix cache. Texts that are drawn again, and rollouts that stop early, are not foreseen.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field

from music_ray.config import RunConfig, parse_schedule
from music_ray.costs import engine_of_role
from music_ray.schema import unit_interval

GPU_BLOCK, CPU_BLOCK = 16, 32
"""Tokens of a block of vLLM's prefix cache by device: what is cached is a whole number of them."""
ENUMERATED_TURNS = 8
"""Up to so many turns every subset of contrast turns is counted with its probability."""
DRAWN_SCHEDULES = 200
"""With more turns, so many schedules are drawn."""

ROOT = 0


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of the pieces that conversations and prompts are made of, each with its message's markers."""

    before: float = 0.0
    """The seed without its last user message."""
    question: float = 0.0
    """A user message of the simulator."""
    opening: float = 0.0
    """The seed's last user message."""
    reply: float = 0.0
    """A reply of either branch."""
    hint: float = 0.0
    """assistant.hint."""
    user_prompt: float = 0.0
    """What tells the model to play the user."""
    contrast_prompt: float = 0.0
    """What tells it to contrast, after the user message."""
    header: float = 0.0
    """What opens the message that is to be written."""
    completions: Mapping[str, float] = field(default_factory=dict)
    """Generated tokens by role: assistant, user, contrast."""


@dataclass(frozen=True, slots=True)
class PlannedCall:
    """One engine call."""

    role: str
    branch: str
    turn: int
    prompt_tokens: float
    cached_tokens: float
    completion_tokens: float


def schedules(config: RunConfig) -> list[tuple[float, frozenset[int]]]:
    """The possible sets of contrast turns with their probabilities, which add up to 1."""
    kind, argument = parse_schedule(config.contrast.schedule)
    turns = range(1, config.generate.turns + 1)
    if kind == "from_turn" and isinstance(argument, list):
        return [(1.0, frozenset(turn for turn in turns if turn >= argument[0]))]
    if isinstance(argument, list):
        return [(1.0, frozenset(argument))]
    # A row in which no turn was drawn gets one, drawn uniformly.
    none = (1.0 - argument) ** len(turns)
    alone = [(none / len(turns), frozenset({turn})) for turn in turns]
    if len(turns) <= ENUMERATED_TURNS:
        subsets = [
            frozenset(subset)
            for size in range(1, len(turns) + 1)
            for subset in itertools.combinations(turns, size)
        ]
        drawn = [(_probability(argument, len(subset), len(turns)), subset) for subset in subsets]
    else:
        several = [
            frozenset(turn for turn in turns if unit_interval("plan", number, turn) < argument)
            for number in range(DRAWN_SCHEDULES)
        ]
        several = [subset for subset in several if subset] or [frozenset(turns)]
        drawn = [((1.0 - none) / len(several), subset) for subset in several]
    return [one for one in (*drawn, *alone) if one[0] > 0]


def _probability(each: float, size: int, turns: int) -> float:
    return each**size * (1.0 - each) ** (turns - size)


def plan_rollout(
    config: RunConfig, spoiled: frozenset[int], lengths: Lengths, block: int = GPU_BLOCK
) -> list[PlannedCall]:
    """The calls of one rollout whose rejected branch is spoiled at these turns."""
    growing = _Growing(config, lengths, block)
    first = min(spoiled)
    here = growing.seed()
    for turn in range(1, first):
        here = growing.answer(here, turn, "shared")
        here = growing.ask_on(here, turn, "shared")
    growing.chosen(here, first)
    growing.rejected(here, spoiled)
    return growing.calls


def expected_calls(config: RunConfig) -> dict[str, float]:
    """Calls of one rollout by role, as expected over the schedule."""
    counts = dict.fromkeys(("assistant", "user", "contrast"), 0.0)
    for probability, spoiled in schedules(config):
        for call in plan_rollout(config, spoiled, Lengths()):
            counts[call.role] += probability
    return counts


class _Prefixes:
    """Texts as paths from a root, and which of them each engine has run through."""

    def __init__(self, block: int) -> None:
        self._block = block
        self._children: dict[tuple[int, str], int] = {}
        self._parents = [ROOT]
        self._tokens = [0.0]
        self._seen: set[tuple[int, int]] = set()
        """(engine, text)."""

    def child(self, node: int, piece: str, tokens: float) -> int:
        """The text of `node` and then this piece; pieces of the same name are the same text."""
        key = (node, piece)
        if key not in self._children:
            self._children[key] = len(self._parents)
            self._parents.append(node)
            self._tokens.append(self._tokens[node] + tokens)
        return self._children[key]

    def tokens(self, node: int) -> float:
        """Of the whole text."""
        return self._tokens[node]

    def cached(self, engine: int, node: int) -> float:
        """Tokens of the longest beginning that the engine has seen, less half a block."""
        while node != ROOT and (engine, node) not in self._seen:
            node = self._parents[node]
        return max(0.0, self._tokens[node] - (self._block - 1) / 2)

    def see(self, engine: int, node: int) -> None:
        """The engine runs through a text and all its beginnings."""
        while node != ROOT and (engine, node) not in self._seen:
            self._seen.add((engine, node))
            node = self._parents[node]


class _Growing:
    """One rollout on its way; nodes are conversations."""

    def __init__(self, config: RunConfig, lengths: Lengths, block: int) -> None:
        self.config, self.lengths = config, lengths
        self.texts = _Prefixes(block)
        self.calls: list[PlannedCall] = []
        self.before: dict[int, int] = {}
        """Of a conversation that ends on a user message: the same without it."""

    def seed(self) -> int:
        start = self.texts.child(ROOT, "before", self.lengths.before)
        return self._question(start, "opening", self.lengths.opening)

    def chosen(self, here: int, first: int) -> None:
        for turn in range(first, self.config.generate.turns + 1):
            if turn > first:
                here = self.ask_on(here, turn - 1, "chosen")
            here = self.answer(here, turn, "chosen")

    def rejected(self, here: int, spoiled: frozenset[int]) -> None:
        first = min(spoiled)
        for turn in range(first, self.config.generate.turns + 1):
            if turn > first and self.config.user.history == "replay_chosen":
                here = self._question(here, f"chosen question {turn - 1}", self.lengths.question)
            elif turn > first:
                here = self.ask_on(here, turn - 1, "rejected")
            if turn in spoiled:
                here = self.contrast(here, turn, shown=turn == first)
            else:
                here = self.answer(here, turn, "rejected")

    def answer(self, here: int, turn: int, branch: str) -> int:
        """A straight reply to the last user message."""
        name = f"{branch} reply {turn}"
        self._reply_call(here, name, turn, branch)
        return self.texts.child(here, name, self.lengths.reply)

    def ask_on(self, here: int, turn: int, branch: str) -> int:
        """The simulator's next message."""
        name = f"{branch} question {turn}"
        if self.config.user.mode == "template":
            prompt = here
        else:
            prompt = self.texts.child(here, "user prompt", self.lengths.user_prompt)
        self._call("user", branch, turn, prompt, name, self.lengths.question)
        return self._question(here, name, self.lengths.question)

    def contrast(self, here: int, turn: int, *, shown: bool) -> int:
        """A reply to something else; the conversation keeps the user's real message."""
        name, contrast = f"contrasted reply {turn}", self.config.contrast
        if contrast.plugin or contrast.mode in ("joint", "two_step", "direct"):
            prompt = self.texts.child(here, f"contrast {turn}", self.lengths.contrast_prompt)
            if shown and contrast.show_chosen_reply:
                prompt = self.texts.child(prompt, "chosen reply", self.lengths.reply)
            self._call("contrast", "rejected", turn, prompt, f"contrast text {turn}", 0.0)
        elif contrast.mode == "resample":
            prompt = self.before[here]
            if self.config.user.mode != "template":
                prompt = self.texts.child(prompt, "user prompt", self.lengths.user_prompt)
            self._call("contrast", "rejected", turn, prompt, f"modified {turn}", self.lengths.question)
        if not contrast.plugin and contrast.mode in ("two_step", "neighbour", "resample"):
            modified = self._question(self.before[here], f"modified {turn}", self.lengths.question)
            self._reply_call(modified, name, turn, "rejected")
        return self.texts.child(here, name, self.lengths.reply)

    def _question(self, here: int, name: str, tokens: float) -> int:
        node = self.texts.child(here, name, tokens)
        self.before[node] = here
        return node

    def _reply_call(self, here: int, name: str, turn: int, branch: str) -> None:
        prompt = here
        if self.config.assistant.hint is not None:
            prompt = self.texts.child(here, "hint", self.lengths.hint)
        self._call("assistant", branch, turn, prompt, name, self.lengths.reply)

    def _call(self, role: str, branch: str, turn: int, prompt: int, name: str, message: float) -> None:
        """One call; its text becomes the piece `name`, of so many tokens as a message."""
        engine = engine_of_role(self.config, role)
        self.calls.append(
            PlannedCall(
                role=role,
                branch=branch,
                turn=turn,
                prompt_tokens=self.texts.tokens(prompt) + self.lengths.header,
                # What an endpoint caches is its own affair: nothing is hoped for.
                cached_tokens=0.0 if engine.endpoint else self.texts.cached(id(engine), prompt),
                completion_tokens=self.lengths.completions.get(role, 0.0),
            )
        )
        self.texts.see(id(engine), self.texts.child(prompt, name, message))
