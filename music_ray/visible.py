"""Text of others, made harmless for a terminal and for a log: what acts is replaced by a sign for it.

Generated text, rows of a data set and answers of a server may hold anything: an escape sequence can rewrite
what stands on a screen, a carriage return or a newline can forge a line of a log, a directional mark can turn
the reading order around. This module knows characters, not what a text is for; escaping for HTML or Markdown
is the business of whoever writes that.
"""

from __future__ import annotations

import re
from typing import Any

# Controls except tab and newline, C1 controls, directional embeddings, overrides and isolates, surrogates.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_LINE_ENDS = re.compile("[\t\n\u2028\u2029]")
_COLOUR = re.compile("(\x1b\\[[0-9;]*m)")


def visible(text: str) -> str:
    """The text with every character that acts instead of showing replaced by a sign for it.

    Tabs and newlines stay, and Windows line ends become newlines.
    """
    return _UNSAFE.sub(_sign, text.replace("\r\n", "\n"))


def on_one_line(text: str) -> str:
    """visible, for a text that must not begin a line of its own: tabs and newlines are shown as well."""
    return _LINE_ENDS.sub(_sign, visible(text))


def visible_values(value: Any) -> Any:
    """A JSON document with all of its texts, keys too, visible and on one line."""
    if isinstance(value, dict):
        return {visible_values(key): visible_values(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(visible_values(inner) for inner in value)
    return on_one_line(value) if isinstance(value, str) else value


def visible_log(text: str) -> str:
    """Lines of another program's log: colours stay; a carriage return, as of a progress bar, ends a line."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    parts = _COLOUR.split(lines)  # every second part is a colour
    return "".join(part if index % 2 else visible(part) for index, part in enumerate(parts))


def _sign(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)  # Unicode's own pictures of the control characters.
    if code == 0x7F:
        return "\N{SYMBOL FOR DELETE}"
    return f"<U+{code:04X}>"
