"""A run beside secrets, with an endpoint that is no friend: the commands as a user calls them.

The endpoint repeats the key that it was sent in its errors, and what it writes is meant for a browser, a
terminal, a shell, a YAML parser and whoever reads the log. Ray's own logs are looked at as well.
"""

from __future__ import annotations

import json
import os
import random
import re
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from aiohttp import web

from music_ray.engines.scripted import _WORDS
from music_ray.run import config_of_run
from music_ray.rundir import RunDir
from tests.engines.misbehaving import Behaviour, Server, completion, serving
from tests.security.secrets_found import files_below, telling
from tests.security.watching import Seen, run_watched

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
ROOT = Path(__file__).resolve().parents[2]
SEEDS = 12
FORGED = "pairs: done in 0.1 s (999 accepted)"
HOSTILE = (
    "<script>alert(1)</script> ``` ```` $(touch PWNED) `touch PWNED` ; touch PWNED\n---\nlicense: mit\n---\n"
    f"{FORGED}\n\x1b[2J\x1b]0;evil\x07\x1b[31m red \r{FORGED} \u202e | evil"
)
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
HUB_FRONT_MATTER = re.compile(r"^(\s*---[\r\n]+)([\S\s]*?)([\r\n]+---(\r\n|\n|$))")
"""How the hub's client finds the front matter of a card."""


@dataclass
class Endless:
    """Stands for the server's script: the same behaviour for every request."""

    behaviour: Behaviour
    number: int = 0

    def __bool__(self) -> bool:
        return True

    def popleft(self) -> Behaviour:
        self.number += 1
        return self.behaviour


def hostile_behaviour(server: Server, script: Endless) -> Behaviour:
    async def answer(request: web.Request) -> web.StreamResponse:
        key = request.headers["Authorization"]
        if script.number % 9 == 5:
            return web.json_response({"error": {"message": f"{HOSTILE} {key}"}}, status=500)
        if script.number % 13 == 7:
            return web.json_response({"error": {"message": f"no {key} {HOSTILE}"}}, status=400)
        draw = random.Random(json.dumps(server.bodies[-1], sort_keys=True))
        text = " ".join(draw.choices(_WORDS, k=40))
        return web.json_response(completion(request.path, f"{text} {HOSTILE}", model=f"evil {HOSTILE}"))

    return answer


@dataclass
class Ran:
    """The commands that were run, and what they left."""

    folder: Path
    planted: dict[str, str]
    seen: dict[str, Seen] = field(default_factory=dict)

    @property
    def secrets(self) -> dict[str, str]:
        """What was planted, and the token that Ray has made for itself."""
        token = (self.folder / "home" / ".ray" / "auth_token").read_text().strip()
        assert len(token) >= 32
        return self.planted | {"RAY_AUTH_TOKEN": token}

    @property
    def run(self) -> RunDir:
        return RunDir(config_of_run(str(self.folder / "runs" / "planted")))

    def call(self, *words: str) -> None:
        """A command; what it did is kept under its first word."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "HF_"))}
        kept |= self.planted | {"PYTHONPATH": str(ROOT), "HOME": str(self.folder / "home")}
        self.seen[words[0]] = run_watched(
            [sys.executable, "-m", "music_ray", *words], timeout=200, cwd=self.folder,
            env=kept | {"RAY_TMPDIR": str(self.folder / "ray")},
        )  # fmt: skip


@pytest.fixture(scope="module")
def ran() -> Iterator[Ran]:
    folder = Path(tempfile.mkdtemp(prefix="mr-", dir="/tmp"))  # short: Ray's sockets lie below
    (folder / "home").mkdir()
    planted = {
        "OPENAI_API_KEY": f"sk-planted{secrets.token_hex(16)}",
        "HF_TOKEN": f"hf_planted{secrets.token_hex(16)}",
        "AWS_ACCESS_KEY_ID": f"AKIAPLANTED{secrets.token_hex(8)}",
        "AWS_SECRET_ACCESS_KEY": f"planted/{secrets.token_hex(16)}",
        "WANDB_API_KEY": f"planted{secrets.token_hex(20)}",
    }
    with (folder / "pairs.jsonl").open("w") as handle:
        for number in range(SEEDS):
            opening = [{"role": "user", "content": f"Tell me about topic {number}. {HOSTILE}"}]
            sides = {
                side: [*opening, {"role": "assistant", "content": f"{side} {number} {HOSTILE}"}]
                for side in ("chosen", "rejected")
            }
            handle.write(json.dumps({**sides, "source": f"web {HOSTILE}", "license": f"x {HOSTILE}"}) + "\n")
        handle.write(json.dumps({"chosen": HOSTILE, "rejected": "", "source": HOSTILE}) + "\n")
    try:
        with serving() as server:
            script = Endless(behaviour=None)  # type: ignore[arg-type]
            script.behaviour = hostile_behaviour(server, script)
            server.script = script  # type: ignore[assignment]
            config = {
                "name": "planted",
                "data": {"sources": [{"path": "pairs.jsonl"}], "held_out_fraction": 0.0},
                "engine": {
                    "kind": "endpoint",
                    "model": "model",
                    "endpoint": {"base_url": server.base_url, "max_attempts": 3},
                },
                "user": {"mode": "prompted"},
                "contrast": {"mode": "resample"},
                "generate": {"turns": 2, "canary": {"seeds": 0}},
                "ray": {"num_cpus": 2, "object_store_gib": 0.1},
            }
            (folder / "planted.yaml").write_text(yaml.safe_dump(config))
            one = Ran(folder, planted)
            for stage in ("seeds", "generate", "pairs"):
                one.call(stage, "planted.yaml")
            for command in ("report", "inspect"):
                one.call(command, "runs/planted")
            one.call("export", "runs/planted", "--format", "sft")
            yield one
    finally:
        shutil.rmtree(folder)


def test_the_run_went_all_the_way_with_failures_in_it(ran: Ran) -> None:
    for name, seen in ran.seen.items():
        assert seen.code == 0, f"{name}: {seen.out}{seen.err}"
    stages = ran.run.manifest()["stages"]
    assert stages["generate"]["counts"]["errors"].get("request_refused", 0) > 0
    assert stages["pairs"]["counts"]["accepted"] > 0
    details = [row["detail"] for row in ran.run.read_rows("rollouts", "shards") if row["status"] == "error"]
    assert any("***" in detail for detail in details), "the endpoint has repeated the key"


def test_a_secret_stands_in_no_file_of_the_run(ran: Ran) -> None:
    files = files_below(ran.folder / "runs")
    assert len(ran.secrets) == 6 and len(files) > 10
    assert {"index.html", "README.md", "manifest.json", "config.yaml"} <= {path.name for path in files}
    assert telling(ran.folder / "runs", ran.secrets.values()) == []


def test_a_secret_stands_in_no_log_of_ray(ran: Ran) -> None:
    logs = files_below(ran.folder / "ray")
    assert len(logs) > 10 and any(path.name.startswith("raylet") for path in logs)
    assert telling(ran.folder / "ray", ran.secrets.values()) == []


def test_a_secret_is_neither_said_nor_on_a_command_line(ran: Ran) -> None:
    for name, seen in ran.seen.items():
        told = "\n".join([seen.out, seen.err, *seen.command_lines])
        assert not [key for key, value in ran.secrets.items() if value in told], name


def test_all_that_was_started_listens_here_alone(ran: Ran) -> None:
    assert len(ran.seen["generate"].listening) > 3  # Ray's own services
    assert [seen.listening_elsewhere for seen in ran.seen.values()] == [set() for _ in ran.seen]


def test_nothing_steers_the_terminal_and_no_line_is_forged(ran: Ran) -> None:
    for name, seen in ran.seen.items():
        assert not CONTROLS.search(seen.out + seen.err), name
        # `inspect` shows whole messages, each line beside a label; elsewhere a line is ours or none.
        assert name == "inspect" or not [
            line for line in (seen.out + seen.err).splitlines() if line.startswith(FORGED)
        ], name


@pytest.mark.parametrize("card", ["pairs/README.md", "export/sft/README.md"])
def test_the_cards_front_matter_is_ours_and_nothing_in_it_acts(ran: Ran, card: str) -> None:
    text = (ran.folder / "runs" / "planted" / card).read_text()
    match = HUB_FRONT_MATTER.search(text)
    assert match is not None
    head = yaml.safe_load(match[2])
    assert set(head) == {
        "pretty_name", "license", "license_name", "size_categories", "tags", "configs"
    }  # fmt: skip
    assert (head["license"], head["size_categories"]) == ("other", ["n<1K"])
    assert not CONTROLS.search(text)
    heads = [line for line in text.splitlines() if line.startswith("## ")]
    assert len(heads) == len(set(heads))


def test_nothing_that_was_generated_was_run(ran: Ran) -> None:
    assert not list(ran.folder.rglob("PWNED"))
    page = (ran.folder / "runs" / "planted" / "report" / "index.html").read_text()
    assert "<script>alert(1)" not in page and "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert not CONTROLS.search(page)
