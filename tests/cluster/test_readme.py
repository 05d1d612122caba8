"""The commands of cluster/README.md exist, and what it says of the files is so."""

import re

from tests.cluster.commands import check, commands
from tests.cluster.files import CLUSTER, RENDERED, ROOT

TEXT = (CLUSTER / "README.md").read_text()
LINES = re.sub(r"\\\n *", "", TEXT).splitlines()
BLOCKS = [line.strip() for line in LINES if re.match(r"^ {4,}(?! *\|)\S", line)]


def readme_commands() -> list[list[str]]:
    return [words for line in BLOCKS for words in commands(line)]


def test_every_command_is_taken_by_its_program() -> None:
    told = [check(words) for words in readme_commands()]
    assert [kind for kind in told if kind] == [
        "cluster/render.py", "ray get-auth-token", "ray up", "ray dashboard", "music-ray submit", "ray job",
        "ray down"
    ]  # fmt: skip


def test_the_files_that_it_names_are_there() -> None:
    named = set(re.findall(r"`(rendered/[\w.-]+)`", TEXT)) | set(
        re.findall(r"cluster/(rendered/[\w.-]+)", TEXT)
    )
    assert {f"rendered/{path.name}" for path in RENDERED.iterdir()} == named
    for name in re.findall(r"cluster/[\w./-]+\w", TEXT):
        assert (ROOT / name).exists() or name == "tests/cluster", name


def test_the_knobs_are_parameters() -> None:
    parameters = (CLUSTER / "parameters.yaml").read_text()
    for knob in ("max_nodes", "idle_minutes", "deadline_hours", "attempts", "efa_libraries"):
        assert f"{knob}:" in parameters and knob in TEXT
