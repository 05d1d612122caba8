"""What ran: every stage's state, plan against truth, counts by reason and tokens, from the manifest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from music_ray.report.jsonlines import naming_damage
from music_ray.report.show import words
from music_ray.rundir import STAGES, RunDir

_EXTRA = "setup"
"""Has a plan but is no stage of the run folder: it is shown when the manifest knows it."""


@dataclass(frozen=True, slots=True)
class Reasons:
    """One table of reasons, largest count first."""

    stage: str
    label: str
    rows: list[tuple[str, float]]

    @property
    def total(self) -> float:
        """All reasons together."""
        return sum(count for _, count in self.rows)


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage as the manifest has it."""

    name: str
    state: str
    """A word for the table: done | outdated | unfinished | not run | this page."""
    finished: str | None
    starts: int
    plan_seconds: float | None
    total_seconds: float | None
    counts: list[tuple[str, float]]
    reasons: list[Reasons]
    notes: list[str]

    @property
    def over_plan(self) -> bool:
        """Whether the stage took longer than planned."""
        if self.plan_seconds is None or self.total_seconds is None:
            return False
        return self.total_seconds > self.plan_seconds

    @property
    def against_plan(self) -> str:
        """The comparison in words, for who cannot see the bar."""
        if self.plan_seconds is None or self.total_seconds is None:
            return "nothing to compare"
        return "over plan" if self.over_plan else "within plan"

    @property
    def longest_seconds(self) -> float:
        """The longer of plan and truth: what the bars are scaled to."""
        return max(self.plan_seconds or 0.0, self.total_seconds or 0.0)


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens of one stage."""

    prompt: int
    cached: int
    completion: int
    per_pair: dict[str, float] | None
    """The same three for one accepted pair; None while there is none."""
    completion_per_second: float | None

    @property
    def cached_share(self) -> float | None:
        """Share of the prompt tokens that the engine had in its prefix cache."""
        return self.cached / self.prompt if self.prompt else None


def read_stages(run: RunDir, manifest: dict[str, Any]) -> list[Stage]:
    """All stages in their order, those that never ran included.

    Raises:
        InputError: a stage's record is damaged.
    """
    records = manifest.get("stages", {})
    names = (_EXTRA, *STAGES) if _EXTRA in records else STAGES
    with naming_damage("a stage's record in it", "restore it"):
        return [_stage(run, name, records.get(name, {})) for name in names]


def _stage(run: RunDir, name: str, record: dict[str, Any]) -> Stage:
    is_report = name == "report"  # Its own record is half written while this page is made.
    counts = {} if is_report else record.get("counts") or {}
    notes = record.get("notes") or []
    return Stage(
        name=name,
        state="this page" if is_report else _state(run, name, record),
        finished=None if is_report else record.get("finished"),
        starts=0 if is_report else record.get("starts", 0),
        plan_seconds=getattr(run.config.plan, name, None),
        total_seconds=None if is_report else record.get("total_seconds"),
        counts=[(words(key), value) for key, value in counts.items() if _is_number(value)],
        reasons=[
            Reasons(name, words(key), sorted(value.items(), key=lambda item: (-item[1], item[0])))
            for key, value in counts.items()
            if isinstance(value, dict) and value and all(map(_is_number, value.values()))
        ],
        notes=[str(note) for note in (notes if isinstance(notes, list) else [notes])],
    )


def _state(run: RunDir, name: str, record: dict[str, Any]) -> str:
    if not record.get("status"):
        return "unfinished" if record else "not run"
    if record["status"] != "done":
        return "unfinished"
    if name in STAGES and not run.is_made_from_this(name, record.get("made_from")):
        return "outdated"
    return "done"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def read_tokens(manifest: dict[str, Any]) -> Tokens | None:
    """Tokens of the generate stage; None when it did not record any.

    Raises:
        InputError: its record is damaged.
    """
    with naming_damage("the record of generate in it", "restore it"):
        return _tokens(manifest.get("stages", {}))


def _tokens(stages: dict[str, Any]) -> Tokens | None:
    generate = stages.get("generate", {})
    tokens = generate.get("tokens")
    if not isinstance(tokens, dict) or not tokens:
        return None
    kinds = {kind: int(tokens.get(kind, 0)) for kind in ("prompt", "cached", "completion")}
    accepted = stages.get("pairs", {}).get("counts", {}).get("accepted")
    seconds = generate.get("total_seconds")
    return Tokens(
        **kinds,
        per_pair={kind: value / accepted for kind, value in kinds.items()} if accepted else None,
        completion_per_second=kinds["completion"] / seconds if seconds else None,
    )


@dataclass(frozen=True, slots=True)
class Step:
    """One number of the road from seeds to scores."""

    label: str
    value: float | None
    detail: str


def road(stages: list[Stage]) -> list[Step]:
    """The few counts that say how far the data came."""
    counts = {(stage.name, label): value for stage in stages for label, value in stage.counts}
    lost = {(table.stage, table.label): table.total for stage in stages for table in stage.reasons}

    def get(stage: str, label: str) -> float | None:
        return counts.get((stage, label))

    def less(stage: str, label: str, verb: str) -> str:
        number = lost.get((stage, label), 0)
        return f"{number:,.0f} {verb}" if number else ""

    music, preferences = get("mix", "music"), get("mix", "preferences")
    mixed = None if music is None and preferences is None else (music or 0) + (preferences or 0)
    return [
        Step("seeds", get("seeds", "seeds"), less("seeds", "set aside", "set aside")),
        Step("rollouts", get("generate", "ok"), less("generate", "errors", "ended in an error")),
        Step("accepted pairs", get("pairs", "accepted"), less("pairs", "refused", "refused by a gate")),
        Step("pairs in the mix", mixed, f"{music:,.0f} of them MUSIC pairs" if music else ""),
        Step("training steps", get("train", "steps"), _seen(get("train", "pairs seen"))),
    ]


def _seen(pairs_seen: float | None) -> str:
    return f"{pairs_seen:,.0f} pairs seen" if pairs_seen is not None else ""
