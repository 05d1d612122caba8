"""The audit in the terminal: a table of views, what either side says more often, and the verdict.

Words of the pairs are shown as text: nothing of them is read as rich's markup. Terms hold word characters
only, so they can't steer a terminal.
"""

from __future__ import annotations

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from music_ray.generate.audit.result import Audit, Likeness, Rate, View

_NAMED = 2
"""Features that the table names of a view."""
_NOTHING = "\N{EM DASH}"


def show(audit: Audit, console: Console | None = None) -> None:
    """Prints an audit, with that of D beside it where there is one."""
    console = console or Console()
    size = f"{audit.num_pairs:,} pairs of {audit.num_conversations:,} conversations"
    title = f"AUC of a linear model on {size}, with {audit.confidence:.0%} intervals; 0.5 is a coin"
    _print(console, title, _views(audit))
    if audit.turns:
        title = "How alike the branches are from the turn in which they part: words shared, pairs equal"
        _print(console, title, _turns(audit))
    _print(console, "Messages with a marker", _markers(audit))
    console.print(Text(audit.verdict, style="bold yellow" if audit.warnings else "bold"))
    for sentence in audit.warnings:
        console.print(Text(f"warning: {sentence}", style="yellow"))
    for sentence in audit.remedies:
        console.print(Text(f"remedy: {sentence}"))
    if of_d := _of_preferences(audit.preferences):
        console.print(Text(of_d))
    for sentence in audit.notes:
        console.print(Text(f"note: {sentence}", style="dim"))


def _views(audit: Audit) -> Table:
    table = _table()
    table.add_column("features/part")
    table.add_column(audit.origin, no_wrap=True)
    if audit.preferences:
        table.add_column("D", no_wrap=True)
    table.add_column("carried by")
    for name, view in audit.views.items():
        style = "yellow" if view.low is not None and view.low > audit.max_auc else ""
        cells = [Text(name), Text(_number(view), style=style)]
        if audit.preferences:
            cells.append(Text(_number(audit.preferences.views[name])))
        table.add_row(*cells, Text(_carried(audit, view)))
    return table


def _of_preferences(audit: Audit | None) -> str:
    """Which shortcut D itself has, where it has any."""
    view = audit.views[audit.highest] if audit and audit.highest else None
    if audit is None or view is None or view.low is None or view.low <= 0.5:
        return ""
    return f"D itself: {audit.highest} has AUC {_number(view)}, carried by {_named(view)}"


def _turns(audit: Audit) -> Table:
    table = _table()
    table.add_column("turn", justify="right")
    table.add_column("user messages")
    table.add_column("replies")
    for turn in audit.turns:
        table.add_row(str(turn.turn), _likeness(turn.user), _likeness(turn.reply))
    return table


def _markers(audit: Audit) -> Table:
    table = _table()
    table.add_column("marker")
    table.add_column("of")
    table.add_column("chosen")
    table.add_column("rejected")
    for marker in audit.markers:
        who = "user messages" if marker.role == "user" else "replies"
        table.add_row(marker.name, who, _rate(marker.chosen), _rate(marker.rejected))
    return table


def _table() -> Table:
    return Table(box=None, pad_edge=False, header_style="dim")


def _print(console: Console, title: str, table: Table) -> None:
    console.print(Text(title, style="bold"))
    console.print(Padding(table, (0, 0, 1, 2)))


def _number(view: View) -> str:
    return _NOTHING if view.auc is None else f"{view.auc:.2f} ({view.low:.2f} to {view.high:.2f})"


def _carried(audit: Audit, view: View) -> str:
    """The features, where the interval says that there is anything to carry; else why there is no AUC."""
    if audit.highest is None:  # the same reason for all views, and the verdict says it
        return ""
    if view.low is None or view.low <= 0.5:
        return view.reason
    return _named(view)


def _named(view: View) -> str:
    return ", ".join(f"{one.name} ({one.direction})" for one in view.features[:_NAMED])


def _likeness(likeness: Likeness | None) -> str:
    if likeness is None:
        return _NOTHING
    return f"{likeness.word_overlap:.2f}, {likeness.equal:.0%} of {likeness.num_pairs:,}"


def _rate(rate: Rate) -> str:
    return f"{rate.with_marker:,} of {rate.messages:,} ({rate.share:.1%})" if rate.messages else _NOTHING
