"""Markdown and its YAML head, as the parsers of others read them: text of others stays where it was put."""

from __future__ import annotations

import re

import yaml
from hypothesis import given
from hypothesis import strategies as st

from music_ray.markdown import code, fenced, front_matter, table

HUB_FRONT_MATTER = re.compile(r"^(\s*---[\r\n]+)([\S\s]*?)([\r\n]+---(\r\n|\n|$))")
"""How the hub's client finds the front matter of a card."""
ODD = st.text(
    alphabet=st.sampled_from("a`|\\#*<>&-:{}[]'\"% \n\r\t\x1b\x07\x85\u2028\u202e\ud800~"), max_size=40
)


@given(ODD, ODD)
def test_the_hub_finds_our_keys_and_nothing_else(name: str, tag: str) -> None:
    text = (
        front_matter({"name": name, "tags": [tag, f"x\n---\n{tag}"]}) + "\n\nbody\n---\nlicense: mit\n---\n"
    )
    match = HUB_FRONT_MATTER.search(text)
    assert match is not None
    values = yaml.safe_load(match[2])
    assert set(values) == {"name", "tags"} and len(values["tags"]) == 2
    assert text[match.end() :].startswith("\n\nbody") or text[match.end() :].startswith("\nbody")


def test_what_is_harmless_is_kept_as_it_is() -> None:
    values = {"license": "mit", "pretty_name": "é – 漢字: x", "size": ["n<1K"]}
    assert yaml.safe_load(front_matter(values).strip("-")) == values


@given(ODD)
def test_a_markdown_parser_sees_one_fence_and_one_cell(text: str) -> None:
    from markdown_it import MarkdownIt

    parser = MarkdownIt("gfm-like", {"linkify": False})
    inside = [one for one in parser.parse(f"{fenced(text)}\n\nend") if one.type != "inline"]
    assert [one.type for one in inside] == ["fence", "paragraph_open", "paragraph_close"]
    page = parser.render(f"before\n\n{table(['a', 'b'], [[code(text), 'x']])}\n\nend")
    assert (page.count("<td>"), page.count("<tr>")) == (2, 2)
    assert "<p>end</p>" in page and "\x1b" not in page


def test_a_cell_holds_no_markup() -> None:
    from markdown_it import MarkdownIt

    hostile = "`<b>x</b>` | [link](https://example.org) ![x](y) <script>"
    page = MarkdownIt("gfm-like", {"linkify": False}).render(table(["a"], [[code(hostile)]]))
    assert "<b>" not in page and "<script" not in page and "<a " not in page and "<img" not in page
