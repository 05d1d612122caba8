"""Shell text → the commands in it, and a check of each against the program's own parser. Runs nothing."""

import re
import shlex

import typer
from click import Command, Context, Group

from music_ray.cli import app
from music_ray.config import RunConfig
from music_ray.config.load import load_config
from tests.cluster.files import RENDERED, ROOT

IN_THE_IMAGE = "/opt/music_ray/"
_ENDS = {";", "&&", "||", "|", "&", "(", ")"}


def commands(text: str) -> list[list[str]]:
    """Each simple command's words, without redirections, assignments and the wrappers around it."""
    text = re.sub(r"\\\n", " ", text)
    text = re.sub(r"\d?>>?\s*(&\d|\S+)", " ", text)
    tokens = shlex.shlex(text.replace("\n", " ; "), posix=True, punctuation_chars=";&|()")
    tokens.whitespace_split = True
    tokens.commenters = "#"
    found: list[list[str]] = [[]]
    for token in tokens:
        if token in _ENDS:
            found.append([])
        else:
            found[-1].append(token)
    return [words for one in found if (words := _unwrapped(one))]


def told_by(name: str) -> list[list[str]]:
    """The commands in the comments at the top of a rendered file; a line further in goes on with the last."""
    lines = [line[4:] for line in (RENDERED / name).read_text().splitlines() if line.startswith("#   ")]
    return commands(re.sub(r"\n {4}", " ", "\n".join(line.split("  stays;")[0] for line in lines)))


def run_of(words: list[str]) -> RunConfig:
    """The run that a command starts, by itself, through `ray job submit` or as `music-ray submit`."""
    start = 0 if words[0] == "music-ray" else words.index("music_ray")
    overrides = [word for word in words[start + 3 :] if "=" in word and not word.startswith("-")]
    return load_config(ROOT / words[start + 2].removeprefix(IN_THE_IMAGE), overrides)


def _unwrapped(words: list[str]) -> list[str]:
    words = list(words)
    while words:
        if words[0] in {"nohup", "export"} or re.fullmatch(r"\w+=.*", words[0]):
            del words[0]
        elif words[0] == "flock":
            assert words[1] == "--nonblock"
            del words[:3]
        elif words[0] == "srun":
            del words[0]
            while words and words[0].startswith("--"):
                del words[0]
        else:
            break
    return words


def check(words: list[str]) -> str | None:
    """Parses a command of ray or music_ray by its own parser; returns which it was, None for others.

    Raises:
        click.ClickException: an option, a command or a value that the program does not take.
    """
    if words[0] == "ray":
        from ray.scripts.scripts import cli

        if words[1] == "symmetric-run":
            return _check_symmetric_run(words[2:])
        _parse(cli, words[1:])
        if words[1:3] == ["job", "submit"]:
            check(words[words.index("--") + 1 :])
        return " ".join(words[:2])
    if words[0] == "music-ray":
        _parse(typer.main.get_command(app), words[1:])
        run_of(words)
        return f"music-ray {words[1]}"
    if words[:3] == ["python", "-m", "music_ray"]:
        _parse(typer.main.get_command(app), words[3:])
        run_of(words)
        return f"music_ray {words[3]}"
    if words[0] == "python":
        assert (ROOT / words[1].removeprefix(IN_THE_IMAGE)).is_file(), words[1]
        return words[1]
    return None


def _parse(command: Command, words: list[str]) -> Context:
    context = None
    while isinstance(command, Group):
        context = Context(command, parent=context)
        name, *words = words
        found = command.get_command(context, name)
        assert found is not None, f"no command {name}"
        command = found
    return command.make_context(command.name, list(words), parent=context)


def _check_symmetric_run(words: list[str]) -> str:
    from ray.scripts.scripts import cli
    from ray.scripts.symmetric_run import curate_and_validate_ray_start_args, symmetric_run

    cut = words.index("--")
    _parse(symmetric_run, words[:cut])
    # What is left over goes to `ray start` on every node, as the program itself sorts it out.
    start_options = curate_and_validate_ray_start_args(words[:cut])
    for role in (["--head"], ["--address=127.0.0.1:6379", "--block"]):
        _parse(cli, ["start", *role, *start_options])
    check(words[cut + 1 :])
    return "ray symmetric-run"
