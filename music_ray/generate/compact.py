"""Many rows in little memory, until their order is known: compressed, sorted by a key, read back once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

_CODEC = pa.Codec("zstd", compression_level=1)


class CompactRows:
    """Rows (JSON values) that wait for their place in an order.

    A conversation of 4 KB takes about 1.5 KB here and about 8 KB as Python objects.
    """

    def __init__(self) -> None:
        self._rows: list[tuple[Any, int, bytes]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, key: Any, row: dict[str, Any]) -> None:
        """Keeps a row under a key; keys must differ and be comparable."""
        packed = json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
        self._rows.append((key, len(packed), _CODEC.compress(packed, asbytes=True)))

    def in_order(self) -> Iterator[dict[str, Any]]:
        """The rows, smallest key first."""
        self._rows.sort(key=lambda entry: entry[0])
        for _, size, packed in self._rows:
            yield json.loads(_CODEC.decompress(packed, decompressed_size=size, asbytes=True))
