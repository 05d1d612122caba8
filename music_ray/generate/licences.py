"""Which licences the sources of D come under, as far as the rows or the configuration say.

Nothing is looked up and nothing is judged: whether licences permit what is done with the pairs is for a
person to decide. A licence that nobody named is UNKNOWN.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from music_ray.config import RunConfig, SourceConfig
from music_ray.generate.shapes import LICENCE_COLUMNS
from music_ray.generate.sources import source_name

UNKNOWN = "unknown"
_LONGEST = 100
_MOST_RECORDED = 1_000
_SAMPLE_LICENCE = "apache-2.0"
"""Of the conversations that are shipped in the package."""

_HUB_NAMES = """
    afl-3.0 agpl-3.0 apache-2.0 artistic-2.0 bigcode-openrail-m bsd bsd-2-clause bsd-3-clause bsl-1.0 cc
    cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0
    cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0
    cc0-1.0 cdla-permissive-1.0 cdla-permissive-2.0 cdla-sharing-1.0 epl-2.0 eupl-1.1 gemma gfdl gpl gpl-2.0
    gpl-3.0 isc lgpl lgpl-2.1 lgpl-3.0 llama2 llama3 llama3.1 llama3.2 llama3.3 mit mpl-2.0 odbl odc-by
    openrail pddl unlicense wtfpl zlib
"""
"""Licences that the hub knows by name; any other is `other` there, with a name of its own."""

Key = tuple[str, int, str]
"""A row's source, the index in data.sources that it was read from, and the licence it names ('' if none)."""


@dataclass(frozen=True)
class Licences:
    """The licences of a run's sources; several where rows of one source differ."""

    by_source: Mapping[str, frozenset[str]]
    otherwise: frozenset[str]
    """Of a source that is not among them."""

    def of(self, source: str) -> list[str]:
        """The licences of the rows of one source, UNKNOWN among them where some have none."""
        return sorted(self.by_source.get(source, self.otherwise))

    def unknown(self, sources: Iterable[str]) -> list[str]:
        """Those of the sources that have rows whose licence nobody named."""
        return sorted(source for source in sources if UNKNOWN in self.of(source))

    def on_the_hub(self, sources: Iterable[str]) -> dict[str, str]:
        """The card's `license`: the single one when all sources agree, `other` when they differ."""
        found = {licence for source in sources for licence in self.of(source)}
        if UNKNOWN in found or not found:
            return {"license": UNKNOWN}
        names = {re.sub(r"[^a-z0-9.]+", "-", licence.lower()).strip("-") or "custom" for licence in found}
        if len(names) == 1 and names <= set(_HUB_NAMES.split()):
            return {"license": names.pop()}
        return {"license": "other", "license_name": names.pop() if len(names) == 1 else "several"}


def row_licence(row: Mapping[str, Any]) -> str:
    """The licence that a row of D names itself; empty when it names none."""
    for column in LICENCE_COLUMNS:
        value = row.get(column)
        if isinstance(value, str) and value.strip():
            # A lone surrogate of a JSON escape could not be written into the manifest.
            return " ".join(value.split())[:_LONGEST].encode("utf-8", "replace").decode("utf-8")
    return ""


def licence_records(counts: Counter[Key]) -> list[dict[str, Any]]:
    """The manifest's record of what the rows said, most frequent first; at most a thousand entries."""
    return [
        {"source": source, "read_from": index, "licence": licence, "pairs": count}
        for (source, index, licence), count in counts.most_common(_MOST_RECORDED)
    ]


def licences_of(config: RunConfig, records: list[dict[str, Any]] | None) -> Licences:
    """Who is under which licence: a row's own word goes before the configuration's.

    Args:
        records: `licences` of the seeds stage in the manifest; None for a folder that an older music_ray
            made, where the configuration alone is asked.
    """
    configured = [_configured(source) for source in config.data.sources]
    by_source: dict[str, set[str]] = {}
    if records is None:
        for source, licence in zip(config.data.sources, configured, strict=True):
            by_source.setdefault(source_name(source), set()).add(licence)
        # A row may carry the name of its own origin, whichever file it came in.
        otherwise = frozenset(configured) or frozenset({UNKNOWN})
    else:
        for one in records:
            known = configured[one["read_from"]] if one["read_from"] < len(configured) else UNKNOWN
            by_source.setdefault(one["source"], set()).add(one["licence"] or known)
        otherwise = frozenset({UNKNOWN})
    return Licences({source: frozenset(found) for source, found in by_source.items()}, otherwise)


def _configured(source: SourceConfig) -> str:
    return source.licence or (_SAMPLE_LICENCE if source.path == "sample" else UNKNOWN)
