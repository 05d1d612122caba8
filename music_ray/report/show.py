"""How text, numbers and durations are shown to a person, on the page and in the terminal.

Generated text may hold anything: `visible` (music_ray.visible) replaces what would steer a terminal or turn
the reading order around; escaping for HTML is the template's business. A page is made to be passed on, so
places are shown without credentials and without the folders of the machine.
"""

from __future__ import annotations

import math
import re

from music_ray.public import public_place, without_places

MINUS = "\N{MINUS SIGN}"
NOTHING = "\N{EM DASH}"
_UNTRAINED = "untrained:"


def count(value: float | None) -> str:
    """A number with thousands separators; a small one that is not whole keeps one decimal."""
    if value is None or not math.isfinite(value):
        return NOTHING
    return f"{value:,.1f}" if value != int(value) and abs(value) < 100 else f"{value:,.0f}"


def percent(value: float | None) -> str:
    """A share of 1 as a percentage with one decimal."""
    return NOTHING if value is None or not math.isfinite(value) else f"{100 * value:.1f}%"


def share(value: float, low: float, high: float, number: float, *, has_interval: bool = True) -> str:
    """A share of so many with its interval; a dash where there is none."""
    if not math.isfinite(value):
        return NOTHING
    interval = f"{percent(low)} to {percent(high)}" if has_interval else "too few contexts"
    return f"{percent(value)} ({interval}) of {count(number)}"


def decimal(value: float | None, digits: int = 3) -> str:
    """A number with a fixed number of decimals and a real minus sign."""
    if value is None:
        return NOTHING
    if not math.isfinite(value):
        return "not finite"
    return f"{value:.{digits}f}".replace("-", MINUS)


def signed(value: float | None, digits: int = 3) -> str:
    """A number that shows its sign, plus included."""
    text = decimal(value, digits)
    return f"+{text}" if value is not None and math.isfinite(value) and value >= 0 else text


def known_signed(value: float | None, digits: int = 3) -> str:
    """signed, with a dash where there is no number."""
    return NOTHING if value is None or not math.isfinite(value) else signed(value, digits)


def duration(seconds: float | None) -> str:
    """Seconds in the two largest units that matter: 4.2 s, 3 min 05 s, 2 h 10 min, 1 d 4 h."""
    if seconds is None or not math.isfinite(seconds):
        return NOTHING
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)  # Before the comparison: 3599.9 s is an hour, not 60 minutes.
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24} h"


def moment(text: str | None) -> str:
    """An ISO time of the manifest without its machine marks: 2025-11-22 20:49 UTC."""
    match = re.fullmatch(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d):\d\dZ", text or "")
    return f"{match[1]} {match[2]} UTC" if match else (text or NOTHING)


def place(name: str) -> str:
    """A model or folder as it was named on a command line, fit to be read by anybody.

    A run's model keeps the run's name, for all of them lie in a folder `model`.
    """
    mark = _UNTRAINED if name.startswith(_UNTRAINED) else ""
    bare = name.removeprefix(mark)
    shown = public_place(bare)
    above = bare.rstrip("/").rpartition("/")[0].rpartition("/")[2]
    if shown == "…/model" and above not in ("", "~"):
        shown = f"…/{above}/model"
    return mark + shown


def sentence(text: str) -> str:
    """Text in which a URI may stand, without the credentials and options of it; local paths stay."""
    return without_places(text) if "://" in text else text


def words(name: str) -> str:
    """A key as words: held_out_pairs becomes 'held out pairs'."""
    return name.replace("_", " ")
