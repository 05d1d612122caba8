"""What of a configuration may be read by anybody: neither credentials nor places on the author's machines.

Keys never stand in a configuration, but URIs can hold them (s3://KEY:SECRET@bucket), and local paths tell
names of users and machines.
"""

from __future__ import annotations

import re
from typing import Any

from music_ray.config import RunConfig
from music_ray.identity import STAGE_SECTIONS, result_keys

_LOCAL_PATH = re.compile(r"(?:file://|~)?/\S*/([^/\s]+)/?")
_CREDENTIALS = re.compile(r"(?<=://)[^/\s]*@")
_URI_OPTIONS = re.compile(r"(://[^\s?]*)\?\S*")


def public_configuration(config: RunConfig) -> dict[str, Any]:
    """The keys that decide what the pairs are, fit to be published."""
    sections = dict.fromkeys(
        name for stage in ("seeds", "generate", "pairs") for name in STAGE_SECTIONS[stage]
    )
    return {name: _public(result_keys(config, name)) for name in sections}


def without_places(text: str) -> str:
    """A value without credentials and options of a URI; of an absolute local path the last part is left."""
    if local := _LOCAL_PATH.fullmatch(text):
        return f"…/{local[1]}"
    return without_credentials(text)


def without_credentials(place: str) -> str:
    """A place without credentials and options of a URI; local paths stay as they are."""
    return _URI_OPTIONS.sub(r"\1", _CREDENTIALS.sub("", place))


def public_place(place: str) -> str:
    """without_places for a file or folder that a user has named: spaces may stand in its path."""
    if place.startswith(("/", "~", "file://")):
        return f"…/{place.rstrip('/').rpartition('/')[2]}"
    return without_places(place)


def _public(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _public(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_public(inner) for inner in value]
    return without_places(value) if isinstance(value, str) else value
