"""What the sections say of themselves, and combinations that cannot work."""

from typing import get_args

import pytest
from pydantic import BaseModel

from music_ray.config import RunConfig, SamplingConfig, parse_schedule
from music_ray.config.base import Section, field_kind, select
from music_ray.config.load import apply_overrides, resolve_config
from music_ray.errors import ConfigError


def sections(model: type[BaseModel] = RunConfig) -> dict[str, type[BaseModel]]:
    found = {model.__name__: model}
    for field in model.model_fields.values():
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                found |= sections(kind)
    return found


SECTIONS = sections()
FIELDS = [f"{name}.{field}" for name, model in SECTIONS.items() for field in model.model_fields]


def test_all_sections_are_found() -> None:
    assert len(SECTIONS) == 31
    assert all(issubclass(model, Section) for model in SECTIONS.values())


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_has_a_sentence(name: str) -> None:
    section, _, field = name.partition(".")
    text = SECTIONS[section].model_fields[field].description
    assert text, f"{name} has no docstring under it"
    # A sentence ends in a full stop; one that goes on in the next field's ends in an ellipsis.
    assert text.rstrip().endswith((".", "…")), text


@pytest.mark.parametrize("name", SECTIONS)
def test_sections_refuse_unknown_keys_and_changes(name: str) -> None:
    config = SECTIONS[name].model_config
    assert (config.get("extra"), config.get("frozen")) == ("forbid", True)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("all", ("from_turn", [1])),
        ("from_turn:2", ("from_turn", [2])),
        ("from_turn: 2", ("from_turn", [2])),
        ("probability:0.25", ("probability", 0.25)),
        ("probability:.5", ("probability", 0.5)),
        ("probability:1", ("probability", 1.0)),
        ("turns:[3, 1,3]", ("turns", [1, 3])),
        ("turns:[2]", ("turns", [2])),
    ],
)
def test_schedules_that_are_understood(text: str, parsed: object) -> None:
    assert parse_schedule(text) == parsed


@pytest.mark.parametrize(
    "text",
    [
        "", "ALL", "from_turn", "from_turn:", "from_turn:-1", "from_turn:1.5", "probability:0",
        "probability:1.01", "probability:1.2.3", "probability:.", "turns:[]", "turns:[,]", "turns:[1 2]",
        "turns:1", "turns:[-1]", "all ",
    ],
)  # fmt: skip
def test_schedules_that_are_not(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_schedule(text)
    assert str(caught.value) == (
        f"schedule {text!r} is not one of all | from_turn:K | probability:P | turns:[K, …] "
        "(P above 0 and at most 1)"
    )


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["contrast.schedule='turns:[2, 6]'"],
            "contrast.schedule (turns:[2, 6]) names turn 6, but generate.turns is 5: name turns from 1 to 5, "
            "or raise generate.turns",
        ),
        (
            ["contrast.schedule=from_turn:0"],
            "contrast.schedule (from_turn:0) names turn 0, but generate.turns is 5: name turns from 1 to 5, "
            "or raise generate.turns",
        ),
        (
            ["contrast.schedule=from_turn:3", "generate.turns=2"],
            "contrast.schedule (from_turn:3) names turn 3, but generate.turns is 2: name turns from 1 to 2, "
            "or raise generate.turns",
        ),
        (
            ["user.sampling.max_tokens=512", "engine.max_model_len=512"],
            "a reply of 512 tokens does not fit engine.max_model_len (512): raise engine.max_model_len or "
            "lower sampling.max_tokens",
        ),
        (
            ["engine.max_num_batched_tokens=2048"],
            "engine.max_num_batched_tokens (2048) is below engine.max_model_len (4096): on the CPU vLLM "
            "can't split the prefill of a seeded request, raise it or leave it empty",
        ),
        (
            ["engine.gpus_per_engine=1", "engine.tensor_parallel_size=2"],
            "engine.tensor_parallel_size (2) exceeds engine.gpus_per_engine (1): set both to the same number",
        ),
        (
            ["engine.gpus_per_engine=4", "engine.tensor_parallel_size=2"],
            "engine.gpus_per_engine (4) exceeds engine.tensor_parallel_size (2): the engine would leave GPUs "
            "idle, set both to the same number",
        ),
        (
            ["engine.max_num_batched_tokens=4096", "engine.max_num_seqs=5000"],
            "engine.max_num_batched_tokens (4096) is below engine.max_num_seqs (5000): a step takes a token "
            "of each, raise it or leave it empty",
        ),
        (
            ["engine.min_engines=3", "engine.max_engines=2"],
            "engine.min_engines (3) exceeds engine.max_engines (2): raise engine.max_engines",
        ),
        (
            ["train.steps=8", "train.warmup_steps=8"],
            "train.warmup_steps (8) must be below train.steps (8): lower it",
        ),
        (
            ["train.num_workers=8", "train.pairs_per_step=4"],
            "train.num_workers (8) exceeds train.pairs_per_step (4): a worker would have no pair, lower "
            "train.num_workers",
        ),
        (
            ["mix.include_music=false", "mix.include_preferences=false"],
            "mix.include_preferences and mix.include_music are both false: nothing to train on",
        ),
        (
            ["train.attention=flash_attention_2", "train.packing=padded"],
            "train.attention=flash_attention_2 needs train.use_gpu=true",
        ),
        (
            ["train.attention=sdpa"],
            "train.attention=sdpa does not go with train.packing=shared_prefix: set train.attention to auto, "
            "segments or flex, or train.packing=padded",
        ),
        (
            ["train.attention=segments", "train.packing=padded"],
            "train.attention=segments does not go with train.packing=padded: set train.attention to auto, "
            "eager, sdpa or flash_attention_2, or train.packing=shared_prefix",
        ),
        (
            ["train.attention=flex"],
            "train.attention=flex needs train.use_gpu=true (FlexAttention has no backward pass on CPUs): use "
            "train.attention=segments",
        ),
    ],
)  # fmt: skip
def test_impossible_combinations(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_config(apply_overrides({"name": "x"}, overrides))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "overrides",
    [
        ["engine.max_num_batched_tokens=2048", "engine.gpus_per_engine=1"],
        ["engine.tensor_parallel_size=2", "engine.gpus_per_engine=2"],
        ["engine.tensor_parallel_size=2"],
        ["train.attention=flash_attention_2", "train.packing=padded", "train.use_gpu=true"],
        ["train.attention=flex", "train.use_gpu=true"],
        ["train.attention=segments", "train.packing=packed"],
        ["mix.include_music=false"],
        ["contrast.schedule='turns:[5]'"],
        ["train.steps=1", "train.pairs_per_step=2"],
    ],
)
def test_their_possible_neighbours(overrides: list[str]) -> None:
    assert resolve_config(apply_overrides({"name": "x"}, overrides)).name == "x"


def test_the_kinds_of_key_decide_what_may_change() -> None:
    kinds = {name: field_kind(SECTIONS[name.partition(".")[0]], name.partition(".")[2]) for name in FIELDS}
    assert [name for name, kind in kinds.items() if kind == "growth"] == [
        "SeedsConfig.num_seeds",
        "BestOfNConfig.num_prompts",
    ]
    assert {kind for name, kind in kinds.items() if name.startswith(("PlanConfig", "RayConfig"))} == {"free"}
    assert {kind for name, kind in kinds.items() if name.startswith("SamplingConfig")} == {"identity"}


def test_select_goes_into_sections() -> None:
    config = resolve_config({"name": "x", "train": {"lora": {"rank": 4}}})
    assert select(config.seeds, {"growth"}) == {"num_seeds": None}
    assert select(config.seeds, {"identity"}) == {"cut": "prompt", "max_tokens": None}
    chosen = select(config.train, {"identity"})
    assert chosen["lora"]["rank"] == 4 and chosen["adam_betas"] == [0.9, 0.95]
    assert "num_workers" not in chosen and "zero" not in chosen
    assert select(config.user, {"identity"})["sampling"] == {
        "temperature": 0.8, "top_p": 0.95, "repetition_penalty": 1.0, "max_tokens": 64,
        "begin": "",
    }  # fmt: skip


def test_select_goes_into_lists_of_sections() -> None:
    """A source's licence is free: naming it later makes no run another run."""
    data = {"sources": [{"path": "a.jsonl", "licence": "mit"}, {"path": "b.jsonl"}]}
    sources = select(resolve_config({"name": "a", "data": data}).data, {"identity"})["sources"]
    assert [source["path"] for source in sources] == ["a.jsonl", "b.jsonl"]
    assert not any("licence" in source for source in sources)


def test_a_section_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        SamplingConfig().top_p = 0.5  # type: ignore[misc]


def test_one_sampling_key_keeps_the_users_other_defaults() -> None:
    config = resolve_config({"name": "x", "user": {"sampling": {"top_p": 0.5}}})
    sampling = config.user.sampling
    assert (sampling.temperature, sampling.top_p, sampling.max_tokens) == (0.8, 0.5, 64)
    assert config.assistant.sampling.max_tokens == 224
