"""Which commit of the hub a branch or tag meant when a run first asked: looked up once, and written down.

A branch that moves must not give rows of two models. Knows the run's manifest and the hub, no stage.
"""

from __future__ import annotations

from pathlib import Path

from music_ray import models
from music_ray.config import ContrastConfig, EngineConfig, RunConfig, UserConfig
from music_ray.errors import InputError
from music_ray.rundir import RunDir


def with_commits(run: RunDir) -> RunConfig:
    """The run's configuration with the commits of its engines' hub models, each looked up once in its life.

    Raises:
        InputError: no such model, no access to it, or a chat template that can't be used.
    """
    config = run.config
    user = config.user.engine or config.engine
    at_commit = {config.engine: with_commit(run, config.engine)}
    if config.user.mode == "template" and user.endpoint is not None:
        at_commit[user] = with_tokenizer_commit(run, user)

    def role(section: UserConfig | ContrastConfig) -> UserConfig | ContrastConfig:
        # Equal engines stay equal: roles share them.
        engine = section.engine and at_commit.get(section.engine, section.engine)
        return section.model_copy(update={"engine": engine})

    return config.model_copy(
        update={
            "engine": at_commit[config.engine],
            "user": role(config.user),
            "contrast": role(config.contrast),
        }
    )


def with_commit(run: RunDir, engine: EngineConfig) -> EngineConfig:
    """The engine at the commit that the run goes by, in the manifest under `revisions`.

    An engine whose model lies in a folder stays as it is, and so does one that loads none (kinds scripted and
    endpoint).

    Raises:
        InputError: no such model, no access to it, or a chat template that can't be used.
    """
    if engine.kind != "vllm" or Path(models.resolve_model(engine.model)).is_dir():
        return engine
    commit = _commit(run, engine.model, engine.revision)
    from music_ray.chat import ChatFormat

    ChatFormat.load(engine.model, commit)
    return engine.model_copy(update={"revision": commit})


def with_tokenizer_commit(run: RunDir, engine: EngineConfig) -> EngineConfig:
    """The same for an endpoint whose model's chat template is continued: the commit of its tokenizer.

    Raises:
        InputError: as with_commit.
    """
    if engine.endpoint is None or Path(models.resolve_model(engine.tokenizer)).is_dir():
        return engine
    try:
        commit = _commit(run, engine.tokenizer, engine.revision)
    except InputError as error:
        raise InputError(
            f"user.mode=template continues the chat template of the endpoint's model: {error}\n"
            "name its Hugging Face folder or id in endpoint.tokenizer, or set user.mode=prompted"
        ) from None
    return engine.model_copy(update={"revision": commit})


def _commit(run: RunDir, model: str, revision: str | None) -> str | None:
    name = f"{model}@{revision or 'default'}"
    known = run.manifest().get("revisions", {})
    if name not in known:
        known[name] = models.resolve_revision(model, revision)
        run.note("revisions", known)
    return known[name]
