"""What two runs' evaluations have in common: the same pairs, and models that play the same part in each.

A run's own model is called so in both columns, whatever its folder; so are the models that training started
from. All other models keep their names. Knows what reports collect, not how it is shown.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from music_ray.report.any_model import AnyModel, SetResult
from music_ray.report.best_of_n import BestOfN, Match, Rate
from music_ray.report.collect import ReportData
from music_ray.report.evaluation import TRAINED, Suite
from music_ray.report.meeting import Entry, rows_of
from music_ray.report.paired import Right, chance, contexts_of, tested
from music_ray.report.parts import Part
from music_ray.report.roles import Role, Roles, roles_of
from music_ray.report.sensitivity import Point
from music_ray.report.show import NOTHING, count, known_signed, place, share
from music_ray.rundir import RunDir
from music_ray.schema import pair_content

Run = tuple[RunDir, ReportData]
"""A run's folder, and what its report has collected."""
_UNKNOWN_PROMPTS = (
    "Which prompts a win rate is of is not in its results: compare runs only where best_of_n.prompts, "
    "sources and num_prompts were the same."
)


def parts(first: Run, second: Run) -> list[Part]:
    """The tables of the evaluations beside the runs' own stage."""
    sides = [_Side(run, data, roles_of(run, data)) for run, data in (first, second)]
    evaluate = "music-ray evaluate --model RUN/model --pairs FILE --out RUN/evaluations/NAME makes one."
    best_of_n = "music-ray best-of-n CONFIG --model RUN/model --out RUN/evaluations/best-of-n makes them."
    return [
        Part(
            "Accuracy on any pairs",
            "Pairs whose chosen side scores higher, with intervals over contexts",
            rows_of(*(list(_accuracies(side)) for side in sides)),
            f"No evaluation of any models in either run: {evaluate}",
            [*_other_pairs(*sides), *_changed(sides, "any_models")],
        ),
        Part(
            "Turn-sensitivity",
            "Fall of the score with one spoiled reply, in standard deviations of the model's own scores",
            rows_of(*(list(_falls(side)) for side in sides)),
            "No turn-sensitivity in either run: music-ray evaluate --model … --sensitivity measures it.",
        ),
        Part(
            "Win rates in best-of-N",
            "Of the first, over the prompts with an outcome, with intervals over prompts",
            rows_of(*(list(_win_rates(side)) for side in sides)),
            f"No win rates in either run: {best_of_n}",
            [*_other_games(*sides), *_changed(sides, "best_of_n")],
        ),
    ]


@dataclass(frozen=True, slots=True)
class _Side:
    """One of the two runs."""

    run: RunDir
    data: ReportData
    roles: Roles

    def role(self, found: AnyModel | BestOfN, mark: str) -> Role:
        """The part of what an evaluation calls so; of a picker that is no model, its name."""
        if mark not in found.models:
            return Role(mark, mark)
        return self.roles.of(found.models[mark], found.digests.get(mark, ""))

    def folder(self, found: AnyModel | BestOfN) -> str:
        """An evaluation's name, which no other of this run has."""
        names = [one.place.folder.config.name for one in self.data.beside]
        places = [one.place.folder.root for one in self.data.beside]
        at = places.index(found.place.folder.root)
        before = names[:at].count(names[at])
        return f"{names[at]}, number {before + 1}" if before else names[at]


def _changed(sides: list[_Side], kind: str) -> list[str]:
    """What must be said of models that lie where they were evaluated no more."""
    roles = [
        side.role(found, mark)
        for side in sides
        for found in getattr(side.data, kind)
        for mark in found.models
    ]
    return list(dict.fromkeys(one.note for one in roles if one.note))


# -- any models on any pairs -----------------------------------------------------------------------


def _sets(side: _Side) -> Iterator[tuple[AnyModel, SetResult]]:
    for found in side.data.any_models:
        for pairs in found.sets:
            yield found, pairs


def _entry(side: _Side, found: AnyModel, pairs: SetResult, mark: str, cell: str, more: str = "") -> Entry:
    role = side.role(found, mark)
    return Entry(
        key=(pairs.name, role.key, more),
        of=pairs.content,
        label=f"{pairs.name}, {role.label}{more}",
        cell=cell,
        folder=side.folder(found),
        model=f"model {mark}",
    )


def _accuracies(side: _Side) -> Iterator[Entry]:
    for found, pairs in _sets(side):
        for mark, one in pairs.overall.items():
            span = one.accuracy
            cell = share(span.value, span.low, span.high, one.num_pairs, has_interval=one.has_interval)
            yield _entry(side, found, pairs, mark, cell)


def _falls(side: _Side) -> Iterator[Entry]:
    for found, pairs in _sets(side):
        for curve in pairs.sensitivity.curves if pairs.sensitivity else ():
            for name, point in (("last turn", curve.last), ("all earlier", curve.earlier)):
                yield _entry(side, found, pairs, curve.letter, _fall(point), f", {curve.label}: {name}")


def _fall(point: Point) -> str:
    found = point.fall_std
    if not found.is_known:
        return NOTHING
    interval = f" ({known_signed(found.low, 2)} to {known_signed(found.high, 2)})"
    return f"{known_signed(found.value, 2)}{interval if point.has_interval else ''}, {point.verdict}"


def _other_pairs(first: _Side, second: _Side) -> Iterator[str]:
    """Which pair sets have one name and not the same pairs."""
    ours, theirs = _contents(first), _contents(second)
    for name in ours:
        if name not in theirs or ours[name] == theirs[name]:
            continue
        if ours[name] & theirs[name]:
            yield f"{name}: some evaluations are of other pairs in one run than in the other."
        else:
            yield f"{name}: other pairs in one run than in the other."


def _contents(side: _Side) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for _, pairs in _sets(side):
        found[pairs.name].add(pairs.content)
    return found


# -- best of N -------------------------------------------------------------------------------------


def _games(side: _Side) -> Iterator[tuple[BestOfN, Match, tuple[Role, Role]]]:
    for found in side.data.best_of_n:
        for match in found.matches:
            yield found, match, (side.role(found, match.first), side.role(found, match.second))


def _win_rates(side: _Side) -> Iterator[Entry]:
    for found, match, (one, other) in _games(side):
        who = f"{one.label} against {other.label}"
        for rate in match.rates:
            how = f"by {rate.selection}, N = {rate.n}, judged by {match.judged_by}"
            yield Entry(
                key=(one.key, other.key, how, found.turns, _judge(found, match)),
                of=found.prompts,
                label=f"{who}, {how}",
                cell=_win_rate(rate),
                folder=side.folder(found),
                model=f"{match.first} against {match.second}",
            )


def _win_rate(rate: Rate) -> str:
    found, left_out = rate.win_rate, rate.num_prompts - rate.num_counted
    noted = f", {count(left_out)} left out" if left_out and found.is_known else ""
    return share(found.value, found.low, found.high, rate.num_counted) + noted


def _other_games(first: _Side, second: _Side) -> list[str]:
    """What keeps win rates of the same players and judge in rows of their own, or makes a row doubtful."""
    ours, theirs = _played(first), _played(second)
    notes, is_unknown = [], False
    for key, mine in ours.items():
        if key not in theirs:
            continue
        others = theirs[key]
        if set(mine.how) != set(others.how):
            notes.append(
                f"{mine.label}: {' and '.join(mine.how)} in the first run, {' and '.join(others.how)} in the "
                "second."
            )
        is_unknown = is_unknown or "" in mine.prompts | others.prompts
        if mine.prompts != others.prompts and "" not in mine.prompts | others.prompts:
            some = "some are of " if mine.prompts & others.prompts else ""
            notes.append(f"{mine.label}: {some}other prompts in one run than in the other.")
    return [*dict.fromkeys(notes), *([_UNKNOWN_PROMPTS] if is_unknown else [])]


@dataclass(slots=True)
class _Played:
    """All win rates of two players by one judge in one run."""

    label: str
    how: list[str] = field(default_factory=list)
    """Numbers of turns, and the judge's model where a model judged."""
    prompts: set[str] = field(default_factory=set)
    """Digests; an empty one where it is not known."""


def _played(side: _Side) -> dict[tuple[str, str, str], _Played]:
    played: dict[tuple[str, str, str], _Played] = {}
    for found, match, (one, other) in _games(side):
        label = f"{one.label} against {other.label}, judged by {match.judged_by}"
        here = played.setdefault((one.key, other.key, match.judged_by), _Played(label))
        turns = "1 turn" if found.turns == 1 else f"{found.turns} turns"
        here.how.append(", ".join([turns, *map(place, _judge(found, match))]))
        here.prompts.add(found.prompts)
    for here in played.values():
        here.how = list(dict.fromkeys(here.how))
    return played


def _judge(found: BestOfN, match: Match) -> tuple[str, ...]:
    """The judge's model; none where a checker judged."""
    return tuple(one.model for one in found.judges if one.name == match.judged_by)


# -- the same held-out pairs -----------------------------------------------------------------------


def common_suites(first: ReportData, second: ReportData) -> list[tuple[Suite, Suite]]:
    """Suites that both runs were evaluated on, by name."""
    others = {suite.name: suite for suite in (second.evaluation.suites if second.evaluation else ())}
    mine = first.evaluation.suites if first.evaluation else ()
    return [(suite, others[suite.name]) for suite in mine if suite.name in others]


def same_pairs(one: Suite, first: RunDir, second: RunDir, other: Suite) -> str:
    """On how many of the very same pairs both trained models were tried, and who is right on which.

    Pairs are the same where id and both sides are: a MUSIC pair's id is its seed's, whatever was written.
    """
    held = [_held_out(run, one.name) for run in (first, second)]
    right = [_right(suite) for suite in (one, other)]
    common = [
        id_
        for id_, content in held[0].items()
        if held[1].get(id_) == content and id_ in right[0] and id_ in right[1]
    ]
    if not common:
        return "no pair was scored in both runs, so the two accuracies are of different pairs."
    only_first = sum(right[0][id_] and not right[1][id_] for id_ in common)
    only_second = sum(right[1][id_] and not right[0][id_] for id_ in common)
    mine, others = ({id_: each[id_] for id_ in common} for each in right)
    paired = tested(mine, others, contexts_of(first, one.name))
    test = f" ({chance(paired.p_value)} by exchanges of whole contexts)" if paired else ""
    return (
        f"{count(len(common))} pairs were scored in both runs; the first run's model alone is right on "
        f"{count(only_first)} of them, the second's alone on {count(only_second)}{test}."
    )


def _held_out(run: RunDir, suite: str) -> dict[str, int]:
    if not run.exists("mix", "held_out", f"{suite}.parquet"):
        return {}
    found: dict[str, int] = {}
    with run.open_parquet(run.path("mix", "held_out", f"{suite}.parquet")) as file:
        for batch in file.iter_batches(batch_size=1024, columns=["id", "chosen", "rejected"]):
            rows: list[dict[str, Any]] = batch.to_pylist()
            found.update((str(row["id"]), pair_content(row)) for row in rows)
    return found


def _right(suite: Suite) -> Right:
    scores = suite.scores.get(TRAINED)
    return {} if scores is None else scores.right
