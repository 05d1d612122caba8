"""What the contrast and user modes cost, and whether they contrast, with one small model and no Ray.

    python -m music_ray.bench.contrasts [--questions N] [--mode MODE] [--out FILE.json] [key=value …]

Every setting rolls out the same questions (music_ray.bench.questions) on one engine. A contrasted first
reply misses its instruction if the expected answer is not in it; that counts only where the chosen reply
has the answer, since a model that does not know it misses it on both sides. It says nothing of a larger
model: joint, two_step and direct need one that follows instructions; name it with engine.model=….
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from music_ray.bench.questions import QUESTIONS, Question
from music_ray.bench.record import write_facts
from music_ray.config import AuditConfig, RunConfig
from music_ray.config.load import apply_overrides, resolve_config
from music_ray.config.roles import PROMPTED_MODES
from music_ray.engines import make_engine
from music_ray.engines.base import Engine, RoleEngines
from music_ray.generate.neighbours import NeighbourPool
from music_ray.generate.rollout import Cast, roll_out
from music_ray.models import DEMO_MODEL
from music_ray.progress import quieten_libraries, say
from music_ray.schema import Rollout, SeedContext, content_id, conversation_hash

BASE: dict[str, Any] = {
    "name": "bench-contrasts",
    "engine": {"model": DEMO_MODEL, "max_model_len": 1024, "max_num_seqs": 64, "enforce_eager": True},
    "assistant": {"sampling": {"temperature": 0.3, "max_tokens": 24}},
    "user": {"sampling": {"max_tokens": 16}, "max_attempts": 2},
    "contrast": {"sampling": {"max_tokens": 64}, "max_attempts": 2, "schedule": "all"},
    "generate": {"turns": 2},
}
"""Short texts: the questions have short answers, and the whole table is to take minutes on a CPU."""
Auc = tuple[float, float, float]
"""An AUC with the ends of its interval."""
MODES = ("joint", "two_step", "direct", "neighbour", "resample")
USERS = ("template", "prompted")
HISTORIES = ("own", "replay_chosen")


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table."""

    mode: str
    shows_chosen: bool = False
    user: str = "template"
    history: str = "own"

    @property
    def name(self) -> str:
        """As the table shows it."""
        shown = " + chosen" if self.shows_chosen else ""
        return f"{self.mode}{shown} / {self.user} / {self.history}"


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of one setting."""

    rollouts: int
    ok: int
    reasons: dict[str, int]
    """Why error rows have no pair, and why ok rows stopped early, with counts."""
    known: int
    """Pairs whose first chosen reply holds the answer."""
    missed: int
    """Those of them whose first rejected reply does not."""
    calls_a_pair: float | None
    """Calls, tokens: of all rollouts, the failed ones too, over the ok ones; None without any."""
    prompt_tokens_a_pair: float | None
    completion_tokens_a_pair: float | None
    audit_auc: Auc | None
    """Of the shortcut audit by surface features of the whole pair; None with too few pairs."""
    user_auc: Auc | None
    """The same of the user messages alone."""
    seconds: float


def settings(modes: Sequence[str] = MODES) -> list[Setting]:
    """The rows: every mode with every kind of user, and once more where it can show the chosen reply."""
    rows = [Setting(mode, False, user, history) for mode in modes for user in USERS for history in HISTORIES]
    return rows + [Setting(mode, shows_chosen=True) for mode in modes if mode in PROMPTED_MODES]


def config_of(base: RunConfig, setting: Setting) -> RunConfig:
    """The base configuration with one row's modes."""
    user = base.user.model_copy(update={"mode": setting.user, "history": setting.history})
    contrast = base.contrast.model_copy(
        update={"mode": setting.mode, "show_chosen_reply": setting.shows_chosen}
    )
    return base.model_copy(update={"user": user, "contrast": contrast})


def seed_of(question: Question) -> SeedContext:
    """A conversation of the question alone."""
    messages: list[Any] = [{"role": "user", "content": question.text}]
    number = content_id(messages)
    return SeedContext(number, "questions", str(number), conversation_hash(messages), messages)


async def roll_all(engine: Engine, config: RunConfig, questions: Sequence[Question]) -> list[Rollout]:
    """One rollout a question, all at once, in the order of the questions."""
    pool = NeighbourPool([question.text for question in questions], config.contrast.max_similarity)
    cast = Cast.of(config, RoleEngines.same(engine), pool, run_epoch=1)
    return await asyncio.gather(*(roll_out(seed_of(question), cast) for question in questions))


def measure(questions: Sequence[Question], rollouts: Sequence[Rollout], seconds: float) -> Measured:
    """Counts of one setting; the schedule is `all`, so the first reply is a contrasted one."""
    calls = [call for rollout in rollouts for call in rollout.calls]
    ok = [rollout for rollout in rollouts if rollout.status == "ok"]
    known = [
        (question, rollout)
        for question, rollout in zip(questions, rollouts, strict=True)
        if rollout.status == "ok" and question.is_answered_by(rollout.chosen[1]["content"])
    ]
    missed = sum(not question.is_answered_by(rollout.rejected[1]["content"]) for question, rollout in known)

    def a_pair(total: int) -> float | None:
        return total / len(ok) if ok else None

    return Measured(
        rollouts=len(rollouts),
        ok=len(ok),
        reasons=dict(Counter(rollout.reason for rollout in rollouts if rollout.reason).most_common()),
        known=len(known),
        missed=missed,
        calls_a_pair=a_pair(len(calls)),
        prompt_tokens_a_pair=a_pair(sum(call.prompt_tokens for call in calls)),
        completion_tokens_a_pair=a_pair(sum(call.completion_tokens for call in calls)),
        **audit_aucs(rollouts),
        seconds=seconds,
    )


def table(results: dict[Setting, Measured]) -> Iterator[str]:
    """The lines of the Markdown table."""
    head = ["mode", "user", "history", "ok", "failed or stopped", "chosen hits", "rejected misses"]
    head += ["calls a pair", "prompt tokens", "completion tokens", "AUC", "AUC of users"]
    yield _line(head)
    yield _line(["---"] * len(head))
    for setting, found in results.items():
        cells = [setting.mode + " + chosen reply" * setting.shows_chosen, setting.user, setting.history]
        cells += [f"{found.ok}/{found.rollouts}", ", ".join(f"{k} {n}" for k, n in found.reasons.items())]
        cells += [f"{found.known}/{found.ok}", f"{found.missed}/{found.known}"]
        cells += [_number(found.calls_a_pair, 1), _number(found.prompt_tokens_a_pair, 0)]
        cells += [_number(found.completion_tokens_a_pair, 0)]
        yield _line([*cells, _interval(found.audit_auc), _interval(found.user_auc)])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _interval(auc: Auc | None) -> str:
    return "–" if auc is None else "{:.2f} [{:.2f}, {:.2f}]".format(*auc)


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def audit_aucs(rollouts: Sequence[Rollout]) -> dict[str, Auc | None]:
    """The shortcut audit's AUC of the pairs that were made, by the name of Measured's field."""
    from music_ray.generate.audit import audit_pairs
    from music_ray.generate.pairs import music_pair

    pairs = [music_pair(rollout) for rollout in rollouts if rollout.status == "ok"]
    views = audit_pairs(pairs, AuditConfig(), seed=0).views
    found: dict[str, Auc | None] = {}
    for name, view in (("audit_auc", views["surface/whole"]), ("user_auc", views["surface/user"])):
        measured = view.auc is not None and view.low is not None and view.high is not None
        found[name] = (view.auc, view.low, view.high) if measured else None  # type: ignore[assignment]
    return found


def _write(path: str, base: RunConfig, num_questions: int, results: dict[Setting, Measured]) -> None:
    facts = {
        "questions": num_questions,
        "config": base.model_dump(
            mode="json", include={"engine", "assistant", "user", "contrast", "generate"}
        ),
        "settings": [
            {"setting": setting.name, **asdict(setting), **asdict(found)}
            for setting, found in results.items()
        ],
    }
    write_facts(path, facts, tell=False)


def main() -> None:
    """Runs all settings, prints the table and writes it as JSON."""
    parser = argparse.ArgumentParser(prog="python -m music_ray.bench.contrasts")
    parser.add_argument("--questions", type=int, default=len(QUESTIONS), help="only the first so many")
    parser.add_argument("--mode", choices=MODES, action="append", help="only this one; may be repeated")
    parser.add_argument("--out", default="runs/bench/contrasts.json")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="of the configuration")
    words = parser.parse_args()
    quieten_libraries()
    base = resolve_config(apply_overrides(json.loads(json.dumps(BASE)), words.overrides))
    # Spread over the kinds, so that a small run has some of each.
    step = max(1, len(QUESTIONS) // words.questions)
    questions = QUESTIONS[::step][: words.questions]
    engine = make_engine(base.engine)
    results: dict[Setting, Measured] = {}
    for setting in settings(words.mode or MODES):
        began = time.perf_counter()
        rollouts = asyncio.run(roll_all(engine, config_of(base, setting), questions))
        results[setting] = measured = measure(questions, rollouts, time.perf_counter() - began)
        _write(words.out, base, len(questions), results)
        say(f"{setting.name}: {measured.ok}/{measured.rollouts} ok in {measured.seconds:.0f} s")
    engine.close()
    for line in table(results):
        say(line)
    say(f"{words.out} written")


if __name__ == "__main__":
    main()
