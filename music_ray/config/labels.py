"""Labels of nodes, as Ray names them: which may stand in a configuration, and how messages show them.

Plain values only. Ray's operators (`!x`, `in(a, b)`) are not taken: what is compared before a start, and what
`ray start --labels` is told, are values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator

_WORD = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
_DOMAIN = rf"{_WORD}(?:\.{_WORD})*"
_FORM = "1 to 63 letters, digits, '-', '_' or '.', the first and the last a letter or digit"


def shown(labels: Mapping[str, str]) -> str:
    """As `ray start --labels` takes them: name=value, with commas between."""
    return ",".join(f"{name}={value}" for name, value in sorted(labels.items()))


def _valid(labels: dict[str, str]) -> dict[str, str]:
    for name, value in labels.items():
        domain, slash, word = name.rpartition("/")
        if not re.fullmatch(_WORD, word) or (
            slash and (len(domain) > 253 or not re.fullmatch(_DOMAIN, domain))
        ):
            raise ValueError(
                f"{name!r} can't be a label's name: it is {_FORM}, perhaps after a domain and '/', e.g. "
                "music-ray/group"
            )
        if not re.fullmatch(_WORD, value):
            raise ValueError(
                f"{name} is {value!r}: a label's value is {_FORM}; operators such as !x and in(x, y) are not "
                "taken"
            )
    return labels


NodeLabels = Annotated[dict[str, str], AfterValidator(_valid)]
"""Labels that a node must have, every one of them."""
