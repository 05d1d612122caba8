"""The search for secrets finds what it is to find, also where Parquet packs it."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.security.secrets_found import telling

SECRET = "planted-in-the-tests-0123456789"


def test_a_secret_is_found_in_values_names_and_metadata_of_parquet_and_in_any_other_file(
    tmp_path: Path,
) -> None:
    plain = {"a": [f"{'x' * 50}{SECRET}"] * 500}
    tables = {
        "value": pa.table(plain),
        "nested": pa.table({"a": [[{"b": {"c": SECRET}}]]}),
        "column": pa.table({SECRET: [1]}),
        "metadata": pa.table({"a": [1]}).replace_schema_metadata({"key": SECRET}),
        "none": pa.table({"a": ["harmless"]}),
    }
    for name, table in tables.items():
        pq.write_table(table, tmp_path / f"{name}.parquet", compression="zstd")
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "raylet.out").write_bytes(b"\xff" + SECRET.encode())
    assert telling(tmp_path, [SECRET, "another"]) == [
        f"{name}: planted-in-t…"
        for name in (
            "column.parquet", "logs/raylet.out", "metadata.parquet", "nested.parquet", "value.parquet"
        )
    ]  # fmt: skip
