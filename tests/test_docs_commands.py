"""Every command that the documentation shows is one that its program takes, and what it names is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import typer

from music_ray.cli import app
from tests.cluster.commands import _parse, check, commands
from tests.cluster.files import ROOT

PAGES = sorted([ROOT / "README.md", ROOT / "cluster" / "README.md", *(ROOT / "docs").rglob("*.md")])
TARGETS = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
_SHELL = {"sh", "bash", ""}


def blocks(text: str) -> list[str]:
    """The indented and fenced blocks that hold shell commands."""
    found = [body for language, body in re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
             if language in _SHELL]  # fmt: skip
    outside = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return found + re.findall(r"(?:^ {4,}\S.*\n?(?:^ {4,}.*\n?)*)", outside, flags=re.MULTILINE)


def shown(path: Path) -> list[list[str]]:
    """The commands of a page that this project or Ray answers."""
    found = []
    for block in blocks(path.read_text()):
        lines = re.sub(r"\\\n *", "", block)
        for line in lines.splitlines():
            line = line.strip()
            if re.match(r"(\S*/)?(music-ray|ray|make|python) |python -m music_ray", line):
                found += [words for words in commands(line.split("  #")[0]) if words]
    return found


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_is_taken(path: Path) -> None:
    for words in shown(path):
        name = words[0].rpartition("/")[2]
        if name == "make":
            targets = [word for word in words[1:] if "=" not in word]
            assert set(targets) <= TARGETS, words
        elif name == "music-ray":
            if words[1:] != ["COMMAND", "…"]:
                _parse(typer.main.get_command(app), [word for word in words[1:] if word != "…"])
        elif name == "ray":
            check(["ray", *words[1:]])


def test_the_pages_do_show_commands() -> None:
    told = [words for path in PAGES for words in shown(path)]
    assert len(told) > 60
    assert {words[1] for words in told if words[0].endswith("music-ray")} >= {
        "run", "submit", "status", "stop", "plan", "serve", "report", "generate"
    }  # fmt: skip


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_rays_token_goes_with_every_cluster_that_is_started_or_asked(path: Path) -> None:
    text = path.read_text()
    # A head that listens on the machine's own address would be open to the network without it.
    if re.search(r"^ {4,}.*ray (start --head|up |job submit)|^ {4,}.*music-ray submit", text, re.MULTILINE):
        assert "RAY_AUTH_MODE=token" in text, "say that the token is asked for"
    assert "RAY_AUTH_MODE=disabled" not in text and "--dashboard-host=0.0.0.0" not in text


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\((?!https?://|#)([^)#\s]+)", path.read_text()):
        assert (path.parent / target).exists(), target


def messages() -> str:
    """All texts of the package, the parts of an f-string joined by a sign that no message has."""
    found = []
    for path in sorted((ROOT / "music_ray").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                parts = [one.value if isinstance(one, ast.Constant) else "\0" for one in node.values]
                found.append("".join(map(str, parts)))
    return "\n".join(found)


def test_the_messages_of_the_table_of_failures_are_the_programs() -> None:
    page = (ROOT / "docs" / "how-to" / "operate.md").read_text()
    table = page.partition("## What goes wrong")[2].partition("\n## ")[0]
    said = messages()
    rows = [line for line in table.splitlines() if line.startswith("| ") and not line.startswith("| you see")]
    assert len(rows) > 20
    for row in rows:
        for quoted in re.findall(r"`([^`]+)`", row.split(" | ")[0]):
            for part in (part.strip() for part in quoted.split("…")):
                assert part in said or part == "ray status", f"{part!r} of {quoted!r}"
