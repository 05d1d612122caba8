"""Own templates and plugins before a run: what is refused, what the identity knows, what workers get."""

import asyncio
import sys
from pathlib import Path

import pytest

from music_ray import preflight
from music_ray.config import RunConfig
from music_ray.config.load import apply_overrides, resolve_config
from music_ray.errors import ConfigError, InputError, RunFolderError
from music_ray.identity import identity_of
from music_ray.prompts import own
from music_ray.ray_session import worker_config
from music_ray.rundir import RunDir

DRIFT = """
from music_ray.generate.contrasts import ContrastReply

async def drift(request):
    return ContrastReply("something else")

def plain(request):
    return None

async def two(request, more):
    return None
"""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))


def config_of(*overrides: str) -> RunConfig:
    return resolve_config(apply_overrides({"name": "r"}, ["engine.kind=scripted", *overrides]))


def refusal(*overrides: str) -> str:
    with pytest.raises(InputError) as caught:
        preflight.check(config_of(*overrides), ["generate"])
    return str(caught.value)


def template(text: str, name: str = "own.j2") -> str:
    Path(name).write_text(text)
    return f"contrast.template={name}"


# -- combinations that the configuration refuses ----------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["contrast.show_chosen_reply=true", "contrast.mode=resample"],
            "contrast: show_chosen_reply=true shows the chosen reply in a mode's prompt, but mode=resample "
            "has none: remove it, or set mode to one of joint, two_step, direct",
        ),
        (
            ["contrast.template=x.j2", "contrast.mode=neighbour"],
            "contrast: template (x.j2) replaces a mode's prompt, but mode=neighbour has none: remove it, or "
            "set mode to one of joint, two_step, direct",
        ),
        (
            ["contrast.plugin=a:b", "contrast.mode=direct"],
            "contrast: plugin (a:b) replaces mode (direct): remove one of the two",
        ),
        (
            ["contrast.plugin=a:b", "contrast.template=x.j2"],
            "contrast: plugin (a:b) replaces template (x.j2): remove one of the two",
        ),
        (
            ["contrast.plugin=drift.py"],
            "contrast.plugin: plugin 'drift.py' is not of the form module:function, e.g. my_contrasts:drift",
        ),
        (
            ["user.history=both"],
            "user.history is 'both': input should be 'own' or 'replay_chosen'",
        ),
    ],
)
def test_what_cannot_go_together_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config_of(*overrides)
    assert str(caught.value) == message


# -- templates -------------------------------------------------------------------------------------


def test_templates_that_cannot_be_used_are_refused_before_anything_starts() -> None:
    direct = "contrast.mode=direct"
    assert refusal("contrast.template=no.j2") == (
        "no template file at no.j2: correct contrast.template, or remove it to use the mode's own"
    )
    assert refusal("contrast.template=.") == (
        "contrast.template (.) can't be read: Is a directory; name a file with a template"
    )
    assert refusal(direct, template("{{ mesage }}")) == (
        "contrast.template (own.j2) can't be rendered with 0 messages before the user's and no chosen reply: "
        "UndefinedError: 'mesage' is undefined; it may use message, history, chosen_reply, turn, num_turns"
    )
    assert refusal(direct, template("{% if message %}")).startswith(
        "contrast.template (own.j2) can't be rendered with 0 messages before the user's and no chosen reply: "
        "TemplateSyntaxError: Unexpected end of template."
    )
    assert "SecurityError" in refusal(direct, template("{{ message.__class__.__base__ }}"))
    assert "TypeError: no loader" in refusal(direct, template("{% include 'passwords' %}"))
    assert refusal(direct, template("{% if false %}x{% endif %}")) == (
        "contrast.template (own.j2) renders to nothing: write what the model is to be told"
    )
    Path("own.j2").write_bytes(b"caf\xe9")
    assert refusal(direct, "contrast.template=own.j2") == (
        "contrast.template (own.j2) is not UTF-8 (byte 3): save it as UTF-8"
    )


def test_a_template_must_ask_for_what_its_mode_reads() -> None:
    instruction = template("{{ message }} Write <modified_instruction>.")
    assert refusal(instruction) == (
        "contrast.template (own.j2) never mentions <reply>, but contrast.mode=joint reads what the model "
        "writes between <reply> and </reply>: ask the model for it, or use contrast.mode=direct"
    )
    assert preflight.check(config_of(instruction, "contrast.mode=two_step"), ["generate"]) is None
    assert preflight.check(config_of(template("Be wrong."), "contrast.mode=direct"), ["generate"]) is None
    # Only where rollouts are to be made.
    assert preflight.check(config_of("contrast.template=no.j2"), ["pairs"]) is None


def test_workers_get_the_templates_text() -> None:
    config = config_of(template("Be wrong."), "contrast.mode=direct")
    sent = RunConfig.model_validate_json(worker_config(config).model_dump_json())
    Path("own.j2").unlink()
    assert sent.contrast.template == "Be wrong.\n"
    assert own.template_text(sent.contrast.template) == "Be wrong.\n"
    assert worker_config(sent).contrast == sent.contrast


# -- plugins ---------------------------------------------------------------------------------------


def test_plugins_that_cannot_be_used_are_refused_before_anything_starts() -> None:
    Path("drifts_a.py").write_text(DRIFT)
    Path("drifts_broken.py").write_text("1 / 0")
    assert refusal("contrast.plugin=nowhere_at_all:drift") == (
        "contrast.plugin (nowhere_at_all:drift): nowhere_at_all can't be imported: ModuleNotFoundError: "
        "No module named 'nowhere_at_all'; correct the name, or start music-ray in the folder that holds the "
        "module"
    )
    assert "ZeroDivisionError: division by zero" in refusal("contrast.plugin=drifts_broken:drift")
    assert refusal("contrast.plugin=drifts_a:drft") == (
        "contrast.plugin (drifts_a:drft): drifts_a has no drft: correct contrast.plugin"
    )
    assert refusal("contrast.plugin=drifts_a:plain") == (
        "contrast.plugin (drifts_a:plain): plain is no async function: define it as "
        "`async def plain(request)`"
    )
    assert refusal("contrast.plugin=drifts_a:two") == (
        "contrast.plugin (drifts_a:two): two can't be called with one argument, the request: define it as "
        "`async def two(request)`"
    )
    assert preflight.check(config_of("contrast.plugin=drifts_a:drift"), ["generate"]) is None


def test_a_plugin_is_found_in_the_folder_where_the_command_is_given() -> None:
    sys.path[:] = [entry for entry in sys.path if entry not in ("", str(Path.cwd()))]
    Path("drifts_b.py").write_text(DRIFT)
    reply = asyncio.run(own.load_plugin("drifts_b:drift")(None))
    assert reply.text == "something else"
    # No file there stands in for an installed package.
    assert sys.path[-1] == str(Path.cwd())


# -- identity --------------------------------------------------------------------------------------


def opened(*overrides: str) -> RunDir:
    """A run folder that holds rollouts."""
    run = RunDir(config_of("runs_dir=runs", *overrides))
    run.open()
    run.write_text("x", "rollouts", "shards", "x")
    return run


def test_a_changed_template_is_refused_a_moved_one_is_not() -> None:
    words = template("Be wrong."), "contrast.mode=direct"
    opened(*words)
    opened(*words)
    opened(template("Be wrong.\n", "moved.j2"), "contrast.mode=direct")
    opened("contrast.template='Be wrong.\n\n'", "contrast.mode=direct")
    template("Be very wrong.")
    with pytest.raises(RunFolderError) as caught:
        opened(*words)
    before, after = (
        own.hashes(config_of(f"contrast.template='{text}\n\n'", "contrast.mode=direct").contrast)
        for text in ("Be wrong.", "Be very wrong.")
    )
    assert str(caught.value) == (
        f'contrast.template_hash is "{after["template_hash"]}", but runs/r was made with '
        f'"{before["template_hash"]}"\nrestore the old template or plugin file, set the old values '
        "again, or give this run another name"
    )
    with pytest.raises(RunFolderError, match=r"contrast\.template_hash is null"):
        opened("contrast.mode=direct")


def test_a_changed_plugin_is_refused() -> None:
    Path("drifts_c.py").write_text(DRIFT)
    opened("contrast.plugin=drifts_c:drift")
    assert "contrast.plugin_hash" in identity_of(config_of("contrast.plugin=drifts_c:drift"))
    Path("drifts_c.py").write_text(DRIFT.replace("something else", "else"))
    with pytest.raises(
        RunFolderError, match=r"^contrast.plugin_hash is .*\nrestore the old template or plugin file"
    ):
        opened("contrast.plugin=drifts_c:drift")


def test_a_stage_is_out_of_date_when_its_template_changed_and_can_be_looked_at_without_it() -> None:
    words = template("Be wrong."), "contrast.mode=direct"
    run = opened(*words)
    before = run.fingerprint("generate")
    assert run.fingerprint("generate") == before
    template("Be very wrong.")
    assert run.fingerprint("generate") != before
    Path("own.j2").unlink()
    assert run.fingerprint("generate") != before
    with pytest.raises(InputError, match=r"^no template file at own.j2"):
        run.check_identity()


def test_without_own_contrasts_no_key_is_added() -> None:
    assert not [key for key in identity_of(config_of()) if key.endswith("_hash")]
