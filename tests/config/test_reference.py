from pathlib import Path

from music_ray.config.load import all_keys
from music_ray.config.reference import markdown
from music_ray.identity import IDENTITY

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "configuration.md"


def test_the_page_is_what_the_classes_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == markdown(), (
        "the configuration has changed: run `make docs` and commit docs/reference/configuration.md"
    )


def test_every_key_has_a_row_with_a_sentence() -> None:
    rows = [line for line in markdown().splitlines() if line.startswith("| `")]
    assert len(rows) == len(list(all_keys()))
    assert not [row for row in rows if row.endswith("|  |")]


def test_the_head_names_the_sections_whose_keys_are_refused() -> None:
    head = markdown().split("\n## ")[0]
    refused = head.partition("**identity**")[2].partition("is refused")[0]
    assert [name for name in IDENTITY if f"`{name}`" not in refused] == []


def test_kinds_types_bounds_and_defaults() -> None:
    page = markdown()
    assert "| `num_seeds` | integer, or empty (`null`) | empty | growth | ≥ 1 |" in page
    assert "| `adam_betas` | list of 2 numbers | `[0.9, 0.95]` | identity | each ≥ 0, < 1 |" in page
    assert "| `object_store_gib` | number | `0.5` | free | > 0.07 |" in page
    assert "| `cut` | `prompt`, `first_user` or `random` | `prompt` | identity |" in page
    assert "| `name` | text | must be set | free |" in page
